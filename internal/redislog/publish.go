package redislog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

const (
	maxPending       = 4096    // batches that may wait for the next call
	maxCallAddresses = 512     // addresses of one call's messages, about: they decide what the call costs Redis
	maxCallBytes     = 1 << 20 // data bytes of one call's messages, about: they must come through in time
)

// pendingBatch is a batch on its way to Redis. It is small enough for one call.
type pendingBatch struct {
	batch   []*broker.Publication
	state   atomic.Int32         // waitingToBeSent, then either sent or abandoned
	answers []broker.Publication // copies of those that were published, with their answers
	err     error                // why not all were published
	done    chan struct{}        // closed when the two fields above are set
}

const (
	waitingToBeSent int32 = iota
	sent
	abandoned // the publisher has stopped waiting
)

// hasKey reports whether a message has an idempotency key.
func (p *pendingBatch) hasKey() bool {
	return slices.ContainsFunc(p.batch, func(m *broker.Publication) bool { return m.Key != "" })
}

// callLoad is how much of a call its messages take up.
type callLoad struct{ addresses, bytes int }

func (c *callLoad) add(m *broker.Publication) {
	c.addresses += len(m.To)
	c.bytes += len(m.Data)
}

func (c *callLoad) full() bool { return c.addresses >= maxCallAddresses || c.bytes >= maxCallBytes }

// Publish implements broker.Log. Requests that publish at the same time share a call to Redis. A single
// request does not wait for others, and a large one takes several calls.
func (l *Log) Publish(ctx context.Context, batch []*broker.Publication) (published int, err error) {
	for published < len(batch) && err == nil {
		var call callLoad
		end := published
		for end < len(batch) && !call.full() {
			call.add(batch[end])
			end++
		}
		var n int
		n, err = l.publishSome(ctx, batch[published:end])
		published += n
	}
	return published, err
}

// publishSome publishes a batch that fits into one call. It fails if that takes longer than Timeout.
func (l *Log) publishSome(ctx context.Context, batch []*broker.Publication) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	if err := l.awaitJoined(ctx); err != nil {
		return 0, err
	}
	if slices.ContainsFunc(batch, func(p *broker.Publication) bool { return p.Ephemeral }) {
		if err := l.awaitSubscription(ctx); err != nil {
			return 0, err
		}
	}
	if err := l.keepEarlier(ctx, batch); err != nil {
		return 0, err
	}
	p := &pendingBatch{batch: batch, done: make(chan struct{})}
	select {
	case l.queue <- p:
	case <-ctx.Done():
		return 0, broker.ErrUnavailable
	case <-l.context.Done():
		return 0, broker.ErrUnavailable
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		if p.state.CompareAndSwap(waitingToBeSent, abandoned) {
			return 0, broker.ErrUnavailable
		}
		return 0, broker.ErrUnknownOutcome
	}
	for i, answered := range p.answers {
		batch[i].Receipt, batch[i].Repeated = answered.Receipt, answered.Repeated
		batch[i].Following, batch[i].Unproven = answered.Following, answered.Unproven
	}
	return len(p.answers), p.err
}

// awaitJoined waits for the tail's first attempt to join the log, and fails if that failed. A message
// published before the tail has joined would count as history, and would not be sent to the clients that are
// already here.
func (l *Log) awaitJoined(ctx context.Context) error {
	select {
	case <-l.tried:
	case <-ctx.Done():
	case <-l.context.Done():
	}
	if !l.joined.Load() {
		return broker.ErrUnavailable
	}
	return nil
}

// publishPending publishes the batches that wait, one call at a time. During a call the next batches gather.
func (l *Log) publishPending() {
	for {
		select {
		case <-l.context.Done():
			l.abandonPending()
			return
		case first := <-l.queue:
			l.send(l.gather(first))
		}
	}
}

// gather returns a batch and those that wait behind it, as many as fit into a call. It leaves out abandoned
// ones.
func (l *Log) gather(first *pendingBatch) (pending []*pendingBatch) {
	var call callLoad
	next := first
	for {
		if next.state.CompareAndSwap(waitingToBeSent, sent) {
			pending = append(pending, next)
			for _, m := range next.batch {
				call.add(m)
			}
		}
		if call.full() {
			return pending
		}
		select {
		case next = <-l.queue:
		default:
			return pending
		}
	}
}

// abandonPending refuses the batches that still wait when the log is closed.
func (l *Log) abandonPending() {
	for {
		select {
		case p := <-l.queue:
			p.err = broker.ErrUnavailable
			close(p.done)
		default:
			return
		}
	}
}

// send publishes the batches with one call and answers each.
func (l *Log) send(pending []*pendingBatch) {
	if len(pending) == 0 {
		return
	}
	defer func() {
		for _, p := range pending {
			close(p.done)
		}
	}()
	// Publishers stop waiting on their own. This timeout is for the batches that wait behind the call.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.context), l.Timeout)
	defer cancel()
	replies, err := l.call(ctx, pending)
	if err != nil {
		refresh(ctx, l.publishing)
		for _, p := range pending {
			p.err = err
		}
		return
	}
	for _, p := range pending {
		l.settle(p, replies[:len(p.batch)])
		replies = replies[len(p.batch):]
	}
}

// call runs publishScript for the batches and returns its reply to each message.
func (l *Log) call(ctx context.Context, pending []*pendingBatch) ([]any, error) {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	p, others := l.presence, l.presence.hasOthers()
	keyed := slices.ContainsFunc(pending, (*pendingBatch).hasKey)
	keys := []string{l.logKey, l.epochKey} // no more than are needed: while a slot moves, all must be there
	if keyed {
		keys = append(keys, l.recordBytesKey)
	}
	if others {
		keys = append(keys, p.key(p.instance), p.totals)
	}
	holding := slices.ContainsFunc(pending, func(some *pendingBatch) bool {
		return slices.ContainsFunc(some.batch, func(m *broker.Publication) bool { return len(l.heldFields(m.Message)) > 0 })
	})
	if holding {
		keys = append(keys, l.heldKey)
	}
	_, cluster := l.publishing.(*redis.ClusterClient) // where this instance may be subscribed at another server
	args := make([]any, 0, 8+18*len(pending))         // enough for messages with one topic
	args = append(args, l.MaxLen, broker.IdempotencyPeriod.Milliseconds(), hub.NewEpoch(), others, !cluster,
		l.maxRecordBytes, keyed, holding)
	for i, some := range pending {
		for _, m := range some.batch {
			if m.Key != "" {
				keys = append(keys, l.idemKey+m.Key)
			}
			if args, err = l.appendMessage(args, i, m, holding); err != nil {
				return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
			}
		}
	}
	replies, err := publishScript.Run(ctx, node, keys, args...).Slice()
	switch {
	case err == nil:
		return replies, nil
	case mayHaveBeenSent(err):
		return nil, fmt.Errorf("%w: %w", broker.ErrUnknownOutcome, err)
	}
	return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}

// appendMessage appends the arguments of publishScript for one message. Unless holding, none is held.
func (l *Log) appendMessage(args []any, batch int, m *broker.Publication, holding bool) ([]any, error) {
	kind := "log"
	if m.Ephemeral {
		kind = "channel"
	}
	here := l.replica.Count(m.To) + l.presence.countPatterns(m.To)
	args = append(args, batch, kind, recordPlace(m), here, len(m.To))
	for _, to := range m.To {
		args = append(args, presenceField(to))
	}
	var held []string
	if holding { // else the policies may have changed since
		held = l.heldFields(m.Message)
	}
	args = append(args, len(held))
	for _, field := range held {
		args = append(args, field)
	}
	args = append(args, 0) // the number of fields
	before := len(args)
	if m.Ephemeral {
		payload, err := encodeChannelMessage(m.Message, l.hubName)
		if err != nil {
			return nil, fmt.Errorf("encoding the message: %w", err)
		}
		args = append(args, l.Channel, payload)
	} else {
		args = appendEntryFields(args, m.Message)
	}
	args[before-1] = len(args) - before
	return args, nil
}

// publishScript publishes messages in order. A message that was published before under its idempotency key is
// not published again. A message that is refused ends its batch, but not the others.
//
// KEYS: the log, the epoch; the bytes of records, if there are idempotency keys; the presence of this instance
// and the totals, if there are other instances; what is held, if something is to be; the idempotency keys.
//
// ARGV: max_len, how long records are kept in ms, an epoch for a new log, whether there are other instances,
// whether all subscribers of the channel are on this server, how many bytes records may hold, whether there
// are idempotency keys, whether something is to be held; then for each message its batch, "log" or "channel",
// its place in its request as recordPlace writes it, the number of receivers known already, its addresses, the
// fields under which it is held, and its own fields, each with their number before them.
//
// It returns for each message "<epoch> <entry ID or -> <receivers>", or "again" with the record of the key
// behind it, if this batch has not been told it yet, or why the message was not published. It must not raise
// an error once it has published something: the caller would take that for the outcome of the whole call.
var publishScript = redis.NewScript(recordsLua + elsewhereLua + heldLua + `
local epoch = redis.call('GET', KEYS[2])
local others, alone = ARGV[4] == '1', ARGV[5] == '1'
local own = ARGV[7] == '1' and 4 or 3
local key, arg, latest = others and own + 1 or own - 1, 9, nil
if ARGV[8] == '1' then
	key = key + 1
	latest = KEYS[key]
end
local refused = nil
local function rename()
	local renamed = redis.pcall('SET', KEYS[2], ARGV[3])
	if failed(renamed) then return renamed end
	epoch = ARGV[3]
end
local function append(...)
	local id = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[1], '*', ...)
	if id then return id end
	-- There is no log. A new one may give out the positions of an older one again, so it gets another name.
	if latest then redis.pcall('DEL', latest) end
	return rename() or redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', ...)
end
if not epoch then
	local problem = rename()
	if problem then return problem end
end
while arg <= #ARGV do
	local batch, kind, p, r, state = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], nil, 'new'
	local receivers, addresses = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 4])
	local address = arg + 5
	local holds = address + addresses + 1
	arg = holds + tonumber(ARGV[holds - 1])
	local first, last = arg + 1, arg + tonumber(ARGV[arg])
	arg = last + 1
	if p ~= '' then
		key = key + 1
		p, r = place(p), record(KEYS[key])
		state = failed(r) or known(r, p)
		if state == 'new' and held() >= tonumber(ARGV[6]) then state = 'full' end
	end
	local reply
	if batch == refused then
		reply = 'skipped'
	elseif r and failed(r) then
		reply, refused = 'error ' .. r.err, batch
	elseif state == 'again' then
		reply = 'again'
		if r.told ~= batch then reply, r.told = 'again ' .. text(r), batch end
	elseif state ~= 'new' then
		reply, refused = state, batch
	else
		if others then
			receivers = receivers + elsewhere(KEYS[own], KEYS[own + 1], unpack(ARGV, address, address + addresses - 1))
		end
		if kind == 'log' then
			local done = append(unpack(ARGV, first, last))
			if failed(done) then
				reply, refused = 'error ' .. done.err, batch
			else
				reply = epoch .. ' ' .. done .. ' ' .. receivers
				for i = holds, first - 2 do
					hold(latest, ARGV[i], done, function() return cjson.encode({unpack(ARGV, first, last)}) end)
				end
				if r then
					add(r, p, epoch .. '-' .. string.gsub(done, '%-0$', ''), receivers)
					r.replies[#r.replies + 1] = #replies + 1
				end
			end
		else
			-- The record goes first: PUBLISH would succeed even on a server that may not write.
			local before, done = r and r.count > 0 and text(r), nil
			if r then
				add(r, p, '-', receivers)
				done = save(r)
			end
			if not failed(done) then
				done = redis.pcall('PUBLISH', ARGV[first], ARGV[last])
				if done == 0 and alone then -- not even the instance that asks: it was cut off and has not noticed
					done = {err = 'nobody listens to the channel'}
				end
				if failed(done) and before then redis.pcall('SET', r.key, before, 'PX', ARGV[2]) end
				if failed(done) and r and not before then redis.pcall('DEL', r.key) end
			end
			if failed(done) then
				reply, refused = 'error ' .. done.err, batch
				if r then records[r.key] = nil end
			else
				reply = epoch .. ' - ' .. receivers
			end
		end
	end
	replies[#replies + 1] = reply
end
for _, r in pairs(records) do
	if r.changed then save(r) end
end
return replies
`)

// settle answers a batch by the replies to its messages.
func (l *Log) settle(p *pendingBatch, replies []any) {
	records := make(map[string]*broker.Record)
	for i, reply := range replies {
		text, _ := reply.(string)
		answered := *p.batch[i]
		if p.err = l.answer(&answered, text, records); p.err != nil {
			return
		}
		p.answers = append(p.answers, answered)
	}
}

// answer answers a message by the reply to it. The records are those that the replies to the batch have told.
func (l *Log) answer(m *broker.Publication, reply string, records map[string]*broker.Record) (err error) {
	first, rest, _ := strings.Cut(reply, " ")
	switch first {
	case "conflict":
		return broker.ErrKeyReused
	case "full":
		return broker.ErrKeysFull
	case "unknown": // the message is in the log, but its key has no record
		return fmt.Errorf("%w: redis: %s", broker.ErrUnknownOutcome, rest)
	case "error":
		if saysExhausted(rest) {
			l.noteRoom(false)
		}
		return fmt.Errorf("%w: redis: %s", broker.ErrUnavailable, rest)
	case "again":
		if rest != "" {
			if records[m.Key], err = broker.ParseRecord(rest); err != nil {
				return fmt.Errorf("%w: redis: %w", broker.ErrUnavailable, err)
			}
		}
		_, err = m.Record(records[m.Key]).Find(m)
		return err
	}
	at, receivers, _ := strings.Cut(rest, " ")
	if m.Receipt.Receivers, err = strconv.Atoi(receivers); err != nil {
		return fmt.Errorf("%w: redis: %s", broker.ErrUnavailable, reply)
	}
	if at == "-" {
		return nil
	}
	id := hub.ID{Epoch: first}
	if id.Position, err = parseEntryID(at); err != nil {
		return fmt.Errorf("%w: redis: %s", broker.ErrUnavailable, reply)
	}
	m.Receipt.ID = id.String()
	l.acked.add(id)
	l.noteRefusal(nil)
	return nil
}

// mayHaveBeenSent reports whether a command that failed with this error may have been carried out
// nevertheless.
func mayHaveBeenSent(err error) bool {
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "dial" {
		return false
	}
	var timeout net.Error
	return errors.As(err, &network) || errors.As(err, &timeout) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
