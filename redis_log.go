package sse

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// redisLog is a hub's log in Redis. The stream is the log and its order the order; this instance
// publishes to it like any other program and tails it as a replica of its end.
type redisLog struct {
	*RedisBroker
	hub      string
	logKey   string // the stream
	epochKey string // names the log's origin; set by whoever finds that the origin is another
	idemKey  string // + key: the answer given to an idempotency key
	// kickChannel is a pub/sub channel of client_ids whose connections are to be ended.
	kickChannel string

	publishing redis.UniversalClient
	tailing    redis.UniversalClient
	presence   *presence
	replica    *Hub
	queue      chan *pendingPublish
	promises   promises

	context context.Context // ends with Close
	cancel  context.CancelFunc
	severed context.Context // ends when connections must
	sever   context.CancelFunc
	wg      sync.WaitGroup
	reach   // of the tail
}

const (
	blockTime  = time.Second     // how long a read waits for the next entry
	closeTime  = time.Second / 2 // how long Redis may take to answer the last publishes
	tailCount  = 256             // entries of one read
	loadCount  = 1000            // entries of one read at the start
	readBytes  = 4 << 20         // of one read, about
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
	trimEvery  = time.Minute
	clockSlop  = time.Minute // how far Redis's clock and ours may differ
)

// Start implements Broker.
func (l *redisLog) Start(h *Hub, ready func()) {
	l.replica = h
	l.wg.Go(func() { l.tail(ready) })
	l.wg.Go(l.publishPending)
	l.wg.Go(l.listen)
	l.wg.Go(l.keepPresence)
	l.wg.Go(l.keepTrimming)
}

// Close implements Broker. What is being published is still answered. How connections end is no news.
func (l *redisLog) Close() error {
	l.cancel()
	_ = l.tailing.Close() // it may be waiting for the next entry
	defer time.AfterFunc(closeTime, l.sever).Stop()
	l.wg.Wait()
	l.sever()
	_ = l.publishing.Close()
	return nil
}

// node returns the server that has the log: of a Cluster the master of its slot, asked for anew
// after refresh.
func (l *redisLog) node(ctx context.Context, client redis.UniversalClient) (redis.Cmdable, error) {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, l.logKey)
	}
	return client, nil
}

// refresh looks for the log's master anew, where there is more than one server.
func refresh(ctx context.Context, client redis.UniversalClient) {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		cluster.ReloadState(ctx)
	}
}

// tail follows the log until the end. Whatever goes wrong, it begins again where it was.
func (l *redisLog) tail(ready func()) {
	t := &tail{redisLog: l, at: l.replica.Position(), count: tailCount / 4}
	var backoff backoff
	for l.context.Err() == nil {
		err := t.connect()
		if err == nil {
			ready()
			if !l.Up() {
				l.presence.doubt()
			}
			l.found(l.replica)
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
			l.lost(l.replica, err)
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

// errLogChanged means that the log may not be the one that was followed, or no longer whole.
var errLogChanged = errors.New("the log has changed")

// tail is how far this instance has read the log. One goroutine owns it.
type tail struct {
	*redisLog
	at       ID   // the last entry read, malformed ones included
	followed bool // at is of a log in this Redis, which this tail has followed
	// broken: the log went on past what it had acknowledged here
	broken bool
	// unanchored: there is no entry at the position, which nevertheless is where the log goes on.
	// Then gone is how many entries it had dropped by then.
	unanchored bool
	gone       int64
	// loading: what the log keeps is being read. What stands after seen is new to the clients.
	loading bool
	seen    Position
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
	epoch, err := readEpoch(ctx, node, t.epochKey)
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
	t.logger.Warn("the log in redis is not the one it was; clients are told a gap", zap.String("hub", t.hub))
	if epoch, err = changeEpoch(ctx, node, t.epochKey, epoch); err != nil {
		return fmt.Errorf("changing the epoch: %w", err)
	}
	return t.switchTo(node, epoch)
}

// goOnAfter moves the tail to a position where no entry stands.
func (t *tail) goOnAfter(p Position) {
	t.at.Position, t.unanchored, t.broken = p, true, false
	t.promises.reached(t.at)
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
func (t *tail) verify(ctx context.Context, node redis.Cmdable) (finding, Position, error) {
	fresh, promised := t.at.Position == Position{}, t.promises.newest(t.at.Epoch)
	info, err := node.XInfoStream(ctx, t.logKey).Result()
	switch {
	case isNoSuchKey(err):
		info = &redis.XInfoStream{LastGeneratedID: "0-0"}
	case err != nil:
		return 0, Position{}, err
	}
	last, err := parseEntryID(info.LastGeneratedID)
	if err != nil {
		return 0, Position{}, err
	}
	at := entryID(t.at.Position)
	here, err := node.XRangeN(ctx, t.logKey, at, at, 1).Result()
	if err != nil {
		return 0, Position{}, err
	}
	t.unanchored, t.gone = len(here) == 0, info.EntriesAdded-info.Length
	lost := last
	if info.Length > 0 {
		first, err := parseEntryID(info.FirstEntry.ID)
		if err != nil {
			return 0, Position{}, err
		}
		lost = before(first)
	}
	neverTrimmed := info.EntriesAdded == info.Length && (info.Length > 0 || last == Position{})
	switch {
	case t.broken, promised.After(last):
		return foreign, Position{}, nil
	case len(here) > 0, last == t.at.Position, fresh && neverTrimmed:
		return whole, Position{}, nil
	case t.at.Position.After(last), !lost.After(t.at.Position), !fresh && neverTrimmed:
		return foreign, Position{}, nil
	}
	return trimmed, lost, nil
}

// switchTo makes the replica follow the log under a name new to it. What the log keeps becomes
// history; what the replica has not seen of it, if it followed this Redis before, goes to its
// clients too, once they have been told a gap.
func (t *tail) switchTo(node redis.Cmdable, epoch string) error {
	if !t.loading {
		t.loading, t.seen = true, t.at.Position
	}
	reason := "log_lost"
	if !t.followed {
		t.seen, reason = Position{math.MaxUint64, math.MaxUint64}, "broker_changed"
	}
	entries, lost, err := t.oldest(node)
	if err != nil {
		return fmt.Errorf("looking for the log's beginning: %w", err)
	}
	t.replica.Follow(Origin{Epoch: epoch, Sparse: true, Lost: lost})
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
			t.promises.reached(ID{epoch, e.position})
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
func (t *tail) oldest(node redis.Cmdable) (entries []entry, lost Position, err error) {
	ctx, cancel := context.WithTimeout(t.context, 2*time.Duration(t.Timeout))
	defer cancel()
	t.gone = 0
	info, err := node.XInfoStream(ctx, t.logKey).Result()
	switch {
	case isNoSuchKey(err):
		return nil, Position{}, nil
	case err != nil:
		return nil, Position{}, err
	}
	t.gone = info.EntriesAdded - info.Length
	from := "-"
	if age := t.replica.Limits().History.Age; age > 0 {
		from = strconv.FormatInt(time.Now().Add(-age-clockSlop).UnixMilli(), 10)
	}
	entries, err = rangeOf(ctx, node, t.logKey, from, t.count)
	switch {
	case err != nil:
		return nil, Position{}, err
	case len(entries) == 0:
		lost, err = parseEntryID(info.LastGeneratedID)
		return nil, lost, err
	case info.EntriesAdded == info.Length && info.FirstEntry.ID == entryID(entries[0].position):
		return entries, Position{}, nil // nothing was ever trimmed
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
	case len(entries) == 0 || entries[0].position != t.at.Position:
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
			if !t.promises.reached(ID{t.at.Epoch, e.position}) {
				t.broken = true
				return errLogChanged
			}
			t.take(e, true)
			t.unanchored = false
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
	here := pipe.XRangeN(t.context, t.logKey, at, at, 1)
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
	switch {
	case epoch.Val() != t.at.Epoch, !t.unanchored && len(here.Val()) == 0:
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
	t.at.Position = e.position
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

// skipMalformed passes over what some other program wrote, for ever.
func (l *redisLog) skipMalformed(where string, err error) {
	l.replica.stats.droppedMalformed.Add(1)
	l.logger.Warn("skipping a malformed message in redis", zap.String("hub", l.hub), zap.String("at", where), zap.Error(err))
}

// keepTrimming removes from the stream, now and then, what is too old.
func (l *redisLog) keepTrimming() {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.context.Done():
			return
		case <-ticker.C:
		}
		if err := l.trimByAge(); err != nil && l.context.Err() == nil {
			l.logger.Debug("trimming the log failed", zap.String("hub", l.hub), zap.Error(err))
		}
	}
}

// trimByAge removes from the stream what is too old for the hub's history. The newest entry stays, as
// the mark by which every tail knows that nothing after it was lost.
func (l *redisLog) trimByAge() error {
	age := l.replica.Limits().History.Age
	if age <= 0 {
		return nil
	}
	node, err := l.node(l.context, l.publishing)
	if err != nil {
		return err
	}
	newest, err := node.XRevRangeN(l.context, l.logKey, "+", "-", 1).Result()
	if err != nil || len(newest) == 0 {
		return err
	}
	keep, err := parseEntryID(newest[0].ID)
	if err != nil {
		return err
	}
	if oldest := (Position{Major: uint64(time.Now().Add(-age - clockSlop).UnixMilli())}); keep.After(oldest) {
		keep = oldest
	}
	return node.XTrimMinIDApprox(l.context, l.logKey, entryID(keep), 0).Err()
}

// readEpoch returns the log's name, giving it one if it has none.
func readEpoch(ctx context.Context, node redis.Cmdable, key string) (string, error) {
	epoch, err := node.Get(ctx, key).Result()
	if !errors.Is(err, redis.Nil) {
		return epoch, err
	}
	if err := node.SetNX(ctx, key, NewEpoch(), 0).Err(); err != nil {
		return "", err
	}
	return node.Get(ctx, key).Result()
}

// changeEpoch names the log anew, unless somebody has done so already, and returns its name.
func changeEpoch(ctx context.Context, node redis.Cmdable, key, old string) (string, error) {
	const script = `if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])`
	return node.Eval(ctx, script, []string{key}, old, NewEpoch()).Text()
}

func isNoSuchKey(err error) bool { return err != nil && strings.Contains(err.Error(), "no such key") }

// before returns the position just before p.
func before(p Position) Position {
	switch {
	case p.Minor > 0:
		return Position{p.Major, p.Minor - 1}
	case p.Major > 0:
		return Position{p.Major - 1, math.MaxUint64}
	}
	return Position{}
}
