// Package redisanswers joins the answers of several instances by Redis. Each answer is a stream, whose entries
// are batches with the number of their last piece for an ID: Redis refuses an entry that was added before, so
// that a repetition whose outcome was unknown adds nothing.
package redisanswers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/redislog"
)

// Shared is what the instances of a hub share of their answers.
type Shared struct {
	client      redis.UniversalClient
	closeClient func()
	base        string // what all keys begin with; in a Cluster they have one slot
	logger      *zap.Logger
	warnings    rate.Sometimes

	stopped   func(id string)
	listening sync.Once
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup
}

var _ answers.Shared = (*Shared)(nil)

// Open returns what a hub's instances share. It touches no network before it is used.
func Open(hub string, o redislog.Options) *Shared {
	s := &Shared{
		base:     "{" + o.Prefix + ":" + hub + "}:answer",
		logger:   o.Logger.With(zap.String("hub", hub)),
		warnings: rate.Sometimes{Interval: time.Second},
	}
	s.client, s.closeClient = redislog.NewClient(o)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// The keys of an answer. Which is for what stands in docs/format.md.
func (s *Shared) claimKey(hash string) string { return s.base + "-claim:" + hash }
func (s *Shared) logKey(id string) string     { return s.base + ":" + id + ":log" }
func (s *Shared) headKey(id string) string    { return s.base + ":" + id + ":head" }
func (s *Shared) leaseKey(id string) string   { return s.base + ":" + id + ":owner" }
func (s *Shared) readersKey(id string) string { return s.base + ":" + id + ":read" }
func (s *Shared) stopKey(id string) string    { return s.base + ":" + id + ":stop" }
func (s *Shared) stopChannel() string         { return s.base + "-stop" }

// Start implements answers.Shared.
func (s *Shared) Start(stopped func(id string)) { s.stopped = stopped }

// listen hears which answers are to be stopped, from the first answer on that is shared. Who asks also leaves
// a note, which the owner finds when it says next that it is there.
func (s *Shared) listen() {
	s.listening.Do(func() {
		s.wg.Go(func() {
			subscription := s.client.Subscribe(s.ctx, s.stopChannel())
			defer subscription.Close()
			messages := subscription.Channel()
			for {
				select {
				case <-s.ctx.Done():
					return
				case message, ok := <-messages:
					if !ok {
						return
					}
					s.stopped(message.Payload)
				}
			}
		})
	})
}

// Close implements answers.Shared.
func (s *Shared) Close() {
	s.cancel()
	s.closeClient()
	s.wg.Wait()
}

// Warn implements answers.Shared.
func (s *Shared) Warn(what string, err error) {
	s.warnings.Do(func() { s.logger.Warn(what, zap.Error(err)) })
}

// claim takes a key, if nobody has it: it is free as well if its owner is gone before the answer began. It
// takes a name over in any case. Then it writes what is known of the answer.
//
// KEYS: the claims of key and name, the answer's head and lease; ARGV: whether there are a key and a name, the
// ID, the body, how long to keep it, the lease, what the other answers' keys begin with, and the head.
var claim = redis.NewScript(`
if ARGV[1] == '1' then
	local got = redis.call('HMGET', KEYS[1], 'id', 'body')
	if got[1] then
		local other = ARGV[7] .. got[1]
		local state = redis.call('HGET', other .. ':head', 'state')
		if state and ((state ~= 'pending' and state ~= 'live') or redis.call('EXISTS', other .. ':owner') == 1) then
			return {got[1], got[2]}
		end
	end
	redis.call('DEL', KEYS[1])
	redis.call('HSET', KEYS[1], 'id', ARGV[3], 'body', ARGV[4])
	redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
if ARGV[2] == '1' then
	redis.call('HSET', KEYS[2], 'id', ARGV[3])
	redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
redis.call('HSET', KEYS[3], unpack(ARGV, 8))
redis.call('PEXPIRE', KEYS[3], ARGV[5])
redis.call('SET', KEYS[4], '1', 'PX', ARGV[6])
return {}
`)

// Claim implements answers.Shared.
func (s *Shared) Claim(ctx context.Context, c *answers.Claim) (*answers.Holder, error) {
	s.listen()
	head, err := headOf(c.Record)
	if err != nil {
		return nil, err
	}
	keys := []string{s.claimKey(c.Key), s.claimKey(c.Name), s.headKey(c.ID), s.leaseKey(c.ID)}
	args := append([]any{
		flag(c.Key != ""), flag(c.Name != ""), c.ID, c.Body, c.Keep.Milliseconds(),
		answers.LeaseTime.Milliseconds(), s.base + ":",
	}, head...)
	got, err := claim.Run(ctx, s.client, keys, args...).StringSlice()
	if err != nil || len(got) < 2 {
		return nil, err
	}
	return &answers.Holder{ID: got[0], Body: got[1]}, nil
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// headOf returns the fields and values of a record.
func headOf(r *answers.Record) ([]any, error) {
	header := []byte{}
	if r.Header != nil {
		var err error
		if header, err = json.Marshal(r.Header); err != nil {
			return nil, fmt.Errorf("encoding the headers: %w", err)
		}
	}
	return []any{
		"owner", r.Owner, "url", r.URL, "state", string(r.State), "reason", string(r.Reason), "kind", int(r.Kind),
		"header", header, "events", r.Events, "bytes", r.Bytes, "last", r.Last, "turn", r.Turn,
	}, nil
}

var errHead = errors.New("what Redis has of an answer is malformed")

// headFields are the fields of a record.
var headFields = []string{"owner", "url", "state", "reason", "kind", "header", "events", "bytes", "last", "turn"}

// recordOf reads a record; nil if there is none.
func recordOf(values []any) (*answers.Record, error) {
	head := make(map[string]string)
	for i, value := range values {
		head[headFields[i]], _ = value.(string)
	}
	if head["state"] == "" {
		return nil, nil
	}
	r := &answers.Record{
		Owner: head["owner"], URL: head["url"], State: answers.State(head["state"]), Reason: answers.Reason(head["reason"]),
	}
	var errs []error
	number := func(name string) uint64 {
		n, err := strconv.ParseUint(head[name], 10, 63)
		errs = append(errs, err)
		return n
	}
	r.Kind, r.Events, r.Bytes = answers.Kind(number("kind")), number("events"), int64(number("bytes"))
	r.Last, r.Turn = number("last"), number("turn")
	if header := head["header"]; header != "" {
		errs = append(errs, json.Unmarshal([]byte(header), &r.Header))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", errHead, err)
	}
	return r, nil
}

// Named implements answers.Shared.
func (s *Shared) Named(ctx context.Context, name string) (string, error) {
	id, err := s.client.HGet(ctx, s.claimKey(name), "id").Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	return id, err
}

// Load implements answers.Shared.
func (s *Shared) Load(ctx context.Context, id string) (*answers.Record, error) {
	head, err := s.client.HMGet(ctx, s.headKey(id), headFields...).Result()
	if err != nil {
		return nil, err
	}
	return recordOf(head)
}

// How long it is known that somebody reads an answer, and how much is read at once.
const (
	readTime   = 10 * time.Second
	maxEntries = 64
)

// Read implements answers.Shared. The lease is read before what is known, which so is not older; and that before the
// log: if the answer is over by that, the log has all of it.
func (s *Shared) Read(ctx context.Context, id string, after uint64) ([]answers.Batch, *answers.Record, error) {
	pipe := s.client.Pipeline()
	lease := pipe.PTTL(ctx, s.leaseKey(id))
	head := pipe.HMGet(ctx, s.headKey(id), headFields...)
	entries := pipe.XRangeN(ctx, s.logKey(id), fmt.Sprintf("(%d-0", after), "+", maxEntries)
	pipe.Set(ctx, s.readersKey(id), "1", readTime)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, nil, err
	}
	record, err := recordOf(head.Val())
	if record == nil || err != nil {
		return nil, nil, err
	}
	record.Alive = lease.Val() > 0
	record.Unseen = answers.LeaseTime - lease.Val()
	var batches []answers.Batch
	for _, entry := range entries.Val() {
		b, err := batchOf(entry)
		if err != nil {
			return nil, nil, err
		}
		batches = append(batches, b)
	}
	return batches, record, nil
}

// batchOf reads an entry of a log.
func batchOf(entry redis.XMessage) (b answers.Batch, err error) {
	last, _, _ := strings.Cut(entry.ID, "-")
	if b.Last, err = strconv.ParseUint(last, 10, 64); err != nil {
		return b, fmt.Errorf("%w: %w", errHead, err)
	}
	places, _ := entry.Values["places"].(string)
	bytes, _ := entry.Values["bytes"].(string)
	before := int64(0)
	for word := range strings.FieldsSeq(places) {
		first, second, _ := strings.Cut(word, "-")
		begin, err := strconv.ParseInt(first, 10, 64)
		end, err2 := strconv.ParseInt(second, 10, 64)
		if err != nil || err2 != nil || begin < before || end <= begin || end > int64(len(bytes)) {
			return b, fmt.Errorf("%w: %q is no place in it", errHead, word)
		}
		b.Places, before = append(b.Places, answers.Place{Begin: begin, End: end}), end
	}
	if uint64(len(b.Places)) > b.Last {
		return b, fmt.Errorf("%w: %d pieces end with number %d", errHead, len(b.Places), b.Last)
	}
	b.Bytes = []byte(bytes)
	return b, nil
}

// entryOf returns an entry of a log. What follows the last piece comes behind that piece's own batch.
func entryOf(log string, b *answers.Batch) *redis.XAddArgs {
	places := make([]string, len(b.Places))
	for i, place := range b.Places {
		places[i] = fmt.Sprintf("%d-%d", place.Begin, place.End)
	}
	id := fmt.Sprintf("%d-0", b.Last)
	if len(b.Places) == 0 {
		id = fmt.Sprintf("%d-1", b.Last)
	}
	return &redis.XAddArgs{
		Stream: log, ID: id, Values: []any{"places", strings.Join(places, " "), "bytes", b.Bytes},
	}
}

// Append implements answers.Shared, by one call.
func (s *Shared) Append(
	ctx context.Context, id string, batch *answers.Batch, r *answers.Record, keep time.Duration,
) (stop bool, err error) {
	s.listen()
	head, err := headOf(r)
	if err != nil {
		return false, err
	}
	pipe := s.client.Pipeline()
	var added *redis.StringCmd
	if batch != nil {
		added = pipe.XAdd(ctx, entryOf(s.logKey(id), batch))
	}
	pipe.HSet(ctx, s.headKey(id), head...)
	pipe.PExpire(ctx, s.headKey(id), keep)
	pipe.PExpire(ctx, s.logKey(id), keep)
	pipe.Set(ctx, s.leaseKey(id), "1", answers.LeaseTime)
	wanted := pipe.Exists(ctx, s.stopKey(id))
	_, err = pipe.Exec(ctx)
	if added != nil && isThere(added.Err()) {
		err = wanted.Err() // the last of the pipe: if it went well, so did what comes before it
	}
	return wanted.Val() == 1, err
}

// isThere reports whether an entry was not added because it is there.
func isThere(err error) bool {
	return err != nil && strings.Contains(err.Error(), "equal or smaller than the target stream top item")
}

// tellLost notes the number by which a reader is told that an answer is lost, as long as the answer is known.
//
// KEYS: the head; ARGV: the field of the number that the reader had, that of the next, and how many fields may be.
var tellLost = redis.NewScript(`
local told = redis.call('HGET', KEYS[1], ARGV[1])
local fields = redis.call('HLEN', KEYS[1])
if fields > 0 and fields < tonumber(ARGV[3]) then
	redis.call('HSET', KEYS[1], ARGV[2], '1')
end
if told then
	return 1
end
return 0
`)

// maxLostTold bounds what is known of who was told that an answer is lost.
const maxLostTold = 1000

// TellLost implements answers.Shared.
func (s *Shared) TellLost(ctx context.Context, id string, had, number uint64) (told bool, err error) {
	field := func(n uint64) string { return fmt.Sprintf("lost:%d", n) }
	return tellLost.Run(ctx, s.client, []string{s.headKey(id)}, field(had), field(number), maxLostTold).Bool()
}

// IsRead implements answers.Shared.
func (s *Shared) IsRead(ctx context.Context, id string) (bool, error) {
	n, err := s.client.Exists(ctx, s.readersKey(id)).Result()
	return n == 1, err
}

// Stop implements answers.Shared.
func (s *Shared) Stop(ctx context.Context, id string) error {
	pipe := s.client.Pipeline()
	pipe.Set(ctx, s.stopKey(id), "1", time.Minute)
	pipe.Publish(ctx, s.stopChannel(), id)
	_, err := pipe.Exec(ctx)
	return err
}

// release deletes an answer, and those of its claims that are still its own.
//
// KEYS: the answer's keys, then its claims; ARGV: the ID.
var release = redis.NewScript(`
for i = 4, #KEYS do
	if redis.call('HGET', KEYS[i], 'id') == ARGV[1] then
		redis.call('DEL', KEYS[i])
	end
end
return redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
`)

// Release implements answers.Shared.
func (s *Shared) Release(ctx context.Context, id string, claims []string) error {
	keys := []string{s.logKey(id), s.headKey(id), s.leaseKey(id)}
	for _, hash := range claims {
		keys = append(keys, s.claimKey(hash))
	}
	return release.Run(ctx, s.client, keys, id).Err()
}
