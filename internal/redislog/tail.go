package redislog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// tail follows the log until the end. Whatever goes wrong, it begins again where it was.
func (l *Log) tail(ready func()) {
	t := &tail{Log: l, at: l.replica.Position(), count: tailCount / 4}
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
				l.presence.doubt()
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
				continue // connect looks into it
			}
		}
		if !changed {
			l.replica.LogLost(err)
		}
		refresh(l.context, l.tailing)
		backoff.wait(l.context)
	}
}

// backoff is how long to wait before the next attempt: longer each time, and never as long as others.
type backoff time.Duration

func (b *backoff) reset() { *b = 0 }

func (b *backoff) wait(ctx context.Context) {
	*b = min(max(2**b, backoff(minBackoff)), backoff(maxBackoff))
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(*b/2 + rand.N(*b))):
	}
}

// pingPublishing makes sure that publishers reach Redis too: after an outage, go-redis may refuse to connect for
// up to a second without trying.
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

// errLogChanged means that the log may not be the one that was followed, or no longer whole.
var errLogChanged = errors.New("the log has changed")

// tail is how far this instance has read the log. One goroutine owns it.
type tail struct {
	*Log
	at       hub.ID   // the last entry read, malformed ones included
	anchor   []string // that entry's fields; nil if they are not known
	followed bool     // at is of a log in this Redis, which this tail has followed
	// broken: the log went on past what it had acknowledged here
	broken bool
	// unanchored: there is no entry at the position, which nevertheless is where the log goes on.
	// Then gone is how many entries it had dropped by then.
	unanchored bool
	gone       int64
	// loading: what the log keeps is being read. What stands after seen is new to the clients.
	loading bool
	seen    hub.Position
	reads   int // of the log as it grows, since connect
	count   int // entries of the next read
}

// connect makes sure that the log goes on where this tail is. If it does not, the replica is told
// what it missed.
func (t *tail) connect() error {
	ctx, cancel := context.WithTimeout(t.context, 2*time.Duration(t.Timeout))
	defer cancel()
	t.reads = 0
	node, err := t.node(ctx, t.tailing)
	if err != nil {
		return fmt.Errorf("finding the log's server: %w", err)
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
		t.replica.Lose(lost, "history_trimmed")
		t.goOnAfter(lost)
		return nil
	}
	// An older copy of the log, or another one. Whoever finds that out names it anew, and all
	// instances see.
	t.Logger.Warn("the log in redis is not the one it was; clients are told a gap", zap.String("hub", t.hub))
	if epoch, err = t.changeEpoch(ctx, node, epoch); err != nil {
		return fmt.Errorf("changing the epoch: %w", err)
	}
	return t.switchTo(node, epoch)
}

// goOnAfter moves the tail to a position where no entry stands.
func (t *tail) goOnAfter(p hub.Position) {
	t.at.Position, t.anchor, t.unanchored, t.broken = p, nil, true, false
	t.acked.reached(t.at)
}

// finding is what verify makes of the log.
type finding uint8

const (
	whole   finding = iota // it goes on after the tail's position
	trimmed                // entries after the tail's position are no longer kept
	foreign                // it does not know the tail's position, or lacks what it acknowledged
)

// verify looks whether the log is still the one that the tail has read, and if it was trimmed past
// the tail, up to where.
func (t *tail) verify(ctx context.Context, node redis.Cmdable) (finding, hub.Position, error) {
	fresh, promised := t.at.Position == hub.Position{}, t.acked.newest(t.at.Epoch)
	info, err := node.XInfoStream(ctx, t.logKey).Result()
	switch {
	case isNoSuchKey(err):
		info = &redis.XInfoStream{LastGeneratedID: "0-0"}
	case err != nil:
		return 0, hub.Position{}, err
	}
	last, err := parseEntryID(info.LastGeneratedID)
	if err != nil {
		return 0, hub.Position{}, err
	}
	here, err := t.anchorage(ctx, node)
	if err != nil {
		return 0, hub.Position{}, err
	}
	nothingRead := t.unanchored && here == vacant // since it went on from where no entry stands
	t.unanchored, t.gone = here == vacant, info.EntriesAdded-info.Length
	lost := last
	if info.Length > 0 {
		first, err := parseEntryID(info.FirstEntry.ID)
		if err != nil {
			return 0, hub.Position{}, err
		}
		lost = before(first)
	}
	neverTrimmed := info.EntriesAdded == info.Length && (info.Length > 0 || last == hub.Position{})
	switch {
	case t.broken, promised.After(last), here == others:
		return foreign, hub.Position{}, nil
	case here == ours, last == t.at.Position, fresh && neverTrimmed, nothingRead && lost == t.at.Position,
		info.MaxDeletedEntryID == entryID(t.at.Position) && !lost.After(t.at.Position): // by XDEL
		return whole, hub.Position{}, nil
	case t.at.Position.After(last), !lost.After(t.at.Position), !fresh && neverTrimmed:
		return foreign, hub.Position{}, nil
	}
	return trimmed, lost, nil
}

// anchored is what stands at the tail's position.
type anchored uint8

const (
	vacant anchored = iota // nothing
	ours                   // the entry that the tail has read
	others                 // another: a log that began anew gives out positions again
)

// anchorage looks what stands at the tail's position.
func (t *tail) anchorage(ctx context.Context, node redis.Cmdable) (anchored, error) {
	entries, err := rangeOf(ctx, node, t.logKey, entryID(t.at.Position), 1)
	if err != nil {
		return vacant, err
	}
	return t.holds(entries), nil
}

// holds judges entries that were read from the tail's position on.
func (t *tail) holds(entries []entry) anchored {
	switch {
	case len(entries) == 0 || entries[0].position != t.at.Position:
		return vacant
	case t.anchor != nil && !slices.Equal(entries[0].fields, t.anchor):
		return others
	}
	return ours
}

// switchTo makes the replica follow the log under a name new to it. What the log keeps becomes
// history; what the replica has not seen of it, if it followed this Redis before, goes to its
// clients too, once they have been told a gap.
func (t *tail) switchTo(node redis.Cmdable, epoch string) error {
	reason := "log_lost"
	switch {
	case !t.followed:
		t.seen, reason = hub.Position{Major: math.MaxUint64, Minor: math.MaxUint64}, "broker_changed"
	case !t.loading:
		ctx, cancel := context.WithTimeout(t.context, time.Duration(t.Timeout))
		defer cancel()
		here, err := t.anchorage(ctx, node)
		if err != nil {
			return fmt.Errorf("looking for our position: %w", err)
		}
		t.seen = t.at.Position
		if here != ours { // a log that began anew may have given out this millisecond's positions again
			t.seen = before(hub.Position{Major: t.seen.Major})
		}
	}
	t.loading = true
	entries, lost, err := t.oldest(node)
	if err != nil {
		return fmt.Errorf("looking for the log's beginning: %w", err)
	}
	t.replica.Follow(hub.Origin{Epoch: epoch, Sparse: true, Keeps: t.MaxLen, Shared: true, Lost: lost})
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
		t.unanchored = false
		if entries, err = t.loadOn(node); err != nil {
			t.at.Epoch = "" // so that it begins anew
			return fmt.Errorf("reading what the log keeps: %w", err)
		}
	}
	if !announced {
		t.replica.Announce(reason)
	}
	t.followed, t.loading = true, false
	return nil
}

// oldest returns the first entries that the log keeps for history, and the newest position before
// them.
func (t *tail) oldest(node redis.Cmdable) (entries []entry, lost hub.Position, err error) {
	ctx, cancel := context.WithTimeout(t.context, 2*time.Duration(t.Timeout))
	defer cancel()
	t.gone = 0
	info, err := node.XInfoStream(ctx, t.logKey).Result()
	switch {
	case isNoSuchKey(err):
		return nil, hub.Position{}, nil
	case err != nil:
		return nil, hub.Position{}, err
	}
	t.gone = info.EntriesAdded - info.Length
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

// loadOn returns the next entries that the log keeps; none at its end. They must begin where the tail
// is, or the log is being trimmed faster than it is read.
func (t *tail) loadOn(node redis.Cmdable) ([]entry, error) {
	ctx, cancel := context.WithTimeout(t.context, 2*time.Duration(t.Timeout))
	defer cancel()
	entries, err := rangeOf(ctx, node, t.logKey, entryID(t.at.Position), t.count+1)
	switch {
	case err != nil:
		return nil, err
	case t.holds(entries) != ours:
		return nil, errLogChanged
	}
	t.adjust(entries, loadCount)
	return entries[1:], nil
}

// adjust makes the next read larger or smaller, by what the last one gave: many small entries, or few
// large ones.
func (t *tail) adjust(entries []entry, most int) {
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

// follow reads the log as it grows. It returns errLogChanged when that may not be the log it was, and
// else what went wrong.
func (t *tail) follow() error {
	for {
		node, err := t.node(t.context, t.tailing)
		if err != nil {
			return fmt.Errorf("finding the log's server: %w", err)
		}
		entries, err := t.readOn(node)
		if err != nil {
			return err
		}
		t.reads++
		for _, e := range entries {
			if !t.acked.reached(hub.ID{Epoch: t.at.Epoch, Position: e.position}) {
				t.broken = true
				return errLogChanged
			}
			t.take(e, true)
			t.unanchored = false
		}
		runtime.Gosched() // clients go first: asking for more can wait for that
		if len(entries) < t.count {
			t.complete()
		} else {
			t.partial(t.at.Position)
		}
		t.adjust(entries, tailCount)
	}
}

// readOn returns the next entries; none if none came for a while. Only what is looked at after them
// tells that nothing between the tail's position and theirs was trimmed meanwhile.
func (t *tail) readOn(node redis.Cmdable) ([]entry, error) {
	at := entryID(t.at.Position)
	pipe := node.Pipeline()
	read := pipe.Do(t.context, "XREAD", "COUNT", t.count, "BLOCK", blockTime.Milliseconds(), "STREAMS", t.logKey, at)
	read.SetFirstKeyPos(6)
	epoch := pipe.Get(t.context, t.epochKey)
	here := pipe.Do(t.context, "XRANGE", t.logKey, at, at)
	commands := []redis.Cmder{read, epoch, here}
	var info *redis.XInfoStreamCmd
	if t.unanchored {
		info = pipe.XInfoStream(t.context, t.logKey)
		commands = append(commands, info)
	}
	_, _ = pipe.Exec(t.context) // each command has its own error
	for _, cmd := range commands {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) && !isNoSuchKey(err) {
			return nil, fmt.Errorf("reading the log: %w", err)
		}
	}
	standing, err := parseEntries(here.Val())
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	switch {
	case epoch.Val() != t.at.Epoch, t.holds(standing) == others, t.holds(standing) == vacant && !t.unanchored:
		return nil, errLogChanged
	case t.unanchored && info.Err() == nil:
		// Redis before 7 does not count; there the first read after an empty log is trusted.
		if now := info.Val(); now.EntriesAdded > 0 && now.EntriesAdded-now.Length != t.gone {
			return nil, errLogChanged
		}
	}
	entries, err := readEntries(read)
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	return entries, nil
}

// take hands one entry to the replica: live, or as history.
func (t *tail) take(e entry, live bool) {
	t.at.Position, t.anchor = e.position, e.fields
	m, err := e.message()
	switch {
	case err != nil:
		t.skipMalformed(entryID(e.position), err)
	case live:
		t.replica.Wait(t.context, t.replica.Deliver(m))
	default:
		t.replica.Restore(m)
	}
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
