// Package sse makes any Caddy a real-time push server: browsers subscribe with plain EventSource,
// anything that can POST publishes.
//
// # What is promised
//
//   - One order. All messages of a hub stand in one log; every client gets those addressed to it in
//     that order, each once.
//   - Exact resume or an honest gap. A client that comes back with a Last-Event-ID gets every message
//     it missed, or is told "gap". "complete" is said only when it is proved.
//   - An answered publish is in the log. A 200 is never given for a message that is lost.
//   - Only a client whose own socket takes no bytes is slow. When the machine is behind, publishers
//     wait; no healthy client is dropped for it.
//
// # The rooms
//
// This package is what users configure and what clients meet: Caddy modules, the Caddyfile, GET and
// POST. Each engine is a package of its own. A package imports only what stands below it:
//
//	sse                                  module.go hub.go subscribe.go publish.go access.go caddyfile.go
//	internal/live                        hubs that outlive configs, and the streams of their clients
//	internal/cli                         caddy sse listen, publish, token
//	internal/stream, internal/option     writing to sockets; kinds of Caddyfile options
//	internal/{memlog,boltlog,redislog}   the logs: in memory, in a file, in Redis
//	internal/{answers,redisanswers}      answers of upstreams, for readers that come back
//	internal/{ingest,token,problem}      bodies of messages, JSON Web Tokens, refusals
//	broker, broker/brokertest            what a log owes, and the tests of that
//	hub                                  a log's end in this process: history, index, clients
//	topic, eventstream                   topics and patterns; the event-stream format
//
// Packages outside internal can be imported, to write a broker; they are v0. Of this package, module
// IDs and JSON are what is promised.
//
// # How a message travels
//
//	POST -> publish.go -> broker.Log.Publish (order, keep) -> hub.Hub.Deliver -> client -> stream -> socket
//
// ARCHITECTURE.md has the whole map and the decisions; docs/format.md has what stands in files, in
// Redis and on the wire.
package sse
