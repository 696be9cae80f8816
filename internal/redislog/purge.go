package redislog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// A purge is an entry of the log: every instance comes to it, even one that was cut off meanwhile, and removes what it
// keeps. Only then are entries deleted from the stream. An entry with several addresses stays until the last of them
// is purged; the hash of purges tells which are. Redis has no way to change an entry.

// purgeChunk is how many entries one call looks at.
const purgeChunk = 500

// Purge implements broker.Purger.
func (l *Log) Purge(ctx context.Context, p hub.Purge) error {
	began, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	if err := l.awaitJoined(began); err != nil {
		return err
	}
	if !l.replica.LogInReach() || !l.catchUp(began) {
		return broker.ErrUnavailable
	}
	at := l.replica.Position()
	p.Until = at.Position
	newest, err := l.walk(ctx, p, false)
	if err != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	switch {
	case newest != "":
	case l.keepsAny(p):
		newest = entryID(p.Until) // what is held beside the stream
	default:
		return nil // the log has nothing for these addresses
	}
	id, err := l.appendPurge(ctx, p, at.Epoch, newest)
	switch {
	case errors.Is(err, errLogChanged), err != nil && !mayHaveBeenSent(err):
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	case err != nil:
		return fmt.Errorf("%w: %w", broker.ErrUnknownOutcome, err)
	}
	if err := l.awaitRead(ctx, id); err != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnknownOutcome, err)
	}
	l.releaseHeld()
	if _, err := l.walk(ctx, p, true); err != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnknownOutcome, err)
	}
	return nil
}

// keepsAny reports whether the replica keeps something for one of the topics.
func (l *Log) keepsAny(p hub.Purge) bool {
	return slices.ContainsFunc(p.To, func(to hub.Address) bool {
		return to.Kind == hub.ToTopic && len(l.replica.ListMessages(to.Name, 1)) > 0
	})
}

// targetsOf returns the addresses of a purge as the scripts have them.
func targetsOf(p hub.Purge) (targets []any) {
	for _, to := range p.To {
		name, value := targetField(to)
		targets = append(targets, fmt.Sprint(name, ":", value))
	}
	return targets
}

// walk goes through the log, and returns the ID of the newest entry that a purge is about; empty if there is none. Once
// the purge stands in the log, it deletes the entries of which nothing is left.
func (l *Log) walk(ctx context.Context, p hub.Purge, purged bool) (newest string, err error) {
	targets := targetsOf(p)
	for from := "-"; from != ""; {
		node, err := l.node(ctx, l.publishing)
		if err != nil {
			return "", err
		}
		args := append([]any{purged, from, entryID(p.Until), purgeChunk, p.Key}, targets...)
		call, cancel := context.WithTimeout(ctx, l.Timeout)
		reply, err := purgeScript.Run(call, node, []string{l.logKey, l.purgedKey}, args...).StringSlice()
		cancel()
		if err == nil && len(reply) != 2 {
			err = errUnexpectedReply
		}
		if err != nil {
			refresh(ctx, l.publishing)
			return "", err
		}
		if from = reply[0]; reply[1] != "" {
			newest = reply[1]
		}
	}
	return newest, nil
}

// appendPurge puts a purge into the log, and returns its position.
func (l *Log) appendPurge(ctx context.Context, p hub.Purge, epoch, newest string) (id hub.Position, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return id, fmt.Errorf("%w: %w", errLogChanged, err)
	}
	args := []any{epoch, entryID(p.Until), p.Key, len(p.To)}
	args = append(args, targetsOf(p)...)
	args = append(args, "purge", entryID(p.Until), "newest", newest)
	for _, to := range p.To {
		name, value := targetField(to)
		args = append(args, name, value)
	}
	if p.Key != "" {
		args = append(args, "key", p.Key)
	}
	reply, err := appendPurgeScript.Run(ctx, node, []string{l.logKey, l.purgedKey, l.epochKey}, args...).Text()
	switch {
	case errors.Is(err, redis.Nil):
		return id, errLogChanged
	case err != nil:
		return id, err
	}
	return parseEntryID(reply)
}

// awaitRead waits until this instance has read the log up to a position.
func (l *Log) awaitRead(ctx context.Context, p hub.Position) error {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	for p.After(l.replica.Position().Position) {
		select {
		case <-time.After(catchUpEvery):
		case <-ctx.Done():
			return ctx.Err()
		case <-l.context.Done():
			return l.context.Err()
		}
	}
	return nil
}

// purgedLua has what both scripts know of the hash of purges. A field is an address, or an address, a line feed and a
// key; its value is up to which entry messages are purged, and the entry that says so.
const purgedLua = `
local function notAfter(a, b)
	local ams, aseq = string.match(a, '^(%d+)-(%d+)$')
	local bms, bseq = string.match(b, '^(%d+)-(%d+)$')
	local function compare(x, y)
		if #x ~= #y then return #x - #y end
		if x == y then return 0 end
		return x < y and -1 or 1
	end
	local ms = compare(ams, bms)
	return ms < 0 or ms == 0 and compare(aseq, bseq) <= 0
end
local function covered(value, id)
	return value and notAfter(id, string.match(value, '^%S+'))
end
local function purged(target, key, id)
	local values = redis.call('HMGET', KEYS[2], target, target .. '\n' .. key)
	return covered(values[1], id) or key ~= '' and covered(values[2], id)
end
`

// purgeScript looks at some entries for those that a purge is about.
//
// KEYS: the log, the purges.
//
// ARGV: whether to delete entries without an address that is not purged, the first entry, the last, how many at most,
// the key of the purge or nothing, its addresses.
//
// It returns where to go on, or nothing, and the newest entry that is still there for one of the addresses.
var purgeScript = redis.NewScript(purgedLua + `
local wanted, newest, next = {}, '', ''
for i = 6, #ARGV do wanted[ARGV[i]] = true end
local entries = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
for _, entry in ipairs(entries) do
	local id, fields, targets, key, concerned, marker = entry[1], entry[2], {}, '', false, false
	for i = 1, #fields, 2 do
		local name, value = fields[i], fields[i + 1]
		if name == 'key' then key = value end
		if name == 'purge' then marker = true end
		if name == 'topic' or name == 'client_id' or name == 'user' then
			targets[#targets + 1] = name .. ':' .. value
			concerned = concerned or wanted[name .. ':' .. value]
		end
	end
	if concerned and not marker and (ARGV[5] == '' or ARGV[5] == key) then
		local left = 0
		for _, target in ipairs(targets) do
			if not purged(target, key, id) then
				left = left + 1
				if wanted[target] then newest = id end
			end
		end
		if left == 0 and ARGV[1] == '1' then redis.call('XDEL', KEYS[1], id) end
	end
	next = '(' .. id
end
if #entries < tonumber(ARGV[4]) then next = '' end
return {next, newest}
`)

// appendPurgeScript puts a purge into the log, unless that has another name by now. It forgets some purges of what the
// log no longer has.
//
// KEYS: the log, the purges, the epoch.
//
// ARGV: the name of the log, the last entry that goes, the key or nothing, the number of addresses and these; the
// fields of the entry.
var appendPurgeScript = redis.NewScript(purgedLua + `
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return false end
local first, addresses = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1], tonumber(ARGV[4])
local id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(ARGV, 5 + addresses))
if not id then return false end
if first then
	local some = redis.call('HRANDFIELD', KEYS[2], 2 * addresses + 2, 'WITHVALUES')
	for i = 1, #some, 2 do
		if some[i] ~= 'newest' and not notAfter(first[1], string.match(some[i + 1], '^%S+')) then
			redis.call('HDEL', KEYS[2], some[i])
		end
	end
end
for i = 5, 4 + addresses do
	local field = ARGV[i]
	if ARGV[3] ~= '' then field = field .. '\n' .. ARGV[3] end
	redis.call('HSET', KEYS[2], field, ARGV[2] .. ' ' .. id)
end
redis.call('HSET', KEYS[2], 'newest', ARGV[2] .. ' ' .. id)
return id
`)

// purgeEntry is a purge as it stands in the log.
type purgeEntry struct {
	hub.Purge
	newest hub.Position // the newest message that it is about
}

// isPurge reports whether an entry is a purge rather than a message.
func (e entry) isPurge() bool {
	for i := 0; i+1 < len(e.fields); i += 2 {
		if e.fields[i] == "purge" {
			return true
		}
	}
	return false
}

// purge returns the purge in an entry.
func (e entry) purge() (p purgeEntry, err error) {
	var fields []string // those that a message has as well
	for i := 0; i+1 < len(e.fields); i += 2 {
		switch name, value := e.fields[i], e.fields[i+1]; name {
		case "purge":
			p.Until, err = parseEntryID(value)
		case "newest":
			p.newest, err = parseEntryID(value)
		default:
			fields = append(fields, name, value)
		}
		if err != nil {
			return p, err
		}
	}
	m, err := entry{e.position, append(fields, "data", "")}.message(time.Time{})
	if err != nil {
		return p, err
	}
	p.To, p.Key = m.To, m.Key
	if p.Until.After(e.position) {
		return p, errors.New("a purge of what comes behind it")
	}
	return p, p.Check()
}

// takePurge has the replica do what a purge in the log says. Entries may have been deleted before this instance has
// read them. Clients that are here are told a gap then.
func (t *tail) takePurge(p purgeEntry, at hub.Position, live bool) {
	t.replica.Purge(p.Purge)
	if missed := p.newest.After(t.intact); missed || !live {
		for _, to := range p.To {
			t.replica.Forget(to, p.newest)
		}
		if missed && live {
			t.replica.Miss(p.To)
		}
	}
	t.replica.Advance(at)
}

// newestPurge returns the entry of a purge by a value of the hash of purges, which names the last entry that the purge
// is about first.
func newestPurge(value string) (at hub.Position) {
	_, entry, _ := strings.Cut(value, " ")
	at, err := parseEntryID(entry)
	if err != nil {
		return hub.Position{}
	}
	return at
}

// readPurge returns the newest purge, if the log has it: then it is the log that was purged, and not another one.
// trimmed says that the log may no longer have it.
func (t *tail) readPurge(ctx context.Context, node redis.Cmdable) (at hub.Position, trimmed bool, err error) {
	value, err := node.HGet(ctx, t.purgedKey, "newest").Result()
	if errors.Is(err, redis.Nil) {
		return hub.Position{}, false, nil
	}
	if err != nil {
		return hub.Position{}, false, err
	}
	at = newestPurge(value)
	entries, err := rangeOf(ctx, node, t.logKey, entryID(at), 1)
	if err != nil {
		return hub.Position{}, false, err
	}
	there := slices.ContainsFunc(entries, func(e entry) bool { return e.position == at && e.isPurge() })
	return at, !there, nil
}
