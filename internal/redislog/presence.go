package redislog

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
	"github.com/redis/go-redis/v9"
)

const (
	presenceEvery = 500 * time.Millisecond // how often an instance tells what has changed
	presenceTTL   = 3 * time.Second        // how long a dead instance's counts live on
	presenceChunk = 1000                   // words of one command; even
)

// presence is who listens where, over all instances: each keeps a hash of its addresses with their
// numbers of clients, which a publish reads in the call it makes anyway. Only patterns, which can't be
// looked up by topic, are fetched ahead.
type presence struct {
	base      string // of the keys
	instance  string // this one
	instances string // the set of all
	doubted   chan struct{}

	mu    sync.Mutex // guards all below
	names []string   // of the other instances alive
	read  time.Time  // when names were read last
	since time.Time  // since when they have been read without a break
	// patterns of the other instances, with their numbers of clients.
	patterns map[string]int
}

func newPresence(base string) *presence {
	return &presence{
		base: base + "presence:", instance: hub.NewEpoch(), instances: base + "instances",
		doubted: make(chan struct{}, 1),
	}
}

// doubt says that Redis may not have what it was told.
func (p *presence) doubt() {
	select {
	case p.doubted <- struct{}{}:
	default:
	}
}

func (p *presence) key(instance string) string { return p.base + instance }

// others returns the other instances that were alive a moment ago.
func (p *presence) others() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names
}

// known returns the other instances, and whether they can be taken for all there are: whoever is alive
// has had the time to tell, and to be heard.
func (p *presence) known() (others []string, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names, time.Since(p.read) < presenceTTL && time.Since(p.since) > presenceTTL
}

// countPatterns returns how many clients of other instances listen to patterns that match.
func (p *presence) countPatterns(to []hub.Address) (clients int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range to {
		for pattern, n := range p.patterns {
			if a.Kind == hub.ToTopic && topic.Match(pattern, a.Name) {
				clients += n
			}
		}
	}
	return clients
}

// presenceField names an address in the hash.
func presenceField(a hub.Address) string {
	return string("tcub"[a.Kind]) + ":" + a.Name
}

const (
	aliveField    = "alive"    // is there as long as the instance is
	patternsField = "patterns" // JSON: by pattern, the number of clients
)

// keepPresence tells the others who listens here, and learns of them, while Redis is in reach.
func (l *Log) keepPresence() {
	mine := &ownPresence{stale: true}
	ticker := time.NewTicker(presenceEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-l.presence.doubted:
			mine.stale = true
		case <-l.context.Done():
			l.endPresence()
			return
		}
		if !l.replica.LogInReach() {
			continue
		}
		ctx, cancel := context.WithTimeout(l.context, l.Timeout)
		again := mine.stale
		err := l.exchangePresence(ctx, mine)
		cancel()
		if err == nil || refusesWrites(err) {
			l.replica.LogRefuses(err)
		}
		if err == nil && again {
			l.doubtOwners()
		}
		if err != nil {
			mine.stale = true
			l.logFailure("telling who listens here failed", err)
		}
	}
}

// refusesWrites reports whether a server in good health would take no message either: it is a replica, is full, or may
// not go on without replicas or the disk.
func refusesWrites(err error) bool {
	return redis.IsReadOnlyError(err) || redis.IsOOMError(err) || redis.IsNoReplicasError(err) || redis.HasErrorPrefix(err, "MISCONF")
}

// ownPresence is what this instance has told the others.
type ownPresence struct {
	patterns map[string]int
	stale    bool // Redis may not have it: everything is told again
}

// exchangePresence writes what has changed here and reads what others have.
func (l *Log) exchangePresence(ctx context.Context, mine *ownPresence) error {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return err
	}
	p := l.presence
	key := p.key(p.instance)
	if mine.stale { // a full server would let it all be deleted, but not told again
		if err := node.HSet(ctx, key, aliveField, 1).Err(); err != nil {
			return err
		}
	}
	pipe := node.Pipeline()
	kept := pipe.PExpire(ctx, key, presenceTTL) // first: what was there may be gone
	mine.tell(ctx, pipe, key, l.replica.Listening(mine.stale))
	pipe.PExpire(ctx, key, presenceTTL)
	pipe.SAdd(ctx, p.instances, p.instance)
	all := pipe.SMembers(ctx, p.instances)
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	mine.stale = !kept.Val() && !mine.stale
	return p.readOthers(ctx, node, all.Val())
}

// tell adds to the pipeline what has changed; all there is, if what Redis has is stale.
func (o *ownPresence) tell(ctx context.Context, pipe redis.Pipeliner, key string, changes map[hub.Address]int) {
	fields := []any{aliveField, 1}
	var gone []string
	patternsChanged := o.stale
	if o.stale {
		pipe.Del(ctx, key)
		o.patterns = make(map[string]int)
	}
	for a, n := range changes {
		switch {
		case a.Kind == hub.ToTopic && topic.IsPattern(a.Name):
			o.patterns[a.Name] = n
			patternsChanged = true
			if n == 0 {
				delete(o.patterns, a.Name)
			}
		case n > 0:
			fields = append(fields, presenceField(a), n)
		default:
			gone = append(gone, presenceField(a))
		}
	}
	if patternsChanged {
		encoded, _ := json.Marshal(o.patterns) // a map of numbers always encodes
		fields = append(fields, patternsField, encoded)
	}
	for some := range slices.Chunk(fields, presenceChunk) {
		pipe.HSet(ctx, key, some...)
	}
	for some := range slices.Chunk(gone, presenceChunk) {
		pipe.HDel(ctx, key, some...)
	}
}

// readOthers learns which of the other instances are alive, and their patterns. A dead one's hash has
// expired; its name goes too.
func (p *presence) readOthers(ctx context.Context, node redis.Cmdable, instances []string) error {
	pipe := node.Pipeline()
	replies := make(map[string]*redis.SliceCmd)
	for _, instance := range instances {
		if instance != p.instance {
			replies[instance] = pipe.HMGet(ctx, p.key(instance), aliveField, patternsField)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	var alive []string
	patterns := make(map[string]int)
	for instance, reply := range replies {
		if reply.Val()[0] == nil {
			if err := node.SRem(ctx, p.instances, instance).Err(); err != nil {
				return err
			}
			continue
		}
		alive = append(alive, instance)
		var theirs map[string]int
		if encoded, ok := reply.Val()[1].(string); ok && json.Unmarshal([]byte(encoded), &theirs) == nil {
			for pattern, n := range theirs {
				patterns[pattern] += n
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names, p.patterns = alive, patterns
	if time.Since(p.read) > presenceTTL {
		p.since = time.Now()
	}
	p.read = time.Now()
	return nil
}

// Connections implements Kicker.
func (l *Log) Connections(ctx context.Context, clientID string, wait bool) (elsewhere int, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout+2*presenceEvery)
	defer cancel()
	elsewhere, err = l.connectionsTold(ctx, clientID)
	if err != nil || elsewhere > 0 || !wait {
		return elsewhere, err
	}
	select {
	case <-time.After(2 * presenceEvery): // one to learn of a new instance, one for what it tells
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-l.context.Done():
		return 0, hub.ErrHubClosed
	}
	return l.connectionsTold(ctx, clientID)
}

func (l *Log) connectionsTold(ctx context.Context, clientID string) (elsewhere int, err error) {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return 0, err
	}
	for _, instance := range l.presence.others() {
		count, err := node.HGet(ctx, l.presence.key(instance), presenceField(hub.Address{Kind: hub.ToClient, Name: clientID})).Int()
		if err != nil && !errors.Is(err, redis.Nil) {
			return 0, err
		}
		elsewhere += count
	}
	return elsewhere, nil
}

// endPresence takes this instance's counts back at once instead of letting them expire.
func (l *Log) endPresence() {
	l.replica.StopListening()
	if !l.replica.LogInReach() {
		return // they expire
	}
	ctx, cancel := context.WithTimeout(context.Background(), presenceEvery)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return // they expire
	}
	p := l.presence
	pipe := node.Pipeline()
	pipe.Del(ctx, p.key(p.instance))
	pipe.SRem(ctx, p.instances, p.instance)
	_, _ = pipe.Exec(ctx) // or they expire
}
