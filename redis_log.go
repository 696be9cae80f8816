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

	context context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	reach   // of the tail
}

const (
	blockTime  = time.Second // how long a read waits for the next entry
	tailCount  = 256         // entries of one read
	loadCount  = 1000        // entries of one read at the start
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
	closeTime  = time.Second / 2 // how long Redis may take to answer the last publishes
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
	l.wg.Go(l.trimByAge)
}

// Close implements Broker. What is being published is still answered.
func (l *redisLog) Close() error {
	l.cancel()
	err := l.tailing.Close() // it may be waiting for the next entry
	hurry := time.AfterFunc(closeTime, func() { _ = l.publishing.Close() })
	l.wg.Wait()
	if hurry.Stop() {
		err = errors.Join(err, l.publishing.Close())
	}
	return err
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
	t := &tail{redisLog: l, at: l.replica.Position()}
	backoff := minBackoff
	for l.context.Err() == nil {
		err := t.connect()
		if err == nil {
			ready()
			l.found(l.replica)
			backoff = minBackoff
			err = t.follow()
		}
		ready()
		if l.context.Err() != nil {
			return
		}
		if errors.Is(err, errLogChanged) {
			continue // connect looks into it
		}
		l.lost(l.replica, err)
		refresh(l.context, l.tailing)
		select {
		case <-l.context.Done():
		case <-time.After(backoff/2 + rand.N(backoff)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// errLogChanged means that the log may not be the one that was followed, or no longer whole.
var errLogChanged = errors.New("the log has changed")

// tail is how far this instance has read the log. One goroutine owns it.
type tail struct {
	*redisLog
	at       ID   // the last entry read, malformed ones included
	followed bool // at is of a log in this Redis, which this tail has followed
	// unanchored: there is no entry at the position, which nevertheless is where the log goes on
	unanchored bool
}

// connect makes sure that the log goes on where this tail is. If it does not, the replica is told
// what it missed.
func (t *tail) connect() error {
	ctx, cancel := context.WithTimeout(t.context, 2*time.Duration(t.Timeout))
	defer cancel()
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
		t.at.Position, t.unanchored = lost, true
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

// finding is what verify makes of the log.
type finding uint8

const (
	whole   finding = iota // it goes on after the tail's position
	trimmed                // entries after the tail's position are no longer kept
	foreign                // it does not know the tail's position
)

// verify looks whether the log is still the one that the tail has read, and if it was trimmed past
// the tail, up to where.
func (t *tail) verify(ctx context.Context, node redis.Cmdable) (finding, Position, error) {
	fresh := t.at.Position == Position{}
	info, err := node.XInfoStream(ctx, t.logKey).Result()
	switch {
	case isNoSuchKey(err) && fresh:
		return whole, Position{}, nil
	case isNoSuchKey(err):
		return foreign, Position{}, nil
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
	t.unanchored = len(here) == 0
	lost := last
	if info.Length > 0 {
		first, err := parseEntryID(info.FirstEntry.ID)
		if err != nil {
			return 0, Position{}, err
		}
		lost = before(first)
	}
	switch {
	case len(here) > 0, last == t.at.Position, fresh && info.EntriesAdded == info.Length:
		return whole, Position{}, nil
	case t.at.Position.After(last), !lost.After(t.at.Position):
		return foreign, Position{}, nil
	}
	return trimmed, lost, nil
}

// switchTo makes the replica follow the log under a name new to it. What the log keeps becomes
// history; what the replica has not seen of it, if it followed this Redis before, goes to its
// clients too, once they have been told a gap.
func (t *tail) switchTo(node redis.Cmdable, epoch string) error {
	seen, reason := t.at.Position, "log_lost"
	if !t.followed {
		seen, reason = Position{math.MaxUint64, math.MaxUint64}, "broker_changed"
	}
	from, lost, err := t.oldest(node)
	if err != nil {
		return fmt.Errorf("looking for the log's beginning: %w", err)
	}
	t.replica.Follow(Origin{Epoch: epoch, Sparse: true, Lost: lost})
	t.at, t.unanchored = ID{epoch, lost}, true
	announced := false
	for {
		ctx, cancel := context.WithTimeout(t.context, 2*time.Duration(t.Timeout))
		entries, err := rangeOf(ctx, node, t.logKey, from, loadCount)
		cancel()
		if err != nil {
			t.at.Epoch = "" // so that it begins anew
			return fmt.Errorf("reading what the log keeps: %w", err)
		}
		for _, e := range entries {
			if !announced && e.position.After(seen) {
				t.replica.Announce(reason)
				announced = true
			}
			t.take(e, announced)
		}
		if len(entries) < loadCount {
			break
		}
		from = "(" + entryID(t.at.Position)
	}
	if !announced {
		t.replica.Announce(reason)
	}
	t.followed = true
	return nil
}

// oldest returns from where the log is to be read for history, and the newest position before that.
func (t *tail) oldest(node redis.Cmdable) (from string, lost Position, err error) {
	ctx, cancel := context.WithTimeout(t.context, 2*time.Duration(t.Timeout))
	defer cancel()
	info, err := node.XInfoStream(ctx, t.logKey).Result()
	switch {
	case isNoSuchKey(err):
		return "-", Position{}, nil
	case err != nil:
		return "", Position{}, err
	}
	if lost, err = parseEntryID(info.LastGeneratedID); err != nil {
		return "", Position{}, err
	}
	from = "-"
	if age := t.replica.Limits().History.Age; age > 0 {
		from = strconv.FormatInt(time.Now().Add(-age-clockSlop).UnixMilli(), 10)
	}
	first, err := rangeOf(ctx, node, t.logKey, from, 1)
	switch {
	case err != nil:
		return "", Position{}, err
	case len(first) == 0:
		return from, lost, nil
	case info.EntriesAdded == info.Length && info.FirstEntry.ID == entryID(first[0].position):
		return from, Position{}, nil // nothing was ever trimmed
	}
	return from, before(first[0].position), nil
}

// follow reads the log as it grows. It returns errLogChanged when that may not be the log it was, and
// else what went wrong.
func (t *tail) follow() error {
	for {
		node, err := t.node(t.context, t.tailing)
		if err != nil {
			return fmt.Errorf("finding the log's server: %w", err)
		}
		at := entryID(t.at.Position)
		pipe := node.Pipeline()
		here := pipe.XRangeN(t.context, t.logKey, at, at, 1)
		read := pipe.Do(t.context, "XREAD", "COUNT", tailCount, "BLOCK", blockTime.Milliseconds(), "STREAMS", t.logKey, at)
		read.SetFirstKeyPos(6)
		epoch := pipe.Get(t.context, t.epochKey)
		_, _ = pipe.Exec(t.context) // each command has its own error
		for _, cmd := range []redis.Cmder{here, read, epoch} {
			if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
				return fmt.Errorf("reading the log: %w", err)
			}
		}
		if epoch.Val() != t.at.Epoch || len(here.Val()) == 0 && !t.unanchored {
			return errLogChanged
		}
		entries, err := readEntries(read)
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		for _, e := range entries {
			t.take(e, true)
			t.unanchored = false
		}
	}
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

// listen hands over the ephemeral messages on the channel, our own among them. While the line is cut
// they pass by: nobody was promised to get them later.
func (l *redisLog) listen() {
	channel := l.publishing.Subscribe(l.context, l.Channel, l.kickChannel)
	defer channel.Close()
	messages := channel.Channel()
	for {
		select {
		case <-l.context.Done():
			return
		case received := <-messages:
			if received.Channel == l.kickChannel {
				l.replica.Kick(received.Payload)
				continue
			}
			m, hub, err := decodeChannelMessage(received.Payload)
			switch {
			case err != nil:
				l.skipMalformed("channel "+l.Channel, err)
			case hub == l.hub:
				l.replica.Wait(l.context, l.replica.Deliver(m))
			}
		}
	}
}

// Kick implements Kicker.
func (l *redisLog) Kick(ctx context.Context, clientID string) (elsewhere int, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(l.Timeout))
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return 0, err
	}
	pipe := node.Pipeline()
	var counts []*redis.StringCmd
	for _, instance := range l.presence.others() {
		counts = append(counts, pipe.HGet(ctx, l.presence.key(instance), presenceField(Address{ToClient, clientID})))
	}
	told := pipe.Publish(ctx, l.kickChannel, clientID)
	_, _ = pipe.Exec(ctx) // each command has its own error
	for _, count := range counts {
		n, _ := count.Int() // none there
		elsewhere += n
	}
	return elsewhere, told.Err()
}

// trimByAge removes from the stream what is too old for the hub's history.
func (l *redisLog) trimByAge() {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.context.Done():
			return
		case <-ticker.C:
		}
		age := l.replica.Limits().History.Age
		node, err := l.node(l.context, l.publishing)
		if age <= 0 || err != nil {
			continue
		}
		oldest := strconv.FormatInt(time.Now().Add(-age-clockSlop).UnixMilli(), 10)
		if err := node.XTrimMinIDApprox(l.context, l.logKey, oldest, 0).Err(); err != nil && l.context.Err() == nil {
			l.logger.Debug("trimming the log failed", zap.String("hub", l.hub), zap.Error(err))
		}
	}
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
