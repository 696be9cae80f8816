// Package mercure is a hub for clients of the Mercure protocol (draft-dunglas-mercure-07): applications that were
// written for another hub go on with their tokens, their PHP and their JavaScript as they are.
//
// # What is promised
//
//   - One order, and exact resume. A client that comes back with the ID of any update gets every update since that is
//     for it; the answer's header Last-Event-ID repeats the ID. If something may be missing the header says "earliest",
//     and all that is kept is sent. If that happens in the middle of a stream, the stream ends, and the client comes
//     back and reads the header.
//   - An answered publish is in the log.
//   - A private update reaches those whose token grants it, live and on replay, and no route of another protocol.
//   - Nothing but updates is an event. All else is comments of one line.
//
// It is a route beside "sse" on the same hubs and logs. This package knows the protocol: selectors, forms, claims,
// statuses, headers. What a hub keeps, and who is reached by what, is the business of package hub.
package mercure
