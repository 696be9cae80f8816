package redislog

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

const (
	presenceEvery = 500 * time.Millisecond // how often an instance tells what has changed
	presenceTTL   = 3 * time.Second        // how long the counts of a dead instance live on
	presenceChunk = 1000                   // arguments of one command; even
)

// presence counts the clients at each address over all instances. Each instance keeps a hash in Redis of its
// addresses with their numbers of clients. A publish reads the hashes in the call that it makes anyway. Only
// patterns can't be looked up by topic; they are fetched ahead.
type presence struct {
	base      string // beginning of the hashes' keys
	instance  string // random name of this instance
	instances string // key of the set of all instances
	doubted   doubt  // raised when Redis may lack what this instance told

	mu       sync.Mutex     // guards all below
	names    []string       // other instances that are alive
	read     time.Time      // when names were read last
	since    time.Time      // since when names have been read without a break
	patterns map[string]int // the other instances' patterns with their numbers of clients
}

func newPresence(base string) *presence {
	return &presence{
		base: base + "presence:", instance: rand.Text(), instances: base + "instances", doubted: newDoubt(),
	}
}

// key returns the key of an instance's hash.
func (p *presence) key(instance string) string { return p.base + instance }

// others returns the other instances that were alive a moment ago.
func (p *presence) others() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names
}

// known returns the other instances, and whether they are certainly all: every instance that is alive has had
// the time to tell, and this one the time to read it.
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

// presenceField returns the field of an address in an instance's hash.
func presenceField(a hub.Address) string {
	return string("tcub"[a.Kind]) + ":" + a.Name
}

// The other fields of an instance's hash.
const (
	aliveField    = "alive"    // there as long as the instance lives
	patternsField = "patterns" // a JSON object: the number of clients by pattern
)

// keepPresence exchanges presence with the other instances while Redis is in reach.
func (l *Log) keepPresence() {
	own := &ownPresence{stale: true}
	ticker := time.NewTicker(presenceEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-l.presence.doubted:
			own.stale = true
		case <-l.context.Done():
			l.endPresence()
			return
		}
		if !l.replica.LogInReach() {
			l.forgetTold(own)
			continue
		}
		ctx, cancel := context.WithTimeout(l.context, l.Timeout)
		again := own.stale
		err := l.exchangePresence(ctx, own)
		cancel()
		if err == nil || refusesWrites(err) {
			l.noteRefusal(err)
		}
		if err == nil && again {
			l.ownersDoubted.raise()
		}
		if err != nil {
			l.forgetTold(own)
			l.logFailure("telling who listens here failed", err)
		}
	}
}

// forgetTold has everything told again once Redis is back. Changes are not noted meanwhile: they could be without end.
func (l *Log) forgetTold(own *ownPresence) {
	own.stale = true
	l.replica.StopListening()
}

// refusesWrites reports whether the error means that the server takes no messages: it is a replica, is full,
// or lacks its replicas or its disk.
func refusesWrites(err error) bool {
	return redis.IsReadOnlyError(err) || redis.IsOOMError(err) || redis.IsNoReplicasError(err) ||
		redis.HasErrorPrefix(err, "MISCONF")
}

// ownPresence is what this instance has told the others.
type ownPresence struct {
	patterns map[string]int // number of clients by pattern
	stale    bool           // whether Redis may lack it, so that everything must be told again
}

// exchangePresence writes what has changed here and reads the presence of the others.
func (l *Log) exchangePresence(ctx context.Context, own *ownPresence) error {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return err
	}
	p := l.presence
	key := p.key(p.instance)
	if own.stale { // fails on a full server, which would let everything be deleted and take nothing
		if err := p.claim(ctx, node, key); err != nil {
			return err
		}
	}
	pipe := node.Pipeline()
	kept := pipe.PExpire(ctx, key, presenceTTL) // first, to see whether the hash is still there
	own.tell(ctx, pipe, key, l.replica.Listening(own.stale))
	pipe.PExpire(ctx, key, presenceTTL)
	pipe.SAdd(ctx, p.instances, p.instance)
	all := pipe.SMembers(ctx, p.instances)
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	own.stale = !kept.Val() && !own.stale
	return p.readOthers(ctx, node, all.Val())
}

// claim sets the key of this instance up as a hash. What else somebody has put there goes: it may never expire.
func (p *presence) claim(ctx context.Context, node redis.Cmdable, key string) error {
	err := node.HSet(ctx, key, aliveField, 1).Err()
	if !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return err
	}
	if err := node.Del(ctx, key).Err(); err != nil {
		return err
	}
	return node.HSet(ctx, key, aliveField, 1).Err()
}

// tell adds the changes to the pipeline. If Redis may lack something, the changes are everything there is.
func (o *ownPresence) tell(
	ctx context.Context, pipe redis.Pipeliner, key string, changes map[hub.Address]int,
) {
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

// readOthers reads which of the other instances are alive, and their patterns. The hash of a dead instance
// has expired; its name is removed as well.
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

// Connections implements broker.Kicker.
func (l *Log) Connections(ctx context.Context, clientID string, wait bool) (elsewhere int, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout+2*presenceEvery)
	defer cancel()
	elsewhere, err = l.connectionsTold(ctx, clientID)
	if err != nil || elsewhere > 0 || !wait {
		return elsewhere, err
	}
	select {
	case <-time.After(2 * presenceEvery): // one to learn of a new instance, one for its counts
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-l.context.Done():
		return 0, hub.ErrHubClosed
	}
	return l.connectionsTold(ctx, clientID)
}

// connectionsTold returns the number of connections that the other instances have told.
func (l *Log) connectionsTold(ctx context.Context, clientID string) (elsewhere int, err error) {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return 0, err
	}
	field := presenceField(hub.Address{Kind: hub.ToClient, Name: clientID})
	for _, instance := range l.presence.others() {
		count, err := node.HGet(ctx, l.presence.key(instance), field).Int()
		if err != nil && !errors.Is(err, redis.Nil) {
			return 0, err
		}
		elsewhere += count
	}
	return elsewhere, nil
}

// endPresence removes this instance's counts, if Redis is in reach. Otherwise they expire.
func (l *Log) endPresence() {
	l.replica.StopListening()
	if !l.replica.LogInReach() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), presenceEvery)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return
	}
	p := l.presence
	pipe := node.Pipeline()
	pipe.Del(ctx, p.key(p.instance))
	pipe.SRem(ctx, p.instances, p.instance)
	_, _ = pipe.Exec(ctx)
}
