package redislog

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// Whose a client_id is stands in a key of its own, which the first user to come under it sets. The key
// outlives the messages that any instance can have kept for it, and is renewed by each that has some, or
// has connections. Once none of them has, whoever asks next finds it free.

const (
	minOwnersEvery = 20 * time.Second // how often keys are renewed, at the most
	maxOwnersEvery = 10 * time.Minute
	agelessOwners  = 24 * time.Hour // how long a key outlives its renewal where messages have no age
	ownersChunk    = 500            // keys of one call
	catchUpEvery   = 5 * time.Millisecond
)

// ownerTimes returns how long the keys live, and how often they are renewed. Two renewals may fail.
func ownerTimes(limits hub.HistoryLimits) (ttl, every time.Duration) {
	age := min(limits.Age, math.MaxInt64/2)
	if age == 0 {
		age = agelessOwners
	}
	every = min(max(age/10, minOwnersEvery), maxOwnersEvery)
	return age + 3*every, every
}

// ownerQuestion asks whose a client_id is, and claims it for a user if it is nobody's.
type ownerQuestion struct {
	clientID string
	user     string // empty for one who claims nothing
	way      ownerWay
	secret   bool // nobody else can have come under it yet
}

// ownerWay is what a question does to the key of an owner who is not the one that asks.
type ownerWay string

const (
	askOwner   ownerWay = "ask"   // nothing
	renewOwner ownerWay = "renew" // keeps it alive: the client_id is in use here
	takeOver   ownerWay = "take"  // removes it, if the client_id is not in use elsewhere; here it is not
)

// Claim implements Owners.
func (l *Log) Claim(ctx context.Context, s *hub.Subscription) {
	if !l.replica.LogInReach() || s.Generated && s.User == "" {
		return
	}
	user, _ := l.replica.Owner(s.ClientID)
	if user != "" && user != s.User {
		return // the hub will refuse it
	}
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	err := l.within(ctx, func() error { return l.claim(ctx, ownerQuestion{s.ClientID, s.User, askOwner, s.Generated}) })
	if err != nil && ctx.Err() != context.Canceled {
		l.unasked.Do(func() {
			l.Logger.Warn("redis does not say whose client_ids are; this instance goes by what it knows",
				zap.String("hub", l.hub), zap.Error(err))
		})
	}
}

func (l *Log) claim(ctx context.Context, q ownerQuestion) error {
	owners, err := l.askOwners(ctx, nil, q)
	if err != nil || owners[0] == "" || owners[0] == q.user {
		return err
	}
	owner := owners[0]
	instances, all := l.presence.known()
	if all && l.catchUp(ctx) && !l.mayBeKeptElsewhere(q.clientID) {
		if _, inUse := l.replica.Owner(q.clientID); !inUse {
			q.way = takeOver
			if owners, err = l.askOwners(ctx, instances, q); err == nil {
				owner = owners[0]
			}
		}
	}
	l.heard(q, owner)
	return err
}

// catchUp waits until this instance has read what is in the log by now. It reports whether it has.
func (l *Log) catchUp(ctx context.Context) bool {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return false
	}
	newest, err := node.XRevRangeN(ctx, l.logKey, "+", "-", 1).Result()
	if err != nil || len(newest) == 0 {
		return err == nil
	}
	end, err := parseEntryID(newest[0].ID)
	if err != nil {
		return false
	}
	for end.After(l.replica.Position().Position) && end.After(l.acked.cameTo().Position) {
		select {
		case <-time.After(catchUpEvery):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// mayBeKeptElsewhere reports whether another instance may keep messages for a client_id that this one does not have: the
// log has dropped some that are not too old for its history.
func (l *Log) mayBeKeptElsewhere(clientID string) bool {
	lost := l.replica.Lost(hub.Address{Kind: hub.ToClient, Name: clientID})
	return lost.After(hub.Position{}) && lost.Major >= l.wantedSince(0)
}

// heard tells the replica what it does not know of an owner.
func (l *Log) heard(q ownerQuestion, owner string) {
	if owner != "" && owner != q.user {
		l.replica.Own(q.clientID, owner, time.Now().Add(presenceTTL))
	}
}

// askOwners returns whose the client_ids are, each empty if it is nobody's. Who takes over has to name the
// other instances.
func (l *Log) askOwners(ctx context.Context, instances []string, questions ...ownerQuestion) (owners []string, err error) {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return nil, err
	}
	ttl, _ := ownerTimes(l.replica.Limits().History)
	args := []any{len(instances), ttl.Milliseconds(), (ttl - presenceTTL).Milliseconds(), l.kickChannel}
	var keys []string
	for _, instance := range instances {
		keys = append(keys, l.presence.key(instance))
	}
	for _, q := range questions {
		keys = append(keys, l.ownerKey+q.clientID)
		args = append(args, q.clientID, q.user, string(q.way), q.secret)
	}
	owners, err = ownersScript.Run(ctx, node, keys, args...).StringSlice()
	if err == nil && len(owners) != len(questions) {
		err = fmt.Errorf("%d answers to %d questions", len(owners), len(questions))
	}
	return owners, err
}

// ownersScript answers questions. What is in use elsewhere is what presence tells of, and what was claimed
// or renewed so short a time ago that presence may not tell yet.
//
// KEYS: the presence of the other instances, the owners' keys.
// ARGV: the number of instances, how long a key lives, how long one still lives that was not set a moment
// ago, the kick channel; then for each owner's key its client_id, who asks, in which way, and whether the
// client_id is a secret: if not, other instances are told of its new owner.
var ownersScript = redis.NewScript(`
local instances, ttl, fresh = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local function inUseElsewhere(key, id)
	if redis.call('PTTL', key) >= fresh then return true end
	for i = 1, instances do
		if tonumber(redis.call('HGET', KEYS[i], 'c:' .. id) or 0) > 0 then return true end
	end
end
local owners = {}
for i = instances + 1, #KEYS do
	local key, arg = KEYS[i], 5 + 4 * (i - instances - 1)
	local id, user, way, secret = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
	local owner = redis.call('GET', key)
	if owner and owner ~= user and way == 'take' and not inUseElsewhere(key, id) then
		redis.call('DEL', key)
		owner = false
	end
	if not owner and user ~= '' then
		owner = user
		redis.call('SET', key, user, 'PX', ttl)
		if secret == '0' then redis.call('PUBLISH', ARGV[4], id .. ' ' .. user) end
	elseif owner and (owner == user or way == 'renew') and redis.call('PTTL', key) < tonumber(ttl) then
		redis.call('PEXPIRE', key, ttl) -- another instance may keep messages for longer
	end
	owners[#owners + 1] = owner or ''
end
return owners
`)

// hearKick does what another instance says on the kick channel: that a client_id is to be closed or,
// with a user after it, that it became that user's.
func (l *Log) hearKick(payload string) {
	clientID, user, claimed := strings.Cut(payload, " ")
	if claimed {
		l.replica.Own(clientID, user, time.Now().Add(presenceTTL))
		return
	}
	l.replica.Kick(clientID)
}

// keepOwners renews, now and then and whenever Redis may have lost them, the keys of the client_ids that
// are in use here. On the way the replica learns whose they are.
func (l *Log) keepOwners() {
	_, next := ownerTimes(l.replica.Limits().History)
	for {
		select {
		case <-time.After(next):
		case <-l.ownersDoubted:
		case <-l.context.Done():
			return
		}
		_, next = ownerTimes(l.replica.Limits().History)
		if !l.replica.LogInReach() {
			continue // it is doubted when it is back
		}
		if err := l.renewOwners(); err != nil {
			next = presenceTTL
			l.logFailure("renewing whose client_ids are failed", err)
		}
	}
}

// doubtOwners says that Redis may not have the keys.
func (l *Log) doubtOwners() {
	select {
	case l.ownersDoubted <- struct{}{}:
	default:
	}
}

func (l *Log) renewOwners() error {
	var questions []ownerQuestion
	for clientID, user := range l.replica.Owners() {
		questions = append(questions, ownerQuestion{clientID: clientID, user: user, way: renewOwner})
	}
	for some := range slices.Chunk(questions, ownersChunk) {
		ctx, cancel := context.WithTimeout(l.context, l.Timeout)
		owners, err := l.askOwners(ctx, nil, some...)
		cancel()
		if err != nil {
			return err
		}
		for i, q := range some {
			l.heard(q, owners[i])
		}
	}
	return nil
}
