package redislog

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Connections implements broker.Kicker.
func (l *Log) Connections(ctx context.Context, clientID string, wait bool) (elsewhere int, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout+2*presenceEvery)
	defer cancel()
	elsewhere, err = l.connectionsTold(ctx, clientID)
	if err != nil || elsewhere > 0 || !wait {
		return elsewhere, err
	}
	select {
	case <-time.After(2 * presenceEvery): // an instance may take as long until it tells, and then some
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-l.context.Done():
		return 0, hub.ErrHubClosed
	}
	return l.connectionsTold(ctx, clientID)
}

// connectionsTold returns the number of connections that the other instances have told.
func (l *Log) connectionsTold(ctx context.Context, clientID string) (elsewhere int, err error) {
	return l.clientsTold(ctx, []hub.Address{{Kind: hub.ToClient, Name: clientID}})
}

// Receivers implements broker.Counter.
func (l *Log) Receivers(ctx context.Context, to []hub.Address) (elsewhere int, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	if _, all := l.presence.known(); !all {
		return 0, broker.ErrUnavailable
	}
	elsewhere, err = l.clientsTold(ctx, to)
	return elsewhere + l.presence.countPatterns(to), err
}

// clientsTold returns how many clients the other instances have told at some addresses, but for patterns.
func (l *Log) clientsTold(ctx context.Context, to []hub.Address) (elsewhere int, err error) {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return 0, err
	}
	older, err := l.olderInstances(ctx, node)
	if err != nil {
		return 0, err
	}
	p := l.presence
	fields := make([]any, len(to))
	for i, a := range to {
		fields[i] = presenceField(a)
	}
	keys := append([]string{p.key(p.instance), p.totals}, older...)
	return clientsScript.Run(ctx, node, keys, fields...).Int()
}

// olderInstances returns the keys of the hashes of instances from before there were totals, as long as they
// are alive. Those that are dead it removes from the set of all.
func (l *Log) olderInstances(ctx context.Context, node redis.Cmdable) (keys []string, err error) {
	names, err := node.ZDiff(ctx, l.presence.instances(), l.presence.living()).Result()
	if err != nil {
		return nil, err
	}
	for _, instance := range names {
		key := l.presence.key(instance)
		alive, err := node.Exists(ctx, key).Result()
		if err == nil && alive == 0 {
			err = node.SRem(ctx, l.presence.instances(), instance).Err()
		}
		if err != nil {
			return nil, err
		}
		if alive > 0 {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// elsewhereLua begins scripts that ask how many clients the other instances have told at some fields. It
// raises no error: what is no number counts for none.
const elsewhereLua = `
local function number(n)
	n = tonumber(n or 0)
	return n and n > 0 and n < 1e9 and math.floor(n) or 0
end
local function elsewhere(own, totals, ...)
	local mine, all = redis.pcall('HMGET', own, ...), redis.pcall('HMGET', totals, ...)
	local clients = 0
	for i = 1, all.err and 0 or select('#', ...) do
		clients = clients + math.max(0, number(all[i]) - number(mine[i]))
	end
	return clients
end
local function toldBefore(from, to, field) -- by instances from before there were totals, with these keys
	local clients = 0
	for i = from, to do
		local n = redis.pcall('HGET', KEYS[i], field)
		clients = clients + (type(n) == 'table' and 0 or number(n))
	end
	return clients
end
`

// clientsScript returns how many clients other instances have at some fields.
//
// KEYS: the hash of the instance that asks, the totals, the hashes of older instances.
//
// ARGV: the fields.
var clientsScript = redis.NewScript(elsewhereLua + `
local clients = elsewhere(KEYS[1], KEYS[2], unpack(ARGV))
for _, field in ipairs(ARGV) do clients = clients + toldBefore(3, #KEYS, field) end
return clients
`)
