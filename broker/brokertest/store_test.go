package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// store is a module whose logs keep their messages in it: they are persistent and shared. It has one fault.
type store struct {
	fault string
	over  <-chan struct{} // closed when the test is

	mu       sync.Mutex // guards all below
	epoch    string
	last     uint64
	kept     []kept
	purged   []hub.Purge
	heldBack *hub.Message
	records  map[string]*broker.Record
	running  []*storeLog
	away     bool
}

// kept is a message with the user whose client_id it is for.
type kept struct {
	hub.Message
	owner string
}

// storeLog is one instance's view of a store.
type storeLog struct {
	*store
	hub *hub.Hub
}

func newStore(t testing.TB, fault string) *store {
	return &store{
		fault: fault, over: t.Context().Done(), epoch: hub.NewEpoch(), records: make(map[string]*broker.Record),
	}
}

func (s *store) Identity() string { return "store" }

func (s *store) Open(string) (broker.Log, error) { return &storeLog{store: s}, nil }

func (l *storeLog) Start(h *hub.Hub, ready func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hub = h
	l.running = append(l.running, l)
	h.Follow(hub.Origin{Epoch: l.epoch, Shared: true})
	for _, k := range l.kept {
		m := k.Message
		switch l.fault {
		case "restores nothing":
			continue
		case "gives messages another time":
			m.Time = time.Now()
		case "restores nobody's":
			k.owner = ""
		case "restores half":
			m.Event = ""
		}
		h.RestoreOwned(&m, k.owner)
	}
	for _, p := range l.purged {
		h.Purge(p)
	}
	if l.fault != "announces nothing" {
		h.Announce("broker_changed")
	}
	if l.fault == "forgets its records" {
		clear(l.records)
	}
	if l.fault != "never finds itself" {
		h.LogFound()
	}
	if l.fault == "leaves a goroutine" {
		go func() { <-l.over }()
	}
	if l.fault == "is ready twice" {
		ready()
	}
	ready()
}

func (l *storeLog) Publish(ctx context.Context, batch []*broker.Publication) (published int, err error) {
	for _, p := range batch {
		failed := l.publish(ctx, p)
		switch {
		case failed == nil:
			published++
		case err == nil:
			err = failed
		}
		if err != nil && l.fault != "goes on after a refusal" {
			return published, err
		}
		if l.fault != "does not wait" {
			l.hub.Wait(ctx, p.Receipt.Receivers)
		}
	}
	return min(published, len(batch)), err
}

func (l *storeLog) publish(ctx context.Context, p *broker.Publication) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.away && l.fault == "acknowledges what it loses":
		return nil
	case l.away:
		return broker.ErrUnavailable
	case l.fault == "acknowledges after the end" && l.hub.Context().Err() != nil:
		return nil
	case l.fault == "hangs":
		<-l.over
		return broker.ErrUnavailable
	}
	record, found, err := l.find(p)
	if found || err != nil {
		return err
	}
	if l.fault == "answers two at once" {
		l.mu.Unlock()
		time.Sleep(time.Millisecond)
		l.mu.Lock()
	}
	l.append(p)
	if l.fault != "forgets keys" && p.Key != "" {
		l.remember(record, p)
	}
	if l.fault == "refuses what it publishes" && ctx.Err() != nil {
		return broker.ErrUnavailable
	}
	return nil
}

// remember notes that a message is published.
func (l *storeLog) remember(r *broker.Record, p *broker.Publication) {
	switch {
	case l.fault == "forgets the last ID" && p.Ephemeral:
		*r = broker.Record{}
	case l.fault == "keeps only the last answer":
		copied := *p
		copied.Streamed = true
		p = &copied
	}
	r.Add(p)
	l.records[l.recordKey(p.Key)] = r
}

func (l *storeLog) recordKey(key string) string {
	if l.fault == "has keys for each instance" {
		return fmt.Sprintf("%p %s", l, key)
	}
	return key
}

func (l *storeLog) find(p *broker.Publication) (r *broker.Record, found bool, err error) {
	stored := l.records[l.recordKey(p.Key)]
	if l.fault == "takes no notice of records from before" {
		p.Earlier = nil
	}
	r = p.Record(stored)
	if found, err = r.Find(p); err != nil && l.fault == "lets keys be reused" {
		p.Repeated = true
		return r, true, nil
	}
	switch {
	case l.fault == "forgets how far a request came" && found && p.Following > 0,
		l.fault == "publishes what is new once more" && found && p.Streamed && p.Following == 0:
		p.Repeated, p.Following, p.Unproven = false, 0, false
		return new(broker.Record), false, nil
	case l.fault == "takes any request for the one before" && p.Streamed && err != nil:
		p.Repeated = true
		return r, true, nil
	}
	return r, found, err
}

// Records implements broker.Rememberer.
func (l *storeLog) Records() broker.Records {
	if l.fault == "gives nobody its records" {
		return nil
	}
	return storeRecords{l.store}
}

// storeRecords are the records of a store, which stays when a log is closed.
type storeRecords struct{ *store }

func (s storeRecords) Find(_ context.Context, key string) (*broker.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[key]
	if r == nil || s.fault == "gives out its own records" {
		return r, nil
	}
	return r.Clone(), nil
}

func (storeRecords) Close() error { return nil }

// append puts a message behind the others and feeds it to all hubs.
func (s *store) append(p *broker.Publication) {
	p.Time = time.Now()
	if !p.Ephemeral || s.fault == "keeps ephemeral messages" {
		p.Ephemeral = false
		switch {
		case s.fault == "gives out a position twice" && s.last%5 == 4:
		case s.fault == "has holes and does not say so":
			s.last += 2
		default:
			s.last++
		}
		p.Position = hub.Position{Major: s.last}
		if s.fault == "uses Minor and does not say so" {
			p.Position.Minor = 1
		}
		p.Receipt.ID = hub.ID{Epoch: s.epoch, Position: p.Position}.String()
	}
	for _, l := range s.running {
		p.Receipt.Receivers += l.hub.Reach(p.To)
	}
	owner := ""
	for n, l := range s.running {
		owner = max(owner, l.hub.OwnerOf(p.Message))
		m := *p.Message                                              // a message belongs to one hub
		mayWait := n == 0 && !m.Ephemeral && string(m.Data) != "end" // somebody waits for that
		switch {
		case s.fault == "has an order for each instance" && mayWait && s.heldBack == nil:
			s.heldBack = &m
			continue
		case s.fault == "loses one" && s.last == 2:
			continue
		case s.fault == "loses names":
			m.Event = ""
		case s.fault == "loses chosen IDs":
			m.ChosenID = ""
		case s.fault == "tells everybody" && m.Private():
			m.To = hub.Topics(m.To[0].Name)
		}
		l.hub.Deliver(&m)
		if n == 0 && s.heldBack != nil {
			l.hub.Deliver(s.heldBack)
			s.heldBack = nil
		}
	}
	switch s.fault {
	case "tells another place":
		p.Receipt.ID = hub.ID{Epoch: s.epoch, Position: hub.Position{Major: s.last + 1}}.String()
	case "counts nobody":
		p.Receipt.Receivers = 0
	}
	if !p.Ephemeral {
		s.kept = append(s.kept, kept{*p.Message, owner})
	}
}

func (l *storeLog) CheckKeys(_ context.Context, batch []*broker.Publication) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, p := range batch {
		looked := *p
		if l.fault == "answers when it is asked" {
			looked.Repeated, p.Repeated = true, true
		}
		if _, _, err := l.find(&looked); err != nil && l.fault != "finds every key fine" {
			return n, err
		}
	}
	return len(batch), nil
}

func (l *storeLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault != "delivers after Close" {
		l.running = slices.DeleteFunc(l.running, func(other *storeLog) bool { return other == l })
	}
	if l.fault == "fails to close" {
		return errors.New("it is stuck")
	}
	return nil
}

// Purge implements broker.Purger. The store keeps what it has, and who was purged.
func (l *storeLog) Purge(_ context.Context, p hub.Purge) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.away && l.fault != "acknowledges what it loses":
		return broker.ErrUnavailable
	case l.away, l.fault == "purges nothing":
		return nil
	case l.fault == "purges whole messages":
		p.To = append(p.To, hub.Topics("b")...)
	}
	p.Until = hub.Position{Major: l.last}
	if l.fault != "purges for now" {
		l.purged = append(l.purged, p)
	}
	for _, other := range l.running {
		if other == l || l.fault != "purges here" {
			other.hub.Purge(p)
		}
	}
	return nil
}

// others returns the hubs of the other instances.
func (l *storeLog) others() (hubs []*hub.Hub) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range l.running {
		if other != l {
			hubs = append(hubs, other.hub)
		}
	}
	return hubs
}

func (l *storeLog) Connections(_ context.Context, clientID string, _ bool) (n int, err error) {
	for _, h := range l.others() {
		n += h.Connections(clientID)
	}
	return n, nil
}

func (l *storeLog) Kick(_ context.Context, clientID string) error {
	for _, h := range l.others() {
		if l.fault != "kicks nobody" {
			h.Kick(clientID)
		}
	}
	return nil
}

func (l *storeLog) Claim(_ context.Context, s *hub.Subscription) {
	for _, h := range l.others() {
		if user, _ := h.Owner(s.ClientID); user != "" && user != s.User && l.fault != "claims nothing" {
			l.hub.Own(s.ClientID, user, time.Now().Add(time.Minute))
		}
	}
}

func (l *storeLog) Release(string) {} // other hubs know by themselves who listens to them

// breakStore puts the logs of a store out of reach.
func breakStore(_ testing.TB, m broker.Module) (mend func()) {
	s := m.(*store)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = true
	if s.fault != "does not tell of an outage" {
		for _, l := range s.running {
			l.hub.LogLost(errors.New("a hand pulled the plug"))
		}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.away = false
		for _, l := range s.running {
			l.hub.LogFound()
		}
	}
}
