package redislog

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

const (
	presenceEvery   = 500 * time.Millisecond // how often an instance tells what has changed
	presenceSettles = 3 * time.Second        // how long until every living instance has told all it has
	deadAfter       = 6 * time.Second        // how long an instance is silent until its counts are taken back
	presenceChunk   = 250                    // addresses of one call: Redis does nothing else meanwhile
)

// presence counts the clients at each address over all instances. Each instance adds its changes to totals
// in Redis. A publish reads them in the call that it makes anyway. Only patterns can't be looked up by
// topic: each instance knows those of the others.
type presence struct {
	base     string // beginning of the keys
	instance string // random name of this instance
	totals   string // key of the totals
	doubted  doubt  // raised when Redis may lack what this instance told
	hurry    doubt  // raised when there is something to tell, or to read, that does not wait
	members  roll
	guests   guests

	mu       sync.Mutex      // guards all below
	term     string          // name of the totals
	others   int             // number of other instances
	read     time.Time       // when the others were read last
	since    time.Time       // since when they have been read without a break, under this term
	patterns topic.Tree[int] // the other instances' patterns with their numbers of clients
	upTo     int64           // the last change of patterns that was read
	began    int64           // the last change when reading all patterns began
}

func newPresence(base string) *presence {
	return &presence{base: base, instance: rand.Text(), totals: base + "totals", doubted: newDoubt(), hurry: newDoubt()}
}

// key returns the key of an instance's hash.
func (p *presence) key(instance string) string { return p.base + "presence:" + instance }

// instances returns the key of the set of all instances. Those before the totals were there know no other.
func (p *presence) instances() string { return p.base + "instances" }

// living returns the key of the sorted set of instances with the times of their last calls.
func (p *presence) living() string { return p.base + "living" }

// keys returns what tellScript and sweepScript need to tell of an instance.
func (p *presence) keys(instance string) []string {
	return []string{
		p.key(instance), p.totals, p.living(), p.instances(), p.base + "patterns", p.base + "patterns:gone",
		p.base + "members", p.base + "members:gone", p.base + "guests", p.base + "guests:gone", p.goodbyes(),
	}
}

// goodbyes returns the key of the sorted set of guests who have left, with the times from which on any instance may
// publish that.
func (p *presence) goodbyes() string { return p.base + "guests:left" }

// hasOthers reports whether there were other instances a moment ago. While this one can't tell, as during
// the move of a slot, it knows of none: a script whose keys are not all there would be refused.
func (p *presence) hasOthers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.others > 0 && time.Since(p.read) < presenceSettles
}

// known returns the name of the totals, and whether they certainly have all: every instance that is alive has
// had the time to tell.
func (p *presence) known() (term string, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.term, time.Since(p.read) < presenceSettles && time.Since(p.since) > presenceSettles
}

// matchSteps is how many steps of a search for patterns are one turn under the lock.
const matchSteps = 1024

// countPatterns returns how many clients of other instances listen to patterns that match. Others get the lock
// between steps: of a topic with very many segments, very many patterns may have the beginning.
func (p *presence) countPatterns(to []hub.Address) (clients int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range to {
		if a.Kind != hub.ToTopic {
			continue
		}
		walk := p.patterns.Walk(a.Name)
		for i := 1; walk.Step(func(n *int) { clients += *n }); i++ {
			if i%matchSteps == 0 {
				p.mu.Unlock()
				p.mu.Lock()
			}
		}
	}
	return clients
}

// presenceField returns the field of an address in the totals and in an instance's hash.
func presenceField(a hub.Address) string {
	if a.Kind == hub.ToTopic && topic.IsPattern(a.Name) {
		return "p:" + a.Name
	}
	return string("tcubt"[a.Kind]) + ":" + a.Name // for one of a private message all count that ask for the topic
}

// keepPresence exchanges presence with the other instances while Redis is in reach.
func (l *Log) keepPresence() {
	stale := true // whether Redis may lack what this instance told, so that everything must be told again
	ticker := time.NewTicker(presenceEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-l.presence.hurry:
		case <-l.presence.doubted:
			stale = true
		case <-l.context.Done():
			l.endPresence()
			return
		}
		if !l.replica.LogInReach() {
			// Changes are not noted meanwhile: they could be without end.
			stale = true
			l.replica.StopListening()
			continue
		}
		again := stale
		err := l.exchangePresence(again)
		stale = err != nil
		if errors.Is(err, errUntold) {
			continue
		}
		if err == nil || refusesWrites(err) {
			l.noteRefusal(err)
		}
		switch {
		case err != nil:
			l.replica.StopListening()
			l.logFailure("telling who listens here failed", err)
		case again:
			l.ownersDoubted.raise()
		}
	}
}

// refusesWrites reports whether the error means that the server takes no messages: it is a replica, is full,
// or lacks its replicas or its disk.
func refusesWrites(err error) bool {
	return redis.IsReadOnlyError(err) || redis.IsOOMError(err) || redis.IsNoReplicasError(err) ||
		redis.HasErrorPrefix(err, "MISCONF")
}

// errUntold means that the totals lack what this instance has told before.
var errUntold = errors.New("the counts of this instance are not in the totals")

// exchangePresence tells what has changed here, or all there is, and reads what has changed on the others.
func (l *Log) exchangePresence(all bool) error {
	node, err := l.node(l.context, l.publishing)
	if err != nil {
		return err
	}
	var r told
	otherMembers := l.presence.members.follow(l.replica.PresenceID())
	otherGuests := l.presence.guests.follow(l.replica.GuestsID())
	if otherMembers || otherGuests || all {
		if r, err = l.tellAll(node); err == nil {
			_, err = l.olderInstances(l.context, node) // removes those that died with all others
		}
	} else {
		r, err = l.tellShare(node, l.share(false))
	}
	if err != nil {
		return err
	}
	until := time.Now().Add(presenceEvery)
	for _, instance := range r.dead {
		for at := "0"; at != "" && time.Now().Before(until); {
			if at, err = l.sweep(l.context, node, instance, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellAll tells the number of clients at each address here. It joins first, in case Redis does not know this
// instance. What Redis has beyond that is no longer so.
func (l *Log) tellAll(node redis.Cmdable) (r told, err error) {
	if _, err := l.tell(node, nil, nil); err != nil && !errors.Is(err, errUntold) {
		return r, err
	}
	if l.presence.guests.lost {
		l.presence.guests.lost = false
		l.replica.GuestsForgotten()
	}
	all := l.share(true)
	if r, err = l.tellShare(node, all); err != nil || r.addresses == len(all.counts) {
		return r, err
	}
	key, over := l.presence.key(l.presence.instance), make(map[string]int)
	for cursor, first := uint64(0), true; first || cursor > 0; first = false {
		ctx, cancel := context.WithTimeout(l.context, l.Timeout)
		var pairs []string
		pairs, cursor, err = node.HScan(ctx, key, cursor, "", presenceChunk).Result()
		cancel()
		if err != nil {
			return r, err
		}
		for pair := range slices.Chunk(pairs, 2) {
			if isShare(pair[0]) && all.counts[pair[0]] == 0 {
				over[pair[0]] = 0
			}
		}
	}
	return l.tell(node, over, nil)
}

// share is what an instance tells of itself.
type share struct {
	counts  map[string]int  // the fields of its hash, with their numbers
	guests  map[string]bool // those among them who are guests
	settled []string        // guests
}

// share returns what has changed of this instance's share of the totals, or all of it.
func (l *Log) share(all bool) share {
	listening, members := l.replica.Listening(all), l.replica.Members(all, l.clock.now())
	guests, settled := l.replica.GuestNews(all)
	counts := make(map[string]int, len(listening)+len(members)+len(guests))
	for a, n := range listening {
		counts[presenceField(a)] = n
	}
	for m, here := range members {
		counts[memberField(m)] = 0
		if here {
			counts[memberField(m)] = 1
		}
	}
	for guest, here := range guests {
		counts[guestField(guest)] = 0
		if here {
			counts[guestField(guest)] = 1
		}
	}
	return share{counts, guests, settled}
}

// tellShare tells what has changed, or all.
func (l *Log) tellShare(node redis.Cmdable, s share) (r told, err error) {
	if r, err = l.tell(node, s.counts, s.settled); err == nil {
		l.presence.guests.told = true
		l.replica.GuestsTold(s.guests, s.settled)
	}
	return r, err
}

// isShare reports whether a field of an instance's hash is part of its share of the totals.
func isShare(field string) bool { return len(field) > 1 && field[1] == ':' }

// tell tells some of the instance's share, and which guests are settled, in pieces, and reads all that has changed on
// the others. errUntold says that what was told before is not in the totals.
func (l *Log) tell(node redis.Cmdable, counts map[string]int, settled []string) (r told, err error) {
	fields := make([]any, 0, 2*min(len(counts), presenceChunk))
	bytes, untold := 0, false
	call := func() error {
		some := settled[:min(len(settled), presenceChunk)]
		if r, err = l.callTell(node, l.presence.instance, some, fields); err != nil {
			return err
		}
		settled = settled[len(some):]
		fields, bytes, untold = fields[:0], 0, untold || !r.joined
		l.clock.set(r.at)
		l.presence.note(r)
		l.presence.guests.lost = l.presence.guests.lost || !r.joined && l.presence.guests.told
		l.noteMembers(r)
		l.noteGuests(r)
		return nil
	}
	for field, n := range counts {
		fields = append(fields, field, n)
		if bytes += len(field); len(fields) == 2*presenceChunk || bytes > maxCallBytes {
			if err := call(); err != nil {
				return r, err
			}
		}
	}
	for r.more = true; r.more || r.members.more || r.guests.more || len(settled) > 0; {
		if err := call(); err != nil {
			return r, err
		}
	}
	if untold {
		return r, errUntold
	}
	return r, nil
}

// told is what an instance gets for what it tells.
type told struct {
	joined    bool      // whether it had joined before, so that all it ever told is in the totals
	term      string    // name of the totals
	at        time.Time // by Redis's clock
	others    int       // number of other instances
	addresses int       // those that the instance has told
	dead      []string  // instances whose counts are to be taken back
	goodbyes  []string  // guests who have left without a word, given to one caller at a time
	changes             // of patterns
	members   changes
	guests    changes
}

// changes are what has changed on other instances.
type changes struct {
	again   bool  // whether all begin again
	began   int64 // the last change when reading all began
	upTo    int64 // the last change that was read
	more    bool  // whether there are more
	changed []any // each and its number on other instances
}

// callTell has an instance tell which guests are settled, and fields with their numbers.
func (l *Log) callTell(node redis.Cmdable, instance string, settled []string, fields []any) (r told, err error) {
	p := l.presence
	term, all := p.known()
	p.mu.Lock()
	args := append([]any{
		instance, rand.Text(), term, p.upTo, p.began, all, deadAfter.Milliseconds(),
		p.members.of > 0, p.members.readOf, p.members.upTo, p.members.began,
		p.guests.of > 0, p.guests.readOf, p.guests.upTo, p.guests.began,
		l.goodbyeTime().Milliseconds(), goodbyeAfter.Milliseconds(), maxGoodbyes, len(settled),
	}, toAny(settled)...)
	args = append(args, fields...)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(l.context, l.Timeout)
	defer cancel()
	reply, err := tellScript.Run(ctx, node, p.keys(instance), args...).Slice()
	switch {
	case errors.Is(err, redis.Nil):
		return r, errUntold
	case err != nil:
		return r, err
	case len(reply) != 22:
		return r, errUnexpectedReply
	}
	number := func(i int) int64 { n, _ := reply[i].(int64); return n }
	r = told{
		joined: number(0) == 1, at: time.UnixMilli(number(2)), others: int(number(3)), addresses: int(number(4)),
	}
	for i, c := range []*changes{&r.changes, &r.members, &r.guests} {
		at := 6 + 5*i
		*c = changes{again: number(at) == 1, began: number(at + 1), upTo: number(at + 2), more: number(at+3) == 1}
		c.changed, _ = reply[at+4].([]any)
	}
	r.term, _ = reply[1].(string)
	r.dead, r.goodbyes = texts(reply[5]), texts(reply[21])
	return r, nil
}

// texts returns the texts of a list in a reply.
func texts(reply any) (all []string) {
	list, _ := reply.([]any)
	for _, one := range list {
		text, _ := one.(string)
		all = append(all, text)
	}
	return all
}

func toAny(texts []string) []any {
	all := make([]any, len(texts))
	for i, text := range texts {
		all[i] = text
	}
	return all
}

// note takes in what this instance got for what it told.
func (p *presence) note(r told) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.term != p.term || time.Since(p.read) > presenceSettles {
		p.since = time.Now()
	}
	p.read, p.term, p.others, p.began, p.upTo = time.Now(), r.term, r.others, r.began, r.upTo
	if r.again {
		p.patterns = topic.Tree[int]{}
	}
	for pair := range slices.Chunk(r.changed, 2) {
		pattern, _ := pair[0].(string)
		if n, _ := pair[1].(int64); n > 0 {
			*p.patterns.Add(pattern) = int(n)
		} else {
			p.patterns.Remove(pattern)
		}
	}
}

// sweep takes back a piece of what a dead instance has told. It returns where the next piece begins; empty if
// there is none.
func (l *Log) sweep(ctx context.Context, node redis.Cmdable, instance, at string) (next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	next, err = sweepScript.Run(
		ctx, node, l.presence.keys(instance), instance, deadAfter.Milliseconds(), at).Text()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	return next, err
}

// endPresence takes back what this instance has told, if Redis is in reach. What takes too long is left to
// the others.
func (l *Log) endPresence() {
	l.replica.StopListening()
	l.forgetMembers()
	l.forgetGuests()
	if !l.replica.LogInReach() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), presenceEvery)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return
	}
	instance := l.presence.instance
	err = node.ZAddXX(ctx, l.presence.living(), redis.Z{Score: 0, Member: instance}).Err() // dead from now on
	if err == nil {
		err = l.sayGoodbyes(ctx, node)
	}
	for at := "0"; at != "" && err == nil; {
		at, err = l.sweep(ctx, node, instance, at)
	}
}
