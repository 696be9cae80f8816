package brokertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// This file is all that touches clients and streams of a hub.

// reader is a client of a hub, and its stream, which takes everything.
type reader struct {
	hub.Welcome
	t        testing.TB
	hub      *hub.Hub
	client   *hub.Client
	patience time.Duration

	leaving sync.Once
	reads   chan struct{} // closed when it begins to read; until then it holds up this machine
	done    chan struct{} // closed when it has left

	mu      sync.Mutex // guards all below
	left    bool
	events  []event
	changed chan struct{} // closed and replaced when events grow
	end     error         // why its stream ended, once done
}

// event is one event of a stream, and the block as the client gets it.
type event struct {
	eventstream.Event
	block string
}

// gapName is the name of the event that tells of missing messages.
const gapName = "gap"

// as returns the subscription of a user, or of nobody, under a client_id. Names with wildcards are patterns.
func as(clientID, user string, topics ...string) hub.Subscription {
	s := hub.Subscription{Subscriber: hub.Subscriber{
		ClientID: clientID, User: user, ClientOptions: &hub.ClientOptions{Queue: 256, QueueBytes: 1 << 20},
	}}
	for _, name := range topics {
		if topic.IsPattern(name) {
			s.Patterns = append(s.Patterns, name)
		} else {
			s.Topics = append(s.Topics, name)
		}
	}
	return s
}

// to returns the subscription of a new client to topics.
func to(topics ...string) hub.Subscription { return as(hub.NewEpoch(), "", topics...) }

// back returns the subscription of a client that comes back with an ID.
func back(lastEventID string, topics ...string) hub.Subscription {
	s := to(topics...)
	s.LastEventID = lastEventID
	return s
}

// join enters a client as a server does: the log may be asked whose the client_id is, and a client whose ID
// is ahead of this instance waits a moment.
func (i *instance) join(s hub.Subscription) *reader {
	i.t.Helper()
	r := i.joinPaused(s)
	close(r.reads)
	return r
}

// joinPaused enters a client that this machine does not get round to before reads is closed.
func (i *instance) joinPaused(s hub.Subscription) *reader {
	i.t.Helper()
	i.claim(s)
	i.Hub.Await(i.t.Context(), &s)
	r := &reader{
		t: i.t, hub: i.Hub, patience: i.t.patience,
		reads: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
	}
	var err error
	if r.client, r.Welcome, err = i.Hub.Join(s, r); err != nil {
		i.t.Fatalf("the hub refuses a client: %v", err)
	}
	i.readers = append(i.readers, r)
	r.client.Post(1)
	return r
}

// claim asks the log whose a client_id is, if it is one that knows.
func (i *instance) claim(s hub.Subscription) {
	if log, ok := i.log.(broker.Claimer); ok && i.started {
		_ = i.call("Claim", func() { log.Claim(i.t.Context(), &s) })
	}
}

// Send implements hub.Stream.
func (r *reader) Send(frames []*hub.Frame, end error) (taken int, ready bool) {
	<-r.reads
	if !r.note(frames) {
		return 0, false
	}
	if end != nil {
		r.leaveFor(end)
	}
	return len(frames), end == nil
}

// Notice implements hub.Stream.
func (r *reader) Notice(hub.News) (ready bool) { return true }

// Abort implements hub.Stream.
func (r *reader) Abort() { r.leaveFor(hub.ErrGone) }

// Blocked implements hub.Stream.
func (r *reader) Blocked() bool { return false }

// leaveFor has the client leave, once.
func (r *reader) leaveFor(cause error) {
	r.leaving.Do(func() {
		r.mu.Lock()
		r.left = true
		r.mu.Unlock()
		go func() {
			defer close(r.done)
			cause := r.hub.Leave(r.client, cause)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.end = cause
		}()
	})
}

// note notes what came, unless the client has left: its connection is gone then.
func (r *reader) note(frames []*hub.Frame) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left {
		return false
	}
	for _, f := range frames {
		e, err := eventstream.NewDecoder(strings.NewReader(f.Block()), 1<<30).Next()
		if err == nil && e.HasData {
			r.events = append(r.events, event{e, f.Block()})
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return true
}

// got returns the events so far.
func (r *reader) got() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// texts returns the data of messages, and the names of gaps.
func texts(events []event) []string {
	all := make([]string, len(events))
	for i, e := range events {
		if all[i] = string(e.Data); e.Name == gapName {
			all[i] = gapName
		}
	}
	return all
}

// await waits until enough has come.
func (r *reader) await(what string, enough func([]event) bool) []event {
	r.t.Helper()
	deadline := time.NewTimer(r.patience)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		events, changed := slices.Clone(r.events), r.changed
		r.mu.Unlock()
		if enough(events) {
			return events
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.t.Fatalf("a client waits in vain for %s; it got %q", what, brief(texts(events)))
		}
	}
}

// awaitText waits for a message.
func (r *reader) awaitText(text string) []event {
	r.t.Helper()
	came := func(all []event) bool { return slices.Contains(texts(all), text) }
	return r.await(fmt.Sprintf("%q", text), came)
}

// want waits for as many events as there are texts, and compares.
func (r *reader) want(what string, want ...string) []event {
	r.t.Helper()
	enough := func(all []event) bool { return len(all) >= len(want) }
	all := r.await(fmt.Sprintf("%s, %q", what, brief(want)), enough)
	if !slices.Equal(texts(all), want) {
		r.t.Fatalf("%s: a client got %q; want %q", what, brief(texts(all)), brief(want))
	}
	return all
}

// leave ends the stream from the client's side. It returns why the stream had ended.
func (r *reader) leave() error {
	r.Abort()
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end
}

// awaitEnd waits for the hub to end the stream, and returns why it did.
func (r *reader) awaitEnd() error {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(r.patience):
		r.t.Fatal("a client waits in vain for the end of its stream")
	}
	return r.leave()
}

// brief shortens what is shown of a long list.
func brief(all []string) []string {
	const ends = 20
	if len(all) <= 2*ends {
		return all
	}
	more := []string{fmt.Sprintf("... %d more ...", len(all)-2*ends)}
	return slices.Concat(all[:ends], more, all[len(all)-ends:])
}
