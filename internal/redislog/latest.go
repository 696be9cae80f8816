package redislog

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Where a policy keeps the newest message of each topic and key, that message is held beside the stream, so that
// trimming the stream does not lose it. A hash has the entry ID of the newest by topic and key, and by entry ID the
// message, with the number of topics that it is the newest of.
//
// publishScript holds what it publishes, in the same step. What other programs add is held by the instances that
// read it, within holdEvery. An instance that starts restores what is held from before the stream. Whatever a hub
// stops keeping, because of its age or of history_bytes, is taken out again.

// heldField returns the field that names the newest message of a topic and key. Neither has line ends.
func heldField(topic, key string) string { return "t" + topic + "\n" + key }

// heldFields returns the fields under which a message is to be held; none for most.
func (l *Log) heldFields(m *hub.Message) (fields []string) {
	if m.Ephemeral {
		return nil
	}
	for _, to := range m.To {
		if to.Kind == hub.ToTopic && l.replica.KeepsLatest(to.Name) {
			if field := heldField(to.Name, m.Key); !slices.Contains(fields, field) {
				fields = append(fields, field)
			}
		}
	}
	return fields
}

// heldLua is the part of scripts that knows what is held. None of it raises an error.
const heldLua = `
local function drop(latest, id) -- for one of its topics
	local held = redis.pcall('HGET', latest, 'm' .. id)
	if type(held) ~= 'string' then return end
	local topics, message = string.match(held, '^(%d+) (.*)$')
	if not topics or tonumber(topics) <= 1 then
		redis.pcall('HDEL', latest, 'm' .. id)
	else
		redis.pcall('HSET', latest, 'm' .. id, (topics - 1) .. ' ' .. message)
	end
end
local function hold(latest, field, id, message)
	local old = redis.pcall('HGET', latest, field)
	if type(old) == 'table' or old == id then return end
	local held = redis.pcall('HGET', latest, 'm' .. id)
	local topics, text = string.match(type(held) == 'string' and held or '', '^(%d+) (.*)$')
	redis.pcall('HSET', latest, field, id, 'm' .. id, (topics or 0) + 1 .. ' ' .. (text or message()))
	if old then drop(latest, old) end
end
`

// holdScript holds messages that are newer than what is held.
//
// KEYS: what is held.
//
// ARGV: for each message its field, its entry ID, and the message.
var holdScript = redis.NewScript(heldLua + `
local function after(a, b)
	local am, as = string.match(a, '^(%d+)-(%d+)$')
	local bm, bs = string.match(b, '^(%d+)-(%d+)$')
	local x, y = am, bm
	if am == bm then x, y = as, bs end
	return #x > #y or #x == #y and x > y
end
for i = 1, #ARGV, 3 do
	local old = redis.call('HGET', KEYS[1], ARGV[i])
	if not old or after(ARGV[i + 1], old) then
		hold(KEYS[1], ARGV[i], ARGV[i + 1], function() return ARGV[i + 2] end)
	end
end
`)

// releaseScript takes messages out that nothing has replaced so far.
//
// KEYS: what is held.
//
// ARGV: for each message its field and its entry ID.
var releaseScript = redis.NewScript(heldLua + `
for i = 1, #ARGV, 2 do
	if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
		redis.call('HDEL', KEYS[1], ARGV[i])
		drop(KEYS[1], ARGV[i + 1])
	end
end
`)

// readHeld returns what is held from after a position up to another, in order.
func (t *tail) readHeld(node redis.Cmdable, after, upTo hub.Position) (held []entry, err error) {
	if !upTo.After(after) {
		return nil, nil
	}
	for cursor := uint64(0); ; {
		ctx, cancel := context.WithTimeout(t.context, 2*t.Timeout)
		var some []string
		some, cursor, err = node.HScan(ctx, t.heldKey, cursor, "m*", scanCount).Result()
		cancel()
		if err != nil {
			return nil, err
		}
		for i := 0; i+1 < len(some); i += 2 {
			e, err := parseHeld(some[i], some[i+1])
			switch {
			case err != nil:
				t.noteMalformed(&t.malformed, t.heldKey+" "+some[i], err)
			case e.position.After(after) && !e.position.After(upTo):
				held = append(held, e)
			}
		}
		if cursor == 0 {
			break
		}
	}
	slices.SortFunc(held, func(a, b entry) int { return a.position.Compare(b.position) })
	// A scan may give the same twice.
	return slices.CompactFunc(held, func(a, b entry) bool { return a.position == b.position }), nil
}

// scanCount is how many fields one call reads, about: messages may be large.
const scanCount = 100

// parseHeld reads a message that is held.
func parseHeld(field, value string) (e entry, err error) {
	if e.position, err = parseEntryID(strings.TrimPrefix(field, "m")); err != nil {
		return e, err
	}
	_, message, _ := strings.Cut(value, " ")
	if err := json.Unmarshal([]byte(message), &e.fields); err != nil {
		return e, fmt.Errorf("reading what is held: %w", err)
	}
	return e, nil
}

// heldNotes are the newest entries of topics and keys that were read and may have to be held, by field.
type heldNotes struct {
	mu      sync.Mutex // guards entries
	entries map[string]entry
}

// noteHeld notes an entry that may have to be held.
func (l *Log) noteHeld(e entry, m *hub.Message) {
	fields := l.heldFields(m)
	if len(fields) == 0 {
		return
	}
	l.held.mu.Lock()
	defer l.held.mu.Unlock()
	if l.held.entries == nil {
		l.held.entries = make(map[string]entry)
	}
	for _, field := range fields {
		if known, ok := l.held.entries[field]; !ok || e.position.After(known.position) {
			l.held.entries[field] = e
		}
	}
}

// take returns the notes and forgets them.
func (n *heldNotes) take() map[string]entry {
	n.mu.Lock()
	defer n.mu.Unlock()
	entries := n.entries
	n.entries = nil
	return entries
}

// holdEvery is how often an instance sees to what is held.
const holdEvery = time.Second

// keepHeld holds what other programs have added, and takes out what the hub keeps no longer.
func (l *Log) keepHeld() {
	ticker := time.NewTicker(holdEvery)
	defer ticker.Stop()
	policies := l.replica.Limits().Policies
	for {
		select {
		case <-l.context.Done():
			return
		case <-ticker.C:
		}
		if now := l.replica.Limits().Policies; !reflect.DeepEqual(now, policies) && l.restock() == nil {
			policies = now
		}
		l.holdNoted()
		l.releaseHeld()
	}
}

// holdNoted holds what was noted, unless it is held already.
func (l *Log) holdNoted() {
	entries := l.held.take()
	fields := make([]string, 0, len(entries))
	for field, e := range entries {
		topic, key, _ := strings.Cut(strings.TrimPrefix(field, "t"), "\n")
		if l.replica.IsLatest(hub.Value{Topic: topic, Key: key, Position: e.position}) {
			fields = append(fields, field)
		}
	}
	for some := range slices.Chunk(fields, holdAtOnce) {
		if err := l.hold(some, entries); err != nil && l.context.Err() == nil {
			l.logFailure("holding the newest of topics failed", err)
			for _, field := range some { // for the next time
				l.held.again(field, entries[field])
			}
		}
	}
}

// holdAtOnce is how many messages one call looks for, or holds.
const holdAtOnce = 100

// again notes an entry again, unless there is a newer one.
func (n *heldNotes) again(field string, e entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.entries == nil {
		n.entries = make(map[string]entry)
	}
	if _, newer := n.entries[field]; !newer {
		n.entries[field] = e
	}
}

func (l *Log) hold(fields []string, entries map[string]entry) error {
	ctx, cancel := context.WithTimeout(l.context, 2*l.Timeout)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return err
	}
	held, err := node.HMGet(ctx, l.heldKey, fields...).Result()
	if err != nil {
		return err
	}
	var args []any
	for i, field := range fields {
		id, _ := held[i].(string)
		if p, err := parseEntryID(id); id != "" && err == nil && !entries[field].position.After(p) {
			continue
		}
		message, err := json.Marshal(entries[field].fields)
		if err != nil {
			return err
		}
		args = append(args, field, entryID(entries[field].position), message)
	}
	if len(args) == 0 {
		return nil
	}
	err = holdScript.Run(ctx, node, []string{l.heldKey}, args...).Err()
	if isNil(err) {
		return nil
	}
	return err
}

// releaseHeld takes out what the hub keeps no longer.
func (l *Log) releaseHeld() {
	for some := range slices.Chunk(l.replica.Released(), holdAtOnce) {
		var args []any
		for _, r := range some {
			args = append(args, heldField(r.Topic, r.Key), entryID(r.Position))
		}
		ctx, cancel := context.WithTimeout(l.context, 2*l.Timeout)
		node, err := l.node(ctx, l.publishing)
		if err == nil {
			err = releaseScript.Run(ctx, node, []string{l.heldKey}, args...).Err()
		}
		cancel()
		if err != nil && !isNil(err) { // the next instance that starts finds it too old, or too much, again
			l.logFailure("releasing what is too old failed", err)
		}
	}
}

// restock notes all that the stream has, since other policies hold.
func (l *Log) restock() error {
	from := "-"
	for {
		ctx, cancel := context.WithTimeout(l.context, 2*l.Timeout)
		node, err := l.node(ctx, l.publishing)
		var entries []entry
		if err == nil {
			entries, err = rangeOf(ctx, node, l.logKey, from, loadCount)
		}
		cancel()
		if err != nil {
			return err
		}
		for _, e := range entries {
			if m, err := e.message(time.Time{}); err == nil {
				l.noteHeld(e, m)
			}
		}
		if len(entries) < loadCount {
			return nil
		}
		from = "(" + entryID(entries[len(entries)-1].position)
	}
}

// isNil reports whether a script has given no reply.
func isNil(err error) bool { return err == redis.Nil } //nolint:errorlint // go-redis returns it bare
