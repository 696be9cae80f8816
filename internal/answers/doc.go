// Package answers keeps what an upstream answers, while it still answers and for a while after, so that
// whoever reads it may leave and come back.
//
// An [Answer] has a log of its own: blocks of an event stream, or lines, byte for byte as the upstream
// sent them, numbered from 1 without holes. Readers pull: each has a place in the log and no queue, so
// one that takes nothing holds up nobody. What is promised:
//
//   - A reader gets each block once and in order, from where it says that it has been.
//   - Whether it can is known before it gets anything: [Answer.Read] refuses, the reader itself never does.
//   - An answer ends once. Readers are told how: done, stopped, or aborted with a reason.
//   - All is bounded: an answer's bytes and time, the bytes of all, the upstreams that nobody reads.
//
// A [Store] has the answers of one hub, in this process. What joins it with those of other instances is
// [Shared]. The package knows nothing of Caddy, of requests, or of Redis.
package answers
