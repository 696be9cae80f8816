// Package broker is the contract between a hub and the log that it follows. Write a [Module] and a [Log], and
// hubs keep their messages where you say. docs/write-a-broker.md shows how; package brokertest tests what
// stands here.
//
// # Words
//
// A hub ([hub.Hub]) delivers messages to the clients of this process. It keeps a copy of the log's end for
// clients that come back. It decides nothing about order. A log decides the order of a hub's messages,
// keeps them as long as it can, and feeds them to the hub. A broker is a kind of log, as a config names it:
// memory, bolt, redis, or yours. An instance is one process with its hub. Some logs are followed by several
// instances.
//
// # What a log owes
//
// Order. All messages of a hub stand in one log, in one order. A log feeds them to the hub one at a time, in
// that order. The messages of one Publish stand in the order of the batch. Ephemeral messages have no
// place in the log: a log delivers each once, and may deliver it before or after the messages around it.
//
// Positions. Each message that is not ephemeral has a [hub.Position], and positions grow along the log. The
// ID that clients get is the log's epoch with that position ([hub.ID]). One ID never names two messages. A
// log that may have lost acknowledged messages, or that begins again, takes another epoch ([hub.NewEpoch]):
// clients are told a gap then, and a position can be given out again.
//
// Density. A hub takes every position between the first and the last for one that was given out. It also
// takes Minor for 0. A log whose positions have holes, or that uses Minor, says so with Sparse in
// [hub.Origin]; the hub then remembers the positions it has seen.
//
// Returns. A hub that has left a log for another one and comes back to it can't know what its clients missed
// meanwhile. It tells a gap to whoever brings an ID from before, by itself: it knows which logs it has left,
// also in processes before this one. A log that ends with the process says so with Transient in
// [hub.Origin].
//
// No silent loss. A log delivers every message behind the hub's position, or says that it can't: by Follow
// and Announce if it is another log, by Lose if messages are missing in this one.
//
// No false answer. A message that Publish acknowledged is in the log, and the hub gets it. A message that
// Publish refused is not, unless the error is [ErrUnknownOutcome].
//
// Once. A message with an idempotency key is published once within [IdempotencyPeriod] of the request's newest
// message, however often and however concurrently it comes. Each repetition gets the first answer. A log that
// keeps messages over a restart keeps what this takes, too. "One record a request" says how.
//
// Nothing left. Close returns when nothing runs any more. The log calls no method of the hub after that.
//
// # The life of a log
//
// A [Module] opens a log for a hub. The log is closed once, whether it was started or not: a config that
// fails closes what it opened. It is started at most once, on one hub.
//
// A config that is loaded anew keeps the log that runs if the module's Identity is the same. If it is
// another, the module opens a second log while the first still runs. Then the first is closed and the
// second is started on the same hub, whose clients stay. So two logs of one process may be open on the same
// file. If a hub is renamed, its new log is even started, on another hub, before the old one is closed: a log
// that shares something with its predecessor waits for that before it feeds the hub.
//
// Publish and CheckKeys are called after ready, from many goroutines at once. When Close is called, none of
// these calls is under way, and none comes after it. The hub may have ended before: its context
// ([hub.Hub.Context]) tells.
//
// # Feeding the hub
//
// A log calls these methods of the hub, in this order. One goroutine does it, or one mutex guards it: the
// hub's locks keep the hub whole, but only the log can keep its own order.
//
//  1. Follow names the log. The hub forgets what it had. If the hub's Position shows that it followed this
//     very log to where it ends, go on with Deliver: clients then notice nothing.
//  2. Restore hands over each message that the log kept, oldest first, with Position and Time. Clients that
//     are connected don't get it; those that come back do. RestoreOwned does so for a log that stores whose
//     client_id a message is for, as OwnerOf told it. ForgetAll and Forget say up to where messages are
//     missing that the log once had; Lost in Origin says it for the log as a whole. Advance says that the
//     log has come further than the last message restored.
//  3. Announce tells the clients that were here before that there is a gap. The reason is "broker_changed"
//     for a log that is new to the hub, "log_lost" if the log lost what it had.
//  4. LogFound says that the log can be used. Then call ready.
//  5. Deliver hands over each further message, with its Position; an ephemeral message needs none. Call
//     Wait behind it, with the number that Deliver returned and no lock held: it returns at once unless
//     this machine is behind its clients. A log that ends with the process calls DeliverUnlessEnded and
//     refuses what that refuses. After Deliver the message is the hub's, and that hub's alone.
//  6. Purge removes messages before their time, as a Purger is asked to.
//  7. Lose says that what stood behind the hub's position, up to a newer one, is lost. Deliver goes on there.
//
// A log whose Origin has Trims stores only what the hub keeps. It asks Dropped for what to remove, and
// Claimed for client_ids that have a new owner.
//
// LogLost says that the log is out of reach, and why. LogFound says that it is back. LogRefuses is for a log
// that can be read but takes no messages. Call ready even if the log is out of reach at the start: clients
// may connect, and publishers are refused until LogFound. Operators see all this, and get an event.
//
// # One record a request
//
// A log has one [Record] for each idempotency key, however many messages the request has. For each message
// with a key it takes the record that counts ([Publication.Record]) and asks it whether the message was
// published before ([Record.Find]). If not, it publishes the message and adds it ([Record.Add]). It does so
// atomically: of two requests with one key that come at once, one waits, or finds what the other has added.
//
// A request that is published as a whole, one message or an array, is known by one fingerprint, and the
// record has the receipt of each message. A streamed request, lines or events that are published as they
// arrive, may be endless, so its record has the number of its messages, the fingerprint of all of them, and
// the last receipt. When it comes again, perhaps with more behind it, the messages up to that number are not
// published. Whether they are the same is proved by the message that has that number, whose fingerprint covers
// all before it: until then nothing new is published, and nothing is acknowledged. Marks in between tell of
// a difference earlier: at the very message in requests of up to 65, else within a thirty-second part.
// A repetition may come while the first is still under way; then each publishes what the other has not.
//
// All records of a hub hold at most [MaxRecordBytes]. Beyond that a message whose key has no record of it is
// refused with [ErrKeysFull], until older records have gone.
//
// # What Publish returns
//
// Publish returns how many messages of the batch, from its beginning, are published. Each of them has its
// Receipt. The error is nil exactly if all are. If not, it says what became of the rest:
//
//   - [ErrKeyReused]: the next message has a key that was used for another message. Nothing from there on was
//     published.
//   - [ErrKeysFull]: the log remembers as many keys as it may. Nothing from there on was published.
//   - [ErrUnavailable]: the log is out of reach or takes no messages. Nothing from there on was published.
//   - [ErrUnknownOutcome]: the log went away between request and answer. The rest may be published, now or
//     later, or not. The publisher repeats the request with the same key, and it is published once.
//   - [hub.ErrHubClosed] or [hub.ErrDraining], as DeliverUnlessEnded returns them: the hub has ended. Nothing
//     from there on was published.
//   - Any other error is taken for ErrUnavailable. Wrap one of these, so that the cause is logged.
//
// A context that is done does not undo a publish. The log publishes and returns nil, or refuses with
// ErrUnavailable, or returns ErrUnknownOutcome if it can't tell. It returns soon after the context is done:
// an exit and a reload wait for it. Where the log may be out of reach it also sets a timeout of its own.
//
// # Optional interfaces
//
// A log that can tell or do more implements one of these; callers find out by type assertion.
//
//   - [Follower]: the log is elsewhere, and this instance may be behind it.
//   - [Sizer]: the log is a file.
//   - [Rememberer]: what the log remembers of idempotency keys outlives it, when the hub follows another.
//   - [Purger]: messages can be removed from the log before their time.
//   - [Kicker]: the log joins several instances, which close each other's connections.
//   - [Counter]: the log joins several instances, which tell each other where their clients listen.
//   - [Claimer]: the log joins several instances, which agree whose a client_id is.
//
// # What is promised
//
// This is v0. This package is promised, with what it names of package hub, and package brokertest. Until v1
// they may change with a minor version, and CHANGELOG.md then says what to do. Everything else in package hub
// serves this module itself and may change with any version. Packages below internal are nobody else's.
package broker
