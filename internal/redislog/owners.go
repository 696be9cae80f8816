package redislog

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
)

// The owner of a client_id stands in a key of its own, which the first user under that client_id sets. The
// key outlives all messages that an instance can keep for the client_id. Every instance that keeps some, or
// has connections, renews it. When no instance does so any longer, the next user who asks gets the client_id.

const (
	minOwnersEvery = 20 * time.Second // shortest interval of renewals
	maxOwnersEvery = 10 * time.Minute // longest interval of renewals
	agelessOwners  = 24 * time.Hour   // how long a key outlives its renewal if messages have no maximum age
	ownersChunk    = 500              // keys of one call
	catchUpEvery   = 5 * time.Millisecond
)

// ownerTimes returns how long a key lives, and the interval of its renewals. Two renewals in a row may fail.
func ownerTimes(limits hub.HistoryLimits) (ttl, every time.Duration) {
	age := min(limits.Age, math.MaxInt64/2)
	if age == 0 {
		age = agelessOwners
	}
	every = min(max(age/10, minOwnersEvery), maxOwnersEvery)
	return age + 3*every, every
}

// ownerQuestion asks for the owner of a client_id. It claims the client_id for a user if it has no owner.
type ownerQuestion struct {
	clientID  string
	user      string // claims the client_id; empty for no claim
	way       ownerWay
	generated bool // whether the hub has just made up the client_id, so that nobody else can use it yet
}

// ownerWay is what a question does to the key if its owner is another user.
type ownerWay string

const (
	askOwner   ownerWay = "ask"   // nothing
	renewOwner ownerWay = "renew" // renew it, since the client_id is in use here
	takeOver   ownerWay = "take"  // remove it, unless the client_id is in use elsewhere; it is not in use here
)

// Claim implements broker.Claimer.
func (l *Log) Claim(ctx context.Context, s *hub.Subscription) {
	if !l.replica.LogInReach() || s.Generated && s.User == "" {
		return
	}
	user, _ := l.replica.Owner(s.ClientID)
	if user != "" && user != s.User {
		return // the hub will refuse the subscription
	}
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	q := ownerQuestion{clientID: s.ClientID, user: s.User, way: askOwner, generated: s.Generated}
	err := l.within(ctx, func() error { return l.claimOrLearn(ctx, q) })
	if err != nil && ctx.Err() != context.Canceled {
		l.unasked.Do(func() {
			l.Logger.Warn("redis does not say whose client_ids are; this instance goes by what it knows",
				zap.Error(l.located(err)))
		})
	}
}

// claimOrLearn claims a client_id for the user who asks, or tells the replica that it is another's. It takes
// the client_id away from an owner only if it is certainly in use nowhere.
func (l *Log) claimOrLearn(ctx context.Context, q ownerQuestion) error {
	owners, err := l.askOwners(ctx, "", q)
	if err != nil || owners[0] == "" || owners[0] == q.user {
		return err
	}
	owner := owners[0]
	term, all := l.presence.known()
	if all && l.catchUp(ctx) && !l.mayBeKeptElsewhere(q.clientID) {
		if _, inUse := l.replica.Owner(q.clientID); !inUse {
			q.way = takeOver
			if owners, err = l.askOwners(ctx, term, q); err == nil {
				owner = owners[0]
			}
		}
	}
	l.noteOwner(q, owner)
	return err
}

// catchUp waits until this instance has read what is in the log now. It reports whether that worked.
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
	for end.After(l.replica.Position().Position) && end.After(l.acked.lastRead().Position) {
		select {
		case <-time.After(catchUpEvery):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// mayBeKeptElsewhere reports whether another instance may keep messages for a client_id that this one does
// not have. That is so if the log has dropped messages that are not too old for the history.
func (l *Log) mayBeKeptElsewhere(clientID string) bool {
	lost := l.replica.Lost(hub.Address{Kind: hub.ToClient, Name: clientID})
	return lost.After(hub.Position{}) && lost.Major >= l.wantedSince(0)
}

// noteOwner tells the replica the answer to a question, if the owner is another user than the one that the
// replica knows.
func (l *Log) noteOwner(q ownerQuestion, owner string) {
	if owner != "" && owner != q.user {
		l.replica.Own(q.clientID, owner, time.Now().Add(presenceSettles))
	}
}

// askOwners returns the owner of each client_id, empty if there is none. A takeOver needs the name of
// totals that have all.
func (l *Log) askOwners(
	ctx context.Context, term string, questions ...ownerQuestion,
) (owners []string, err error) {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return nil, err
	}
	ttl, _ := ownerTimes(l.replica.Limits().History)
	keys := []string{l.presence.key(l.presence.instance), l.presence.totals}
	if term != "" {
		older, err := l.olderInstances(ctx, node)
		if err != nil {
			return nil, err
		}
		keys = append(keys, older...)
	}
	args := []any{len(keys), ttl.Milliseconds(), (ttl - presenceSettles).Milliseconds(), l.kickChannel, term}
	for _, q := range questions {
		keys = append(keys, l.ownerKey+q.clientID)
		args = append(args, q.clientID, q.user, string(q.way), q.generated)
	}
	owners, err = ownersScript.Run(ctx, node, keys, args...).StringSlice()
	if err == nil && len(owners) != len(questions) {
		err = fmt.Errorf("%d answers to %d questions", len(owners), len(questions))
	}
	return owners, err
}

// ownersScript answers questions. A client_id is in use elsewhere if presence says so, or if the key was
// set or renewed, or the totals begun, so recently that presence may not say so yet.
//
// KEYS: the presence of the instance that asks, the totals, the presence of older instances; the owners'
// keys.
//
// ARGV: the number of keys before the owners', how long a key lives in ms, above which remaining time a key
// counts as recent, the kick channel, the name of totals that have all; then for each owner's key its
// client_id, the user who asks, the way, and whether the client_id was just generated. If it was not, the
// other instances are told of its new owner.
var ownersScript = redis.NewScript(elsewhereLua + `
local before, ttl, fresh = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local function inUseElsewhere(key, id)
	if redis.call('PTTL', key) >= fresh then return true end
	if redis.call('HGET', KEYS[2], 'term') ~= ARGV[5] then return true end
	return elsewhere(KEYS[1], KEYS[2], 'c:' .. id) + toldBefore(3, before, 'c:' .. id) > 0
end
local owners = {}
for i = before + 1, #KEYS do
	local key, arg = KEYS[i], 6 + 4 * (i - before - 1)
	local id, user, way, generated = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
	local owner = redis.call('GET', key)
	if owner and owner ~= user and way == 'take' and not inUseElsewhere(key, id) then
		redis.call('DEL', key)
		owner = false
	end
	if not owner and user ~= '' then
		owner = user
		redis.call('SET', key, user, 'PX', ttl)
		if generated == '0' then redis.call('PUBLISH', ARGV[4], id .. ' ' .. user) end
	elseif owner and (owner == user or way == 'renew') and redis.call('PTTL', key) < tonumber(ttl) then
		redis.call('PEXPIRE', key, ttl) -- another instance may keep messages for longer
	end
	owners[#owners + 1] = owner or ''
end
return owners
`)

// hearKick does what another instance asks on the kick channel. A client_id alone is to be kicked; one with a
// user after it now belongs to that user.
func (l *Log) hearKick(payload string) {
	clientID, user, claimed := strings.Cut(payload, " ")
	if claimed {
		l.replica.Own(clientID, user, time.Now().Add(presenceSettles))
		return
	}
	l.replica.Kick(clientID)
}

// keepOwners renews the keys of the client_ids that are in use here, at intervals and whenever Redis may have
// lost them. From the answers the replica learns owners that it did not know.
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
			continue // the owners are doubted when the log is in reach again
		}
		if err := l.renewOwners(); err != nil {
			next = presenceSettles
			l.logFailure("renewing the owners of client_ids failed", err)
		}
	}
}

// renewOwners renews the keys of the client_ids that are in use here.
func (l *Log) renewOwners() error {
	var questions []ownerQuestion
	for clientID, user := range l.replica.Owners() {
		questions = append(questions, ownerQuestion{clientID: clientID, user: user, way: renewOwner})
	}
	for some := range slices.Chunk(questions, ownersChunk) {
		ctx, cancel := context.WithTimeout(l.context, l.Timeout)
		owners, err := l.askOwners(ctx, "", some...)
		cancel()
		if err != nil {
			return err
		}
		for i, q := range some {
			l.noteOwner(q, owners[i])
		}
	}
	return nil
}
