package redislog

import (
	"context"
	"encoding/hex"
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
	batch    []*broker.Publication
	state    atomic.Int32     // waitingToBeSent, then either sent or abandoned
	receipts []broker.Receipt // answers to the messages that were published
	repeated []bool           // whether each had been published before
	err      error            // why not all were published
	done     chan struct{}    // closed when the three fields above are set
}

const (
	waitingToBeSent int32 = iota
	sent
	abandoned // the publisher has stopped waiting
)

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
	for i, receipt := range p.receipts {
		batch[i].Receipt, batch[i].Repeated = receipt, p.repeated[i]
	}
	return len(p.receipts), p.err
}

// CheckKeys implements broker.Log.
func (l *Log) CheckKeys(ctx context.Context, batch []*broker.Publication) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	pipe, answers := node.Pipeline(), make([]*redis.StringCmd, len(batch))
	for i, p := range batch {
		if p.Key != "" {
			answers[i] = pipe.Get(ctx, l.idemKey+p.Key)
		}
	}
	err = l.within(ctx, func() error {
		_, _ = pipe.Exec(ctx) // each command has its own error
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	for i, answer := range answers {
		switch {
		case answer == nil || errors.Is(answer.Err(), redis.Nil):
		case answer.Err() != nil:
			refresh(ctx, l.publishing)
			return i, fmt.Errorf("%w: %w", broker.ErrUnavailable, answer.Err())
		case !strings.HasPrefix(answer.Val(), hex.EncodeToString(batch[i].Fingerprint[:])):
			return i, broker.ErrKeyReused
		}
	}
	return len(batch), nil
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
	p := l.presence
	keys := []string{l.logKey, l.epochKey, p.key(p.instance), p.totals}
	_, cluster := l.publishing.(*redis.ClusterClient) // where this instance may be subscribed at another server
	args := make([]any, 0, 5+16*len(pending))         // enough for messages with one topic
	args = append(args,
		l.MaxLen, broker.IdempotencyPeriod.Milliseconds(), hub.NewEpoch(), !p.alone(), !cluster)
	for i, some := range pending {
		for _, m := range some.batch {
			if m.Key != "" {
				keys = append(keys, l.idemKey+m.Key)
			}
			if args, err = l.appendMessage(args, i, m); err != nil {
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

// appendMessage appends the arguments of publishScript for one message.
func (l *Log) appendMessage(args []any, batch int, m *broker.Publication) ([]any, error) {
	kind := "log"
	if m.Ephemeral {
		kind = "channel"
	}
	keyed, fingerprint := 0, ""
	if m.Key != "" {
		keyed, fingerprint = 1, hex.EncodeToString(m.Fingerprint[:])
	}
	here := l.replica.Count(m.To) + l.presence.countPatterns(m.To)
	args = append(args, batch, kind, keyed, fingerprint, here, len(m.To))
	for _, to := range m.To {
		args = append(args, presenceField(to))
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

// publishScript publishes messages in order. A message whose idempotency key has an answer gets that answer
// again. A message that is refused ends its batch, but not the others.
//
// KEYS: the log, the epoch, the presence of this instance, the totals, the idempotency keys.
//
// ARGV: max_len, how long answers are kept in ms, an epoch for a new log, whether there are other
// instances, whether all subscribers of the channel are on this server; then for each message its batch,
// "log" or "channel", whether it has a key, its fingerprint, the number of receivers known already, its
// addresses and its fields, both with their number before them.
//
// It returns for each message "<epoch> <entry ID or -> <receivers>", with " again" behind an answer of
// before, or why the message was not published. It must not raise an error once it has published something:
// the caller would take that for the outcome of the whole call.
var publishScript = redis.NewScript(elsewhereLua + `
local epoch = redis.call('GET', KEYS[2])
local others, alone = ARGV[4] == '1', ARGV[5] == '1'
local key, arg = 4, 6
local replies, refused = {}, nil
local function failed(reply) return type(reply) == 'table' and reply.err end
local function rename()
	local renamed = redis.pcall('SET', KEYS[2], ARGV[3])
	if failed(renamed) then return renamed end
	epoch = ARGV[3]
end
local function append(...)
	local id = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[1], '*', ...)
	if id then return id end
	-- There is no log. A new one may give out the positions of an older one again, so it gets another name.
	return rename() or redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', ...)
end
if not epoch then
	local problem = rename()
	if problem then return problem end
end
while arg <= #ARGV do
	local batch, kind, keyed, fingerprint = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
	local receivers, addresses = tonumber(ARGV[arg + 4]), tonumber(ARGV[arg + 5])
	local address = arg + 6
	arg = address + addresses
	local first, last = arg + 1, arg + tonumber(ARGV[arg])
	arg = last + 1
	local kept = false
	if keyed == '1' then
		key = key + 1
		kept = redis.pcall('GET', KEYS[key])
	end
	local reply
	if batch == refused then
		reply = 'skipped'
	elseif failed(kept) then
		reply, refused = 'error ' .. kept.err, batch
	elseif kept and string.sub(kept, 1, #fingerprint) == fingerprint then
		reply = string.sub(kept, #fingerprint + 2) .. ' again'
	elseif kept then
		reply, refused = 'conflict', batch
	else
		if others then
			receivers = receivers + elsewhere(KEYS[3], KEYS[4], unpack(ARGV, address, address + addresses - 1))
		end
		local function answered(at)
			reply = epoch .. ' ' .. at .. ' ' .. receivers
			return keyed == '0' or redis.pcall('SET', KEYS[key], fingerprint .. ' ' .. reply, 'PX', ARGV[2])
		end
		if kind == 'log' then
			local done = append(unpack(ARGV, first, last))
			local stored = not failed(done) and answered(done)
			if failed(done) then
				reply, refused = 'error ' .. done.err, batch
			elseif failed(stored) then
				reply, refused = 'unknown ' .. stored.err, batch
			end
		else
			-- The key goes first: PUBLISH would succeed even on a server that may not write.
			local done = answered('-')
			if not failed(done) then
				done = redis.pcall('PUBLISH', ARGV[first], ARGV[last])
				if done == 0 and alone then -- not even the instance that asks: it was cut off and has not noticed
					done = {err = 'nobody listens to the channel'}
				end
				if failed(done) and keyed == '1' then redis.pcall('DEL', KEYS[key]) end
			end
			if failed(done) then
				reply, refused = 'error ' .. done.err, batch
			end
		end
	end
	replies[#replies + 1] = reply
end
return replies
`)

// settle answers a batch by the replies to its messages.
func (l *Log) settle(p *pendingBatch, replies []any) {
	for _, reply := range replies {
		text, _ := reply.(string)
		first, rest, _ := strings.Cut(text, " ")
		switch first {
		case "conflict":
			p.err = broker.ErrKeyReused
			return
		case "unknown": // the message is in the log, but its key has no answer
			p.err = fmt.Errorf("%w: redis: %s", broker.ErrUnknownOutcome, rest)
			return
		case "error":
			if saysExhausted(rest) {
				l.noteRoom(false)
			}
			p.err = fmt.Errorf("%w: redis: %s", broker.ErrUnavailable, rest)
			return
		}
		at, rest, _ := strings.Cut(rest, " ")
		receivers, _, repeated := strings.Cut(rest, " ")
		var receipt broker.Receipt
		receipt.Receivers, p.err = strconv.Atoi(receivers)
		if at != "-" && p.err == nil {
			id := hub.ID{Epoch: first}
			id.Position, p.err = parseEntryID(at)
			receipt.ID = id.String()
			if !repeated && p.err == nil {
				l.acked.add(id)
				l.noteRefusal(nil)
			}
		}
		if p.err != nil {
			p.err = fmt.Errorf("%w: redis: %s", broker.ErrUnavailable, text)
			return
		}
		p.receipts = append(p.receipts, receipt)
		p.repeated = append(p.repeated, repeated)
	}
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
