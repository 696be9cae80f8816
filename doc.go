// Package sse makes any Caddy a real-time push server: browsers subscribe with plain EventSource, and
// anything that can POST publishes.
//
// # What is promised
//
//   - One order. All messages of a hub are in one log. Every client gets the messages addressed to it in that
//     order, each once.
//   - Exact resume or an honest gap. A client that returns with a Last-Event-ID gets every message it missed,
//     or is told "gap". It is told "complete" only when that is proved.
//   - An answered publish is in the log. Nobody gets a 200 for a message that is lost.
//   - Only a client whose own socket takes no bytes is slow. When the machine is behind, publishers wait; no
//     healthy client is dropped for it.
//
// # How a message travels
//
//	POST -> publish.go -> live.Hub -> broker.Log (order, keep) -> hub.Hub -> queue -> stream -> socket
//
// ARCHITECTURE.md tells the story on one page.
//
// # The rooms
//
// This package is what users configure and what clients meet. Each engine has a package of its own; a package
// imports only those above it.
//
//	eventstream, topic               formats: the event stream; topics and patterns
//	hub                              clients, history, resuming
//	broker                           what a log of a hub has to do
//	internal/problem, option, token  refusals; kinds of options; JSON Web Tokens
//	internal/ingest                  messages as publishers write them
//	internal/memlog, boltlog, redislog, stream
//	                                 the logs; what writes to sockets
//	internal/live, cli               hubs that outlive configs; the command caddy sse
package sse
