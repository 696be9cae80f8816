package redislog

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// reader is a client with a goroutine of its own that reads its stream at once.
type reader struct {
	hub.Welcome
	covers string // newest loss that Welcome tells of
	client *hub.Client
	hub    *hub.Hub
	t      testing.TB
	wake   chan struct{}
	cut    chan struct{}
	done   chan struct{}

	mu      sync.Mutex // guards the rest
	events  []eventstream.Event
	changed chan struct{} // closed and replaced when events grow
}

func (r *reader) Wake() { r.wake <- struct{}{} }

func (r *reader) Abort() { r.leave() }

func (r *reader) Blocked() bool { return false }

// subscribe enters a client.
func (i *instance) subscribe(s hub.Subscription) *reader {
	i.t.Helper()
	r := &reader{
		hub: i.Hub, t: i.t,
		wake: make(chan struct{}, 1), cut: make(chan struct{}, 1), done: make(chan struct{}),
		changed: make(chan struct{}),
	}
	var err error
	if r.client, r.Welcome, err = i.Join(s, r); err != nil {
		i.t.Fatal(err)
	}
	epoch, _ := hub.ParseID(r.ID)
	r.covers = hub.ID{Epoch: epoch.Epoch, Position: r.Lost}.String()
	go r.run()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.readers = append(i.readers, r)
	return r
}

func (r *reader) run() {
	defer close(r.done)
	for {
		batch, err := r.client.Take(nil)
		r.add(batch)
		if err != nil {
			_ = r.hub.Leave(r.client, err)
			return
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-r.wake:
		case <-r.cut:
			_ = r.hub.Leave(r.client, hub.ErrGone)
			return
		}
	}
}

func (r *reader) add(batch []*hub.Message) {
	if len(batch) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range batch {
		event, err := eventstream.NewDecoder(bytes.NewReader(m.Frame()), 1<<30).Next()
		if err != nil {
			r.t.Errorf("the frame %q can't be read: %v", m.Frame(), err)
		}
		if event.HasData {
			r.events = append(r.events, event)
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// leave ends the stream from the client's side and returns the last ID it saw.
func (r *reader) leave() (lastID string) {
	select {
	case r.cut <- struct{}{}:
	default:
	}
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
	r.await(text, func(events []eventstream.Event) bool {
		return slices.ContainsFunc(events, func(e eventstream.Event) bool {
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
