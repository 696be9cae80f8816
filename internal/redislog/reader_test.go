package redislog

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// reader is a client and its stream, which takes everything at once.
type reader struct {
	hub.Welcome
	covers string // newest loss that Welcome tells of
	client *hub.Client
	hub    *hub.Hub
	t      testing.TB
	ended  sync.Once
	done   chan struct{} // closed once it has left

	mu      sync.Mutex // guards the rest
	left    bool
	events  []eventstream.Event
	changed chan struct{} // closed and replaced when events grow
}

// Send implements hub.Stream: a reader takes everything.
func (r *reader) Send(frames []*hub.Frame, end error) (taken int, ready bool) {
	if !r.add(frames) {
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
func (r *reader) Abort() { r.leaveFor(hub.ErrAborted) }

// Blocked implements hub.Stream.
func (r *reader) Blocked() bool { return false }

// leaveFor has the client leave, once, without waiting for it.
func (r *reader) leaveFor(cause error) {
	r.ended.Do(func() {
		r.mu.Lock()
		r.left = true
		r.mu.Unlock()
		go func() {
			defer close(r.done)
			_ = r.hub.Leave(r.client, cause)
		}()
	})
}

// subscribe enters a client.
func (i *instance) subscribe(s hub.Subscription) *reader {
	i.t.Helper()
	r := &reader{
		hub: i.Hub, t: i.t,
		done: make(chan struct{}), changed: make(chan struct{}),
	}
	var err error
	if r.client, r.Welcome, err = i.Join(s, r); err != nil {
		i.t.Fatal(err)
	}
	epoch, _ := hub.ParseID(r.ID)
	r.covers = hub.ID{Epoch: epoch.Epoch, Position: r.Lost}.String()
	r.client.Post(1)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.readers = append(i.readers, r)
	return r
}

// add notes what came, unless the client has left: its connection is gone then.
func (r *reader) add(frames []*hub.Frame) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left {
		return false
	}
	for _, f := range frames {
		event, err := eventstream.NewDecoder(strings.NewReader(f.Block()), 1<<30).Next()
		if err != nil {
			r.t.Errorf("the frame %q can't be read: %v", f.Block(), err)
		}
		if event.HasData {
			r.events = append(r.events, event)
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return true
}

// leave ends the stream from the client's side and returns the last ID it saw.
func (r *reader) leave() (lastID string) {
	r.leaveFor(hub.ErrGone)
	<-r.done
	return r.lastID()
}

// lastID returns the last ID that the client saw.
func (r *reader) lastID() string {
	id := r.ID
	for _, e := range r.got() {
		if e.ID != "" {
			id = e.ID
		}
	}
	return id
}

// got returns all events so far.
func (r *reader) got() []eventstream.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// texts returns the events in short: the data of messages, "<event> <data>" of others.
func (r *reader) texts() (texts []string) {
	for _, e := range r.got() {
		text := string(e.Data)
		if e.Name != "" {
			text = e.Name + " " + text
		}
		texts = append(texts, text)
	}
	return texts
}

// gaps returns how many gaps the client was told.
func (r *reader) gaps() (n int) {
	for _, e := range r.got() {
		if e.Name == "gap" {
			n++
		}
	}
	return n
}

// await returns when enough events have come.
func (r *reader) await(what string, enough func([]eventstream.Event) bool) {
	r.t.Helper()
	deadline := time.NewTimer(soon)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		ok, changed := enough(r.events), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.t.Fatalf("waited in vain for %s; what came is %v", what, hubtest.Brief(r.texts()))
		}
	}
}

// awaitText returns when a message with this data, or a gap so written, has come.
func (r *reader) awaitText(text string) {
	r.t.Helper()
	looked := 0 // they may be very many
	r.await(text, func(events []eventstream.Event) bool {
		fresh := events[looked:]
		looked = len(events)
		return slices.ContainsFunc(fresh, func(e eventstream.Event) bool {
			return string(e.Data) == text || e.Name+" "+string(e.Data) == text
		})
	})
}

// want waits for as many events as there are texts, and compares them.
func (r *reader) want(texts ...string) {
	r.t.Helper()
	r.await(fmt.Sprint(hubtest.Brief(texts)), func(got []eventstream.Event) bool {
		return len(got) >= len(texts)
	})
	hubtest.Want(r.t, r.texts(), texts...)
}

// count returns how many of the events have this data.
func count(events []eventstream.Event, data string) (n int) {
	for _, e := range events {
		if string(e.Data) == data {
			n++
		}
	}
	return n
}
