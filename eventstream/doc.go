// Package eventstream is the text/event-stream wire format: events to bytes and back,
// after section 9.2 "Server-sent events" of the WHATWG HTML standard.
//
// Two guarantees hold whatever the input:
//
//   - [Event.Append] and [AppendComment] write exactly one block. No value can
//     end its line early, and so none can forge a field or an event.
//   - [Decoder] holds at most one read buffer and one block, whose size it
//     bounds, and returns a block as soon as its blank line has arrived.
//
// The package knows nothing of HTTP, topics or hubs. It passes text through as
// bytes: whether it is UTF-8 is for the caller to decide.
package eventstream
