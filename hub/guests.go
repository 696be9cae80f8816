package hub

import (
	"context"
	"slices"
	"sync"
)

// This file is how routes have the instances of a log share lists of who is there.

// GuestHost is who keeps guests: texts that it understands, each for somebody who is there. A guest is there once: it
// comes, it goes, and never comes again. The methods are called one at a time, by the log.
type GuestHost interface {
	// Listed tells that all instances list some guests of this one (true), or list them no longer (false). Whatever the
	// host publishes of them from now on stands in the log behind that.
	Listed(guests map[string]bool)
	// Elsewhere tells that guests of other instances are listed, or no longer.
	Elsewhere(guests map[string]bool)
	// Left tells of guests that are not listed any more, because their instance is gone. Who is told has to publish
	// what is to be published of that, and to call SettleGuests: no other instance does.
	Left(guests []string)
	// Forgotten tells that this instance was taken for dead, and its guests for gone. It has none now.
	Forgotten()
}

// guestbook has the guests of this instance. A log that joins instances is told of them, and tells of all others.
type guestbook struct {
	mu        sync.Mutex // guards all below
	id        uint64     // grows with each host
	host      GuestHost  // nil if nobody keeps guests
	wake      func()     // has the log ask for news; nil if the log is this instance's alone
	here      map[string]guestState
	news      map[string]bool     // what the log is yet to be told
	unsettled map[string]struct{} // who has left, and has not been settled
	settled   []string            // who has been, which the log is yet to be told

	waiting, asked []chan struct{} // closed once the log has read what others have told
}

// guestState is what the log may know of a guest who is here.
type guestState int

const (
	untold    guestState = iota
	maybeTold            // the log has been given it
	certainly            // the log has it
)

// KeepGuests sets who keeps guests; nil for nobody. There are none yet.
func (h *Hub) KeepGuests(host GuestHost) {
	b := &h.guests
	b.mu.Lock()
	defer b.mu.Unlock()
	b.id++
	b.host = host
	b.clear()
	b.hurry()
}

func (b *guestbook) clear() {
	b.here, b.news = make(map[string]guestState), make(map[string]bool)
	b.unsettled, b.settled = make(map[string]struct{}), nil
}

// hurry has the log ask for news now.
func (b *guestbook) hurry() {
	if b.wake != nil {
		b.wake()
	}
}

// GuestCame notes that a guest is there. It reports whether all instances list it by now; else Listed will tell.
func (h *Hub) GuestCame(guest string) (listed bool) {
	b := &h.guests
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.host == nil {
		return true
	}
	b.here[guest] = certainly
	if b.wake == nil {
		return true
	}
	b.here[guest], b.news[guest] = untold, true
	b.hurry()
	return false
}

// GuestWent notes that a guest is not there any more. It reports whether no instance lists it by now; else Listed will
// tell.
func (h *Hub) GuestWent(guest string) (unlisted bool) {
	b := &h.guests
	b.mu.Lock()
	defer b.mu.Unlock()
	state, here := b.here[guest]
	if !here {
		return true
	}
	delete(b.here, guest)
	if b.wake == nil || state == untold {
		delete(b.news, guest)
		return true
	}
	b.news[guest] = false
	b.hurry()
	return false
}

// SettleGuests notes that all is published of guests who have left. Until then another instance would do it, if this one
// died.
func (h *Hub) SettleGuests(guests ...string) {
	b := &h.guests
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, guest := range guests {
		if _, ok := b.unsettled[guest]; ok {
			delete(b.unsettled, guest)
			b.settled = append(b.settled, guest)
		}
	}
}

// FreshGuests returns when Elsewhere has been told all that other instances had listed when FreshGuests was called. The
// error is that of ctx.
func (h *Hub) FreshGuests(ctx context.Context) error {
	b := &h.guests
	b.mu.Lock()
	if b.wake == nil || b.host == nil {
		b.mu.Unlock()
		return nil
	}
	read := make(chan struct{})
	b.waiting = append(b.waiting, read)
	b.hurry()
	b.mu.Unlock()
	select {
	case <-read:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ShareGuests is called by a log that joins instances, before it calls the methods below: one caller at a time. wake has
// it ask for news soon. LogReplaced ends that.
func (h *Hub) ShareGuests(wake func()) {
	b := &h.guests
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wake = wake
}

// unshare ends that: from now on there is no other instance, and what waits to be told has been.
func (b *guestbook) unshare() {
	b.mu.Lock()
	host, listed := b.host, b.news
	b.wake, b.news, b.settled = nil, make(map[string]bool), nil
	clear(b.unsettled)
	for guest := range b.here {
		b.here[guest] = certainly
	}
	for _, read := range append(b.waiting, b.asked...) {
		close(read)
	}
	b.waiting, b.asked = nil, nil
	b.mu.Unlock()
	if host != nil && len(listed) > 0 {
		host.Listed(listed)
	}
}

// GuestsID names who keeps guests; 0 if nobody does. When it changes, a log tells all guests again, and reads all.
func (h *Hub) GuestsID() uint64 {
	h.guests.mu.Lock()
	defer h.guests.mu.Unlock()
	if h.guests.host == nil {
		return 0
	}
	return h.guests.id
}

// GuestNews returns who has come and gone since GuestsTold was called last, or besides all who are there; and who has
// been settled. With it begins what FreshGuests waits for.
func (h *Hub) GuestNews(all bool) (news map[string]bool, settled []string) {
	b := &h.guests
	b.mu.Lock()
	defer b.mu.Unlock()
	news = make(map[string]bool, len(b.news))
	tell := func(guest string) {
		news[guest] = true
		b.here[guest] = max(b.here[guest], maybeTold)
	}
	for guest, came := range b.news {
		if news[guest] = came; came {
			tell(guest)
		}
	}
	if all {
		for guest := range b.here {
			tell(guest)
		}
	}
	b.asked, b.waiting = append(b.asked, b.waiting...), nil
	return news, slices.Clip(b.settled)
}

// GuestsTold notes that the log has taken what GuestNews returned, and has told what others have.
func (h *Hub) GuestsTold(news map[string]bool, settled []string) {
	b := &h.guests
	b.mu.Lock()
	listed := make(map[string]bool)
	for guest, came := range news {
		if now, ok := b.news[guest]; ok && now == came {
			delete(b.news, guest)
			listed[guest] = came
			if !came {
				b.unsettled[guest] = struct{}{}
			}
		}
		if _, here := b.here[guest]; here && came {
			b.here[guest] = certainly
		}
	}
	b.settled = b.settled[min(len(settled), len(b.settled)):]
	for _, read := range b.asked {
		close(read)
	}
	b.asked = nil
	host := b.host
	b.mu.Unlock()
	if host != nil && len(listed) > 0 {
		host.Listed(listed)
	}
}

// hostOf returns who keeps guests, if it is still the one with this ID.
func (b *guestbook) hostOf(id uint64) GuestHost {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.id != id {
		return nil
	}
	return b.host
}

// GuestsElsewhere takes in that guests of other instances are there, or are there no longer. Nothing happens if GuestsID
// has changed.
func (h *Hub) GuestsElsewhere(id uint64, guests map[string]bool) {
	if host := h.guests.hostOf(id); host != nil {
		host.Elsewhere(guests)
	}
}

// GuestsLeft hands guests of dead instances over to this one, which settles them.
func (h *Hub) GuestsLeft(id uint64, guests []string) {
	host := h.guests.hostOf(id)
	if host == nil {
		return
	}
	h.guests.mu.Lock()
	for _, guest := range guests {
		h.guests.unsettled[guest] = struct{}{}
	}
	h.guests.mu.Unlock()
	host.Left(guests)
}

// GuestsForgotten notes that the log has lost what this instance has told.
func (h *Hub) GuestsForgotten() {
	b := &h.guests
	b.mu.Lock()
	host := b.host
	b.clear()
	b.mu.Unlock()
	if host != nil {
		host.Forgotten()
	}
}

// UnsettledGuests returns those that this instance was to settle, and has not. It does so no more.
func (h *Hub) UnsettledGuests() (guests []string) {
	b := &h.guests
	b.mu.Lock()
	defer b.mu.Unlock()
	for guest := range b.unsettled {
		guests = append(guests, guest)
	}
	clear(b.unsettled)
	return guests
}
