// Package hub delivers the messages of one log to this process's clients.
//
// What it promises to a client, for as long as the client is there and over reconnects:
//
//   - Each message addressed to the client comes once, in the log's order, and none is missing; or the client is told
//     a gap: at its coming, or by a gap event later. IDs never run backwards on a stream.
//   - "complete" is said only when it is proved: the ID is one that this log gave out since the hub followed it without
//     a break, and nothing addressed to the client after it has been trimmed.
//   - Ephemeral messages are for those who keep up. Of them no more waits than the client's queue holds.
//   - Nothing that is published after a claim, or after a kick, reaches those whom that ended.
//
// And to everybody else:
//
//   - Nobody waits for a client's socket. Publishers wait, in Hub.Wait, while this process is behind with its own work;
//     then no client that could be written to is told a gap, live or still catching up.
//   - A client whose socket takes nothing costs a place in the log.
//   - No step under the hub's lock is longer than about a millisecond, however many topics, patterns and clients there are.
//   - A stream that panics ends its client, and nothing else.
//
// A message takes this way: a broker calls [Hub.Deliver]. That appends it to the log in memory (sequence.go), enters it
// in the history of its addresses (history.go), and counts its receivers (audience.go), under one short lock. Each shard
// (shard.go) reads the log in batches, finds its own clients in its own index (index.go) and calls their streams
// (deliver.go). A client whose stream takes no more is late (late.go): it keeps its place, and reads on by itself when
// its stream is ready, from the newest part of the log, where everything is, or from what history keeps. Who resumes
// begins as late.
//
// The package knows nothing of HTTP, Caddy or Redis.
package hub
