package sse

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/topic"
)

// plenty is a history that nothing in a test outgrows.
var plenty = Limits{History: HistoryLimits{Count: 1 << 30}}

// testHub is a hub with the log it follows, which the test writes. When the test is over its clients
// leave, and the accounts of what waited for them must be even.
type testHub struct {
	*Hub
	t testing.TB

	mu     sync.Mutex // guards joined
	joined []*testClient
	order  sync.Mutex // held while post delivers
}

func newTestHub(t testing.TB, limits Limits) *testHub {
	h := &testHub{Hub: NewHub(limits), t: t}
	t.Cleanup(func() {
		for _, l := range h.joined {
			l.leave()
		}
		h.Close()
		if clients, _ := h.Size(); clients != 0 {
			t.Errorf("with all clients gone the hub counts %d", clients)
		}
	})
	return h
}

// publish delivers a message as the log's next and returns its ID and its receivers.
func (h *testHub) publish(to []Address, text string) (id string, receivers int) {
	p := h.Position()
	p.Position.Major++
	receivers = h.Deliver(&Message{To: to, Data: []byte(text), Position: p.Position})
	return p.String(), receivers
}

// post delivers a message as the log's next, as one of several publishers, and waits as they do.
func (h *testHub) post(ctx context.Context, m *Message) {
	h.order.Lock()
	if !m.Ephemeral {
		m.Position = h.Position().Position
		m.Position.Major++
	}
	receivers := h.Deliver(m)
	h.order.Unlock()
	h.Wait(ctx, receivers)
}

// publishAll delivers messages to a topic, numbered from first to last.
func (h *testHub) publishAll(topic string, first, last int) {
	for i := first; i <= last; i++ {
		h.publish(Topics(topic), strconv.Itoa(i))
	}
}

func (h *testHub) publishEphemeral(to []Address, text string) {
	h.Deliver(&Message{To: to, Data: []byte(text), Ephemeral: true})
}

// follow makes the hub follow another log.
func (h *testHub) follow(o Origin, reason string) {
	h.Follow(o)
	h.Announce(reason)
}

// testClient is a client whose stream the test plays by hand: it takes what waits when the test says so.
type testClient struct {
	*Client
	Welcome
	LastEventID string // it joined with
	hub         *testHub
	left        bool
	wakes       atomic.Int64
	aborts      atomic.Int64
	blocked     atomic.Bool // what the stream says of its socket
	end         error       // as Take returned it
}

func (l *testClient) Wake() { l.wakes.Add(1) }

func (l *testClient) Abort() { l.aborts.Add(1) }

func (l *testClient) Blocked() bool { return l.blocked.Load() }

// with returns a subscription to topics and patterns with roomy limits.
func with(topics ...string) Subscription {
	s := Subscription{Subscriber: Subscriber{ClientID: NewEpoch(), ClientOptions: &ClientOptions{Queue: 256, QueueBytes: 1 << 20}}}
	for _, name := range topics {
		if topic.IsPattern(name) {
			s.Patterns = append(s.Patterns, name)
		} else {
			s.Topics = append(s.Topics, name)
		}
	}
	return s
}

// returning returns the subscription of a client that comes back with an ID.
func returning(s Subscription, lastEventID string) Subscription {
	s.LastEventID = lastEventID
	return s
}

// join enters a client that is asleep: it has taken all there was, which is not to be much.
func (h *testHub) join(s Subscription) *testClient {
	h.t.Helper()
	l := h.enter(s)
	want(h.t, l.texts())
	return l
}

// enter enters a client that has not taken anything yet.
func (h *testHub) enter(s Subscription) *testClient {
	h.t.Helper()
	l, err := h.tryEnter(s)
	if err != nil {
		h.t.Fatalf("the hub refused a client: %v", err)
	}
	return l
}

func (h *testHub) tryEnter(s Subscription) (*testClient, error) {
	l := &testClient{hub: h, LastEventID: s.LastEventID}
	options := *s.ClientOptions // the test may go on with its own
	s.ClientOptions = &options
	var err error
	if l.Client, l.Welcome, err = h.Join(s, l); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.joined = append(h.joined, l)
	return l, nil
}

// leave ends the client's stream, once.
func (l *testClient) leave() (cause error) {
	if !l.left {
		l.left = true
		cause = l.hub.Leave(l.Client, ErrGone)
	}
	return cause
}

// take is one turn of the stream: one batch, written at once.
func (l *testClient) take() []*Message {
	l.hub.t.Helper()
	batch, err := l.Take(nil)
	if err != nil {
		if len(batch) > 0 {
			l.hub.t.Errorf("the stream ends for %q with %d messages at hand", err, len(batch))
		}
		l.end = err
	}
	return batch
}

// takeAll takes until the stream sleeps or ends.
func (l *testClient) takeAll() (all []*Message) {
	l.hub.t.Helper()
	for {
		batch := l.take()
		if len(batch) == 0 {
			return all
		}
		all = append(all, batch...)
	}
}

// texts takes until the stream sleeps or ends, and tells in short what came: the data of messages,
// "<event> <data>" of others, ":<comment>".
func (l *testClient) texts() []string {
	l.hub.t.Helper()
	return textsOf(l.hub.t, l.takeAll())
}

func textsOf(t testing.TB, messages []*Message) (texts []string) {
	t.Helper()
	for _, m := range messages {
		texts = append(texts, textOf(t, m))
	}
	return texts
}

func textOf(t testing.TB, m *Message) string {
	t.Helper()
	if comment, ok := strings.CutPrefix(string(m.Frame()), ": "); ok {
		return ":" + strings.TrimSuffix(comment, "\n\n")
	}
	e := decode(t, m)
	switch {
	case !e.HasData:
		return "retry " + strconv.FormatInt(e.Retry, 10)
	case e.Name != "":
		return e.Name + " " + string(e.Data)
	}
	return string(e.Data)
}

// decode reads a message's frame as a client would.
func decode(t testing.TB, m *Message) eventstream.Event {
	t.Helper()
	e, err := eventstream.NewDecoder(bytes.NewReader(m.Frame()), 1<<30).Next()
	if err != nil {
		t.Fatalf("the frame %q can't be read: %v", m.Frame(), err)
	}
	return e
}

// gap is how a told gap reads in texts.
func gap(reason string) string { return `gap {"reason":"` + reason + `"}` }

// numbers returns the texts of messages numbered from first to last.
func numbers(first, last int) (texts []string) {
	for i := first; i <= last; i++ {
		texts = append(texts, strconv.Itoa(i))
	}
	return texts
}

func want[T comparable](t testing.TB, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", brief(got), brief(want))
	}
}

// brief leaves out the middle of long lists.
func brief[T any](all []T) any {
	if len(all) <= 40 {
		return all
	}
	return []any{len(all), "items", all[:15], "...", all[len(all)-15:]}
}

// pause lets time pass in a bubble, and all happen that was to happen by then.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// returnsSoon reports whether f returns within a time that is long for a computer. It is for what
// must not block; the test that f should block instead belongs into a synctest bubble.
func returnsSoon(f func()) bool {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
		return true
	case <-time.After(20 * time.Second):
		return false
	}
}

// traffic is goroutines that use a hub at the same time.
type traffic struct{ sync.WaitGroup }

// goLoop calls f so often, with dice of its own.
func (w *traffic) goLoop(times int, f func(*rand.Rand)) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	w.Go(func() {
		for range times {
			f(random)
		}
	})
}

// player is a stream of its own goroutine, as the handler stream is. It is cut after so many messages.
type player struct {
	blocked  bool // what it says of its socket
	cutAfter int
	wake     chan struct{}
	cut      chan struct{}
}

func newPlayer() *player {
	return &player{wake: make(chan struct{}, 1), cut: make(chan struct{}, 10)}
}

func (p *player) Wake() { p.wake <- struct{}{} }

func (p *player) Abort() { p.cut <- struct{}{} }

func (p *player) Blocked() bool { return p.blocked }

// run takes until the stream ends, and returns why.
func (p *player) run(c *Client) error {
	for taken := 0; ; {
		batch, err := c.Take(nil)
		if taken += len(batch); taken > p.cutAfter {
			return ErrGone
		}
		switch {
		case err != nil:
			return err
		case len(batch) > 0:
			continue
		}
		select {
		case <-p.wake:
		case <-p.cut:
			return ErrGone
		case <-time.After(5 * time.Millisecond): // its peer left
			return ErrGone
		}
	}
}
