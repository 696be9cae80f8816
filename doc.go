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
// # How a message travels
//
//	POST -> publish.go -> Broker.Publish (order, keep) -> Hub.Deliver -> Client queue -> stream -> socket
//
// ARCHITECTURE.md tells the story on one page.
package sse
