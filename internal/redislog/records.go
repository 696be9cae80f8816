package redislog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/broker"
)

// The record of an idempotency key is a string, as [broker.Record] writes it. publishScript reads and writes
// it with the messages that it is of, by the same rules as that type. What the records of a hub hold is
// counted by the minute in which they were written, since they go by themselves.

// recordPlace returns what publishScript must know of a message's place in its request; "" without a key.
func recordPlace(p *broker.Publication) string {
	if p.Key == "" {
		return ""
	}
	streamed, before := "0", "-"
	if p.Streamed {
		streamed, before = "1", hex.EncodeToString(p.Before[:])
	}
	return strconv.Itoa(p.Index) + " " + streamed + " " + before + " " + hex.EncodeToString(p.Fingerprint[:])
}

// recordsLua is the part of publishScript that knows records. KEYS[3] has the numbers of bytes, if there are
// any keys. ARGV[2] is how long records are kept, in ms, and ARGV[6] how many bytes they may hold.
const recordsLua = `
local records, replies = {}, {} -- records by key
local function failed(reply) return type(reply) == 'table' and reply.err end
local function stride(count)
	local distance = 1
	while math.floor((count - 1) / distance) > 64 do distance = distance * 2 end
	return distance
end
local function marked(r) return #r.marks == math.floor((r.count - 1) / stride(r.count)) * 16 end
local function text(r)
	local receipts = r.receipts .. table.concat(r.more)
	return r.count .. ' ' .. r.fingerprint .. ' ' .. (r.marks == '' and '-' or r.marks) .. receipts
end
local function place(argument)
	local index, streamed, before, fingerprint = string.match(argument, '^(%d+) (%d) (%S+) (%x+)$')
	return {index = tonumber(index), streamed = streamed == '1', before = before, fingerprint = fingerprint}
end
-- record returns the record of a key, or an error.
local function record(key)
	if records[key] then return records[key] end
	local kept = redis.pcall('GET', key)
	if failed(kept) then return kept end
	local r = {key = key, size = 0, count = 0, fingerprint = '', marks = '', receipts = '', more = {}}
	r.replies = {} -- indexes of the replies to messages that are not saved yet
	if kept then
		local count, fingerprint, marks, receipts = string.match(kept, '^(%d+) (%x+) (%S+)(.*)$')
		if not count then return {err = 'the record of an idempotency key is damaged'} end
		r.size, r.count, r.fingerprint, r.receipts = #kept, tonumber(count), fingerprint, receipts
		if marks ~= '-' then r.marks = marks end
	end
	records[key] = r
	return r
end
-- known says whether a message is new, or was published before, or belongs to another request.
local function known(r, p)
	local following, same = r.count - 1 - p.index, true
	if r.count == 0 then return 'new' end
	if not p.streamed or following == 0 then
		same = p.fingerprint == r.fingerprint
	elseif following < 0 then
		same = following == -1 and p.before == r.fingerprint
	else
		local number, distance = p.index + 1, stride(r.count)
		if marked(r) and number % distance == 0 then
			local at = (number / distance - 1) * 16
			same = string.sub(r.marks, at + 1, at + 16) == string.sub(p.fingerprint, 1, 16)
		end
	end
	if not same then return 'conflict' end
	return following < 0 and 'new' or 'again'
end
-- add notes a new message with its receipt.
local function add(r, p, id, receivers)
	if not p.streamed then
		r.more[#r.more + 1] = ' ' .. id .. ' ' .. receivers
	else
		if r.count > 0 and r.count == p.index and marked(r) then
			local distance = stride(r.count + 1)
			if distance ~= stride(r.count) then -- every other mark goes
				r.marks = string.gsub(r.marks, string.rep('.', 16) .. '(' .. string.rep('.', 16) .. ')', '%1')
			end
			if r.count % distance == 0 then r.marks = r.marks .. string.sub(r.fingerprint, 1, 16) end
		end
		if id == '-' then id = string.match(r.receipts, '^ (%S+)') or '-' end
		r.receipts = ' ' .. id .. ' ' .. receivers
	end
	r.count, r.fingerprint, r.changed, r.told = p.index + 1, p.fingerprint, true, nil
end
-- held returns how many bytes the records of the hub hold. Each of 12 fields has a minute and its bytes.
local minutes, bytes, second = nil, 0, 0
local function held()
	if minutes then return bytes end
	local time = redis.pcall('TIME')
	minutes, second = {}, failed(time) and 0 or tonumber(time[1])
	local fields = redis.pcall('HMGET', KEYS[3], 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
	for i = 1, 12 do
		local minute, n = string.match(fields[i] or '', '^(%d+) (%d+)$')
		local age = minute and math.floor(second / 60) - minute
		if age and age >= 0 and age < 12 then
			minutes[tonumber(minute)] = tonumber(n)
			bytes = bytes + n
		end
	end
	return bytes
end
local function count(at, n)
	if second == 0 then return end -- this user may not ask for the time
	local minute = math.floor(at / 60)
	minutes[minute] = math.max(0, (minutes[minute] or 0) + n)
	redis.pcall('HSET', KEYS[3], minute % 12, string.format('%d %d', minute, minutes[minute]))
	redis.pcall('PEXPIRE', KEYS[3], ARGV[2] + 120000)
end
-- save writes a record. It returns an error, or nil. After an error nobody knows what became of the messages
-- whose replies the record still has.
local function save(r)
	local overhead, now = #r.key + 128, text(r)
	held()
	if r.size > 0 then
		local left = redis.pcall('PTTL', r.key)
		if not failed(left) and left > 0 then count(second - (ARGV[2] - left) / 1000, -r.size - overhead) end
	end
	local done = redis.pcall('SET', r.key, now, 'PX', ARGV[2])
	if failed(done) then
		for _, n in ipairs(r.replies) do replies[n] = 'unknown ' .. done.err end
		return done
	end
	count(second, #now + overhead)
	r.size, r.changed, r.replies = #now, nil, {}
end
`

// CheckKeys implements broker.Log.
func (l *Log) CheckKeys(ctx context.Context, batch []*broker.Publication) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	stored, err := l.readRecords(ctx, batch)
	if err != nil {
		return 0, err
	}
	for i, p := range batch {
		if p.Key == "" {
			continue
		}
		record, err := parseReply(stored[p.Key])
		if err != nil {
			refresh(ctx, l.publishing)
			return i, err
		}
		unanswered := *p // Find may fill in the copy's answer; p gets its own when it is published
		if _, err := p.Record(record).Find(&unanswered); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// readRecords asks for the records of the keys of a batch. Each reply has an error of its own.
func (l *Log) readRecords(
	ctx context.Context, batch []*broker.Publication,
) (byKey map[string]*redis.StringCmd, err error) {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	byKey = make(map[string]*redis.StringCmd)
	pipe := node.Pipeline()
	for _, p := range batch {
		if p.Key != "" && byKey[p.Key] == nil {
			byKey[p.Key] = pipe.Get(ctx, l.idemKey+p.Key)
		}
	}
	err = l.within(ctx, func() error {
		_, _ = pipe.Exec(ctx)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	return byKey, nil
}

// parseReply returns the record that Redis has replied; nil if there is none.
func parseReply(reply *redis.StringCmd) (*broker.Record, error) {
	text, err := reply.Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err == nil {
		var r *broker.Record
		if r, err = broker.ParseRecord(text); err == nil {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}

// keepEarlier stores the records that messages bring of the log before, unless Redis has some that go as far.
func (l *Log) keepEarlier(ctx context.Context, batch []*broker.Publication) error {
	var done string
	for _, p := range batch {
		if p.Earlier == nil || p.Key == done {
			continue
		}
		node, err := l.node(ctx, l.publishing)
		if err != nil {
			return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
		}
		err = l.within(ctx, func() error {
			return keepScript.Run(ctx, node, []string{l.idemKey + p.Key},
				p.Earlier.AppendText(nil), broker.IdempotencyPeriod.Milliseconds()).Err()
		})
		if err != nil {
			refresh(ctx, l.publishing)
			return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
		}
		done = p.Key
	}
	return nil
}

// keepScript stores a record, unless there is one of as many messages.
//
// KEYS: the idempotency key.
//
// ARGV: the record, how long it is kept in ms.
var keepScript = redis.NewScript(`
local function count(text) return tonumber(string.match(text or '', '^%d+') or 0) end
if count(redis.call('GET', KEYS[1])) < count(ARGV[1]) then
	redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
`)

// Records implements broker.Rememberer. Redis is asked for them when they are needed: other instances may
// still add some.
func (l *Log) Records() broker.Records {
	if !l.joined.Load() || !l.replica.LogUp() {
		return nil
	}
	return leftRecords{Open(l.hubName, l.Options)}
}

// leftRecords are the records of a log that the hub has left, read by a log that is never started.
type leftRecords struct{ *Log }

// Find implements broker.Records.
func (l leftRecords) Find(ctx context.Context, key string) (*broker.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	replies, err := l.readRecords(ctx, []*broker.Publication{{Key: key}})
	if err != nil {
		return nil, err
	}
	return parseReply(replies[key])
}
