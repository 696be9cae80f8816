package redislog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
)

const (
	tailCount = 256     // entries of one read
	loadCount = 1000    // entries of one read at the start
	readBytes = 4 << 20 // bytes of one read, about
)

// keepTailing follows the log until Close. After any failure it goes on from the same position. It calls
// ready after each attempt to join the log.
func (l *Log) keepTailing(ready func()) {
	t := &tail{Log: l, at: l.replica.Position(), count: tailCount / 4, malformed: newMalformedWarnings()}
	var backoff backoff
	for l.context.Err() == nil {
		err := t.connect()
		if err == nil && !l.replica.LogInReach() {
			err = l.pingPublishing()
		}
		if err == nil {
			l.joined.Store(true)
			ready()
			if !l.replica.LogInReach() {
				l.presence.doubted.raise()
			}
			l.replica.LogFound()
			err = t.follow()
		}
		ready()
		if l.context.Err() != nil {
			return
		}
		changed := errors.Is(err, errLogChanged)
		if t.reads > 0 {
			backoff.reset()
			if changed {
				continue // connect finds out what has changed
			}
		}
		if !changed {
			l.logLost(err)
		}
		refresh(l.context, l.tailing)
		backoff.wait(l.context)
	}
}

// pingPublishing checks that publishers reach Redis as well. After an outage, go-redis may refuse to connect
// for up to a second without trying.
func (l *Log) pingPublishing() error {
	ctx, cancel := context.WithTimeout(l.context, l.Timeout)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err == nil {
		err = node.Ping(ctx).Err()
	}
	if err != nil {
		refresh(l.context, l.publishing)
		return fmt.Errorf("reaching the server that publishers use: %w", err)
	}
	return nil
}

// errLogChanged means that the log may be another than the one that was followed, or may have lost entries.
var errLogChanged = errors.New("the log has changed")

// tail is how far this instance has read the log. One goroutine owns it.
type tail struct {
	*Log
	at       hub.ID   // position of the last entry read, malformed ones included
	fields   []string // fields of that entry; nil if they are not known
	followed bool     // whether at is of a log in this Redis that this tail has followed
	lostAck  bool     // whether the log went on without an entry that it had acknowledged here

	noEntry bool  // whether the log has no entry at the position, and goes on there nevertheless
	removed int64 // number of entries that the log had removed when noEntry was set

	intact hub.Position // no purge had deleted anything up to here before it was read
	purged hub.Position // the newest purge when the log was last read

	loading bool         // whether the tail is reading what the log keeps
	seen    hub.Position // while loading: entries after it are new to the clients

	reads int // reads of new entries since connect
	count int // entries of the next read
	added int // entries read since the stream was last trimmed on our account

	malformed malformedWarnings
}

// connect checks that the log goes on at the tail's position. If it does not, connect tells the replica what
// is missing, or switches to the log that is there.
func (t *tail) connect() error {
	ctx, cancel := context.WithTimeout(t.context, 2*t.Timeout)
	defer cancel()
	t.reads = 0
	node, err := t.node(ctx, t.tailing)
	if err != nil {
		return fmt.Errorf("finding the log's server: %w", err)
	}
	if err := t.readClock(ctx, node); err != nil {
		return fmt.Errorf("reading the clock: %w", err)
	}
	epoch, err := t.readEpoch(ctx, node)
	if err != nil {
		return fmt.Errorf("reading the epoch: %w", err)
	}
	if epoch != t.at.Epoch {
		return t.switchTo(node, epoch)
	}
	t.followed = true
	found, lost, err := t.verify(ctx, node)
	switch {
	case err != nil:
		return fmt.Errorf("looking for our position: %w", err)
	case found == whole:
		return nil
	case found == trimmed:
		purge, trimmedToo, err := t.readPurge(ctx, node)
		if err != nil {
			return fmt.Errorf("looking for the newest purge: %w", err)
		}
		if trimmedToo && purge.After(t.at.Position) { // nobody knows what else was purged
			return t.switchTo(node, epoch)
		}
		held, err := t.readHeld(node, t.at.Position, lost)
		if err != nil {
			return fmt.Errorf("reading the newest of topics: %w", err)
		}
		for _, e := range held { // of what is gone they are left
			t.take(e, true)
		}
		t.replica.Lose(lost, "history_trimmed")
		t.goOnAfter(lost)
		return nil
	}
	// The log is an older copy, or another log. The instance that finds out gives it a new name, which all
	// others see.
	t.Logger.Warn("the log in redis is not the one it was; clients are told a gap")
	if epoch, err = t.changeEpoch(ctx, node, epoch); err != nil {
		return fmt.Errorf("changing the epoch: %w", err)
	}
	return t.switchTo(node, epoch)
}

// readClock looks how this instance's clock differs from that of Redis. Where Redis does not let it, the
// clocks count as the same.
func (t *tail) readClock(ctx context.Context, node redis.Cmdable) error {
	now, err := node.Time(ctx).Result()
	switch {
	case redis.IsPermissionError(err):
		t.logFailure("reading the clock of redis failed", err)
		return nil
	case err == nil:
		t.clock.set(now)
	}
	return err
}

// goOnAfter moves the tail to a position that has no entry.
func (t *tail) goOnAfter(p hub.Position) {
	t.at.Position, t.fields, t.noEntry, t.lostAck = p, nil, true, false
	t.acked.reached(t.at)
}

// switchTo makes the replica follow a log with a new name. What the log keeps becomes history. If the replica
// followed this Redis before, its clients are told a gap and then get the entries that they have not seen.
func (t *tail) switchTo(node redis.Cmdable, epoch string) error {
	reason := "log_lost"
	switch {
	case !t.followed:
		t.seen, reason = lastPosition, "broker_changed"
	case !t.loading:
		ctx, cancel := context.WithTimeout(t.context, t.Timeout)
		defer cancel()
		ours, err := t.probe(ctx, node)
		if err != nil {
			return fmt.Errorf("looking for our position: %w", err)
		}
		t.seen = t.at.Position
		if ours != same { // the log may have begun again, and given out positions of this millisecond again
			t.seen = before(hub.Position{Major: t.seen.Major})
		}
	}
	t.loading = true
	entries, lost, err := t.oldest(node)
	if err != nil {
		return fmt.Errorf("looking for the log's beginning: %w", err)
	}
	held, err := t.readHeld(node, hub.Position{}, lost)
	if err != nil {
		return fmt.Errorf("reading the newest of topics: %w", err)
	}
	origin := hub.Origin{Epoch: epoch, Sparse: true, Keeps: t.MaxLen, Shared: true, Lost: lost, Holds: true, Newest: t.newest}
	if len(held) > 0 {
		origin.Lost = hub.Position{}
	}
	t.replica.Follow(origin)
	for _, e := range held {
		t.take(e, false)
	}
	t.replica.ForgetAll(lost)
	t.replica.Advance(lost)
	t.at.Epoch = epoch
	t.goOnAfter(lost)
	announced := false
	for len(entries) > 0 {
		for _, e := range entries {
			if e.position.After(t.seen) {
				if !announced {
					t.replica.Announce(reason)
					announced = true
				}
				t.seen = e.position
			}
			t.acked.reached(hub.ID{Epoch: epoch, Position: e.position})
			t.take(e, announced)
		}
		t.noEntry = false
		if entries, err = t.loadOn(node); err != nil {
			t.at.Epoch = "" // so that the next attempt loads from the beginning
			return fmt.Errorf("reading what the log keeps: %w", err)
		}
	}
	if !announced {
		t.replica.Announce(reason)
	}
	t.followed, t.loading, t.intact = true, false, t.at.Position
	t.noteRoom(t.at.Position != lastPosition)
	return nil
}

// oldest returns the first entries that the log keeps for the history, and the newest position before them.
func (t *tail) oldest(node redis.Cmdable) (entries []entry, lost hub.Position, err error) {
	ctx, cancel := context.WithTimeout(t.context, 2*t.Timeout)
	defer cancel()
	t.removed = 0
	info, err := node.XInfoStream(ctx, t.logKey).Result()
	switch {
	case isNoSuchKey(err):
		return nil, hub.Position{}, nil
	case err != nil:
		return nil, hub.Position{}, err
	}
	t.removed = info.EntriesAdded - info.Length
	entries, err = rangeOf(ctx, node, t.logKey, strconv.FormatUint(t.wantedSince(clockSlop), 10), t.count)
	switch {
	case err != nil:
		return nil, hub.Position{}, err
	case len(entries) == 0:
		lost, err = parseEntryID(info.LastGeneratedID)
		return nil, lost, err
	case info.EntriesAdded == info.Length && info.FirstEntry.ID == entryID(entries[0].position):
		return entries, hub.Position{}, nil // nothing was ever trimmed
	}
	return entries, before(entries[0].position), nil
}

// loadOn returns the next entries that the log keeps; none at its end. The entry at the tail's position must
// still be there. If it is not, the log is being trimmed faster than it is read.
func (t *tail) loadOn(node redis.Cmdable) ([]entry, error) {
	ctx, cancel := context.WithTimeout(t.context, 2*t.Timeout)
	defer cancel()
	entries, err := rangeOf(ctx, node, t.logKey, entryID(t.at.Position), t.count+1)
	switch {
	case err != nil:
		return nil, err
	case t.compare(entries) != same:
		return nil, errLogChanged
	}
	t.adjustCount(entries, loadCount)
	return entries[1:], nil
}

// adjustCount makes the next read larger after few or small entries, and smaller after large ones.
func (t *tail) adjustCount(entries []entry, most int) {
	bytes := 0
	for _, e := range entries {
		for _, field := range e.fields {
			bytes += len(field)
		}
	}
	switch {
	case bytes > readBytes:
		t.count = max(1, t.count/2)
	case len(entries) >= t.count && bytes < readBytes/4:
		t.count *= 2
	}
	t.count = min(t.count, most)
}

// follow delivers the log's new entries. It returns errLogChanged when the log may have changed, or what else
// went wrong.
func (t *tail) follow() error {
	for {
		node, err := t.node(t.context, t.tailing)
		if err != nil {
			return fmt.Errorf("finding the log's server: %w", err)
		}
		entries, err := t.readOn(node)
		if isRedirection(err) { // the log is moving, or has moved: a Cluster's client finds it
			entries, err = t.readOn(t.tailing)
		}
		if err != nil {
			return err
		}
		t.reads++
		from := t.at.Position
		for _, e := range entries {
			if !t.acked.reached(hub.ID{Epoch: t.at.Epoch, Position: e.position}) {
				if !t.purged.After(t.at.Position) {
					t.lostAck = true
					return errLogChanged
				}
				t.replica.Lose(before(e.position), "history_trimmed") // by a purge, or else
			}
			t.take(e, true)
			t.noEntry = false
		}
		if !t.purged.After(from) {
			t.intact = t.at.Position
		}
		t.countAdded(len(entries))
		runtime.Gosched() // clients go first: the next read can wait for them
		if len(entries) < t.count {
			t.freshness.hasAll()
		} else {
			t.freshness.hasUpTo(t.clock.age(t.at.Position))
		}
		t.adjustCount(entries, tailCount)
	}
}

// countAdded has the stream trimmed now and then. Publishers here trim what they add; other programs need
// not.
func (t *tail) countAdded(n int) {
	if t.added += n; t.added > max(t.MaxLen/10, tailCount) {
		t.added = 0
		t.overfull.raise()
	}
}

// readOn returns the next entries; none if none came for blockTime. The same pipeline then reads the epoch
// and the entry at the tail's position: if they are unchanged after the read, nothing between the tail and
// the entries was trimmed.
func (t *tail) readOn(node redis.Cmdable) ([]entry, error) {
	at := entryID(t.at.Position)
	pipe := node.Pipeline()
	read := pipe.Do(t.context,
		"XREAD", "COUNT", t.count, "BLOCK", blockTime.Milliseconds(), "STREAMS", t.logKey, at)
	read.SetFirstKeyPos(6)
	epoch := pipe.Get(t.context, t.epochKey)
	probe := pipe.Do(t.context, "XRANGE", t.logKey, at, at)
	purge := pipe.HGet(t.context, t.purgedKey, "newest") // behind the read: what it tells of later deleted nothing yet
	commands := []redis.Cmder{read, epoch, probe, purge}
	var info *redis.XInfoStreamCmd
	if t.noEntry {
		info = pipe.XInfoStream(t.context, t.logKey)
		commands = append(commands, info)
	}
	_, _ = pipe.Exec(t.context) // each command has its own error
	for _, cmd := range commands {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) && !isNoSuchKey(err) {
			return nil, fmt.Errorf("reading the log: %w", err)
		}
	}
	atPosition, err := parseEntries(probe.Val())
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	ours := t.compare(atPosition)
	switch {
	case epoch.Val() != t.at.Epoch, ours == replaced, ours == missing && !t.noEntry:
		return nil, errLogChanged
	case t.noEntry && info.Err() == nil:
		// Redis before 7 does not count entries. There the first read after an empty log is trusted.
		if now := info.Val(); now.EntriesAdded > 0 && now.EntriesAdded-now.Length != t.removed {
			return nil, errLogChanged
		}
	}
	entries, err := readEntries(read)
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	t.purged = newestPurge(purge.Val())
	return entries, nil
}

// take hands one entry to the replica: as a live message, or as history.
func (t *tail) take(e entry, live bool) {
	t.at.Position, t.fields = e.position, e.fields
	if e.position == lastPosition {
		t.noteRoom(false)
	}
	if e.isPurge() {
		p, err := e.purge()
		if err != nil {
			t.noteMalformed(&t.malformed, entryID(e.position), err)
			return
		}
		t.takePurge(p, e.position, live)
		return
	}
	m, err := e.message(t.clock.timeOf(e.position))
	if err == nil {
		err = t.replica.CheckMessage(m)
	}
	switch {
	case err != nil:
		t.noteMalformed(&t.malformed, entryID(e.position), err)
	case live:
		t.noteHeld(e, m)
		t.replica.Wait(t.context, t.replica.Deliver(m))
	default:
		t.noteHeld(e, m)
		t.replica.Restore(m)
	}
}

// isRedirection reports whether the error means that another node of the Cluster has the log.
func isRedirection(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, asked := redis.IsAskError(err)
	return moved || asked
}

func isNoSuchKey(err error) bool { return err != nil && strings.Contains(err.Error(), "no such key") }

// before returns the position just before p.
func before(p hub.Position) hub.Position {
	switch {
	case p.Minor > 0:
		return hub.Position{Major: p.Major, Minor: p.Minor - 1}
	case p.Major > 0:
		return hub.Position{Major: p.Major - 1, Minor: math.MaxUint64}
	}
	return hub.Position{}
}
