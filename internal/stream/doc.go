// Package stream carries a hub's clients to their sockets.
//
// A stream begins in a handler, with headers and hello. There are two kinds of what comes then:
//
//   - The handler stream writes through the ResponseWriter, from the goroutine of its request, over any protocol and
//     through any wrapper. The hub's shard gives that goroutine what it can write at once, and never waits for it.
//   - The direct stream (Linux, plain HTTP/1.1) has left its request. The shard writes to the socket itself, and never
//     waits for it either; one goroutine for all tells which sockets are writable again, or were hung up. The stream
//     costs no goroutine, no request and no buffer.
//
// Of what its socket does not take, a stream holds less than 16 KiB. A longer message is looked up again when the
// socket goes on; if nobody keeps it by then the stream is cut.
//
// Whatever ends a stream, and whatever panics in it, its client leaves the hub.
package stream
