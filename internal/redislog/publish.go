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

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/redis/go-redis/v9"
)

const (
	maxPending       = 4096    // batches that may wait for the next call
	maxCallAddresses = 512     // addresses of one call's messages, about: they are what it costs Redis
	maxCallBytes     = 1 << 20 // data of one call's messages, about: it has to come through in time
)

// pendingPublish is a batch on its way to Redis, small enough for one call.
type pendingPublish struct {
	batch []*broker.Publication
	// state is decided once: either the batch is sent, or its publisher has stopped waiting.
	state    atomic.Int32
	receipts []broker.Receipt // of the messages that were published
	repeated []bool           // whether each had been before
	err      error            // why not all were
	done     chan struct{}
}

const (
	waitingToBeSent int32 = iota
	sent
	abandoned
)

// callLoad is how much of a call messages take up.
type callLoad struct{ addresses, bytes int }

func (c *callLoad) add(m *broker.Publication) {
	c.addresses += len(m.To)
	c.bytes += len(m.Data)
}

func (c *callLoad) full() bool { return c.addresses >= maxCallAddresses || c.bytes >= maxCallBytes }

// Publish implements Broker. What many requests publish at the same time goes to Redis in one call; a
// lone one waits for nobody, and a large one goes in several.
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

// publishSome publishes what fits into one call, or fails in time.
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
	p := &pendingPublish{batch: batch, done: make(chan struct{})}
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

// awaitJoined waits for the tail's first attempt to join the log. What was published before it has would count as
// kept from before, and pass by the clients that are here already.
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

// publishPending sends what waits, one call at a time: while one is under way, the next gathers.
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

// gather takes what else waits by now.
func (l *Log) gather(p *pendingPublish) (requests []*pendingPublish) {
	var call callLoad
	for {
		if p.state.CompareAndSwap(waitingToBeSent, sent) {
			requests = append(requests, p)
			for _, m := range p.batch {
				call.add(m)
			}
		}
		if call.full() {
			return requests
		}
		select {
		case p = <-l.queue:
		default:
			return requests
		}
	}
}

// abandonPending answers those that came too late.
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

// send publishes the requests with one call and tells each what became of it.
func (l *Log) send(requests []*pendingPublish) {
	if len(requests) == 0 {
		return
	}
	defer func() {
		for _, p := range requests {
			close(p.done)
		}
	}()
	// Publishers give up by their own clocks; this call is what the next ones wait for.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.context), l.Timeout)
	defer cancel()
	replies, err := l.call(ctx, requests)
	if err != nil {
		refresh(ctx, l.publishing)
		for _, p := range requests {
			p.err = err
		}
		return
	}
	for _, p := range requests {
		l.settle(p, replies[:len(p.batch)])
		replies = replies[len(p.batch):]
	}
}

// CheckKeys implements Broker.
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

// call runs publishScript for the requests and returns its reply to each message.
func (l *Log) call(ctx context.Context, requests []*pendingPublish) ([]any, error) {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	instances := l.presence.others()
	keys := []string{l.logKey, l.epochKey}
	for _, instance := range instances {
		keys = append(keys, l.presence.key(instance))
	}
	_, cluster := l.publishing.(*redis.ClusterClient) // where we may listen at another of its servers
	args := make([]any, 0, 5+16*len(requests))        // enough for messages with one topic
	args = append(args, l.MaxLen, broker.IdempotencyPeriod.Milliseconds(), hub.NewEpoch(), len(instances), !cluster)
	for i, p := range requests {
		for _, m := range p.batch {
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

// appendMessage appends what publishScript is to know of one message.
func (l *Log) appendMessage(args []any, request int, m *broker.Publication) ([]any, error) {
	kind := "log"
	if m.Ephemeral {
		kind = "channel"
	}
	keyed, fingerprint := 0, ""
	if m.Key != "" {
		keyed, fingerprint = 1, hex.EncodeToString(m.Fingerprint[:])
	}
	here := l.replica.Count(m.To) + l.presence.countPatterns(m.To)
	args = append(args, request, kind, keyed, fingerprint, here, len(m.To))
	for _, to := range m.To {
		args = append(args, presenceField(to))
	}
	args = append(args, 0) // the number of fields
	before := len(args)
	if m.Ephemeral {
		payload, err := encodeChannelMessage(m.Message, l.hub)
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

// publishScript publishes messages in order. A message whose idempotency key has an answer gets that
// answer again; one that is refused ends its request, but not the others.
//
// KEYS: the log, the epoch, the presence of the other instances, the idempotency keys.
// ARGV: max_len, how long answers are kept, an epoch if there is no log, the number of instances, whether this
// server's subscribers are all there are; then for each message its request, whether it goes to the log
// or the channel, whether it has a key, its fingerprint, its receivers as known already, and, each with
// their number before them, its addresses and its fields.
// It returns for each message "<epoch> <entry ID or -> <receivers>", with " again" after it if that is
// the answer of before, or why it was not published. Nothing may raise an error once something was
// published: that would be taken for the fate of the whole call.
var publishScript = redis.NewScript(`
local epoch = redis.call('GET', KEYS[2])
local instances, alone = tonumber(ARGV[4]), ARGV[5] == '1'
local key, arg = 2 + instances, 6
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
	-- There is no log, and the one that begins may give out positions that another has given out.
	return rename() or redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', ...)
end
if not epoch then
	local problem = rename()
	if problem then return problem end
end
while arg <= #ARGV do
	local request, kind, keyed, fingerprint = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
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
	if request == refused then
		reply = 'skipped'
	elseif failed(kept) then
		reply, refused = 'error ' .. kept.err, request
	elseif kept and string.sub(kept, 1, #fingerprint) == fingerprint then
		reply = string.sub(kept, #fingerprint + 2) .. ' again'
	elseif kept then
		reply, refused = 'conflict', request
	else
		for i = 3, 2 + instances do
			for a = address, address + addresses - 1 do
				local clients = redis.pcall('HGET', KEYS[i], ARGV[a])
				if clients and not failed(clients) then
					receivers = receivers + tonumber(clients)
				end
			end
		end
		local function answered(at)
			reply = epoch .. ' ' .. at .. ' ' .. receivers
			return keyed == '0' or redis.pcall('SET', KEYS[key], fingerprint .. ' ' .. reply, 'PX', ARGV[2])
		end
		if kind == 'log' then
			local done = append(unpack(ARGV, first, last))
			local stored = not failed(done) and answered(done)
			if failed(done) then
				reply, refused = 'error ' .. done.err, request
			elseif failed(stored) then
				reply, refused = 'unknown ' .. stored.err, request
			end
		else
			-- The key goes first: a server that may not write publishes all the same.
			local done = answered('-')
			if not failed(done) then
				done = redis.pcall('PUBLISH', ARGV[first], ARGV[last])
				if done == 0 and alone then -- the instance that asks has been cut off, and does not know it yet
					done = {err = 'nobody listens to the channel'}
				end
				if failed(done) and keyed == '1' then redis.pcall('DEL', KEYS[key]) end
			end
			if failed(done) then
				reply, refused = 'error ' .. done.err, request
			end
		end
	end
	replies[#replies + 1] = reply
end
return replies
`)

// settle reads the replies to a batch.
func (l *Log) settle(p *pendingPublish, replies []any) {
	for _, reply := range replies {
		text, _ := reply.(string)
		first, rest, _ := strings.Cut(text, " ")
		switch first {
		case "conflict":
			p.err = broker.ErrKeyReused
			return
		case "unknown": // it is in the log, but not its key
			p.err = fmt.Errorf("%w: redis: %s", broker.ErrUnknownOutcome, rest)
			return
		case "error":
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
				l.replica.LogRefuses(nil)
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

// mayHaveBeenSent reports whether after this error a command may have been carried out: it was sent,
// or may have been, and no answer came.
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
