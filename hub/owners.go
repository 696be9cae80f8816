package hub

import "time"

// This file is whose a client_id is: a user's who has listened under it, as long as it is in use. It is
// in use while it has connections or kept messages.

// barTime is how long a client_id that an operator closed may not come back.
const barTime = time.Minute

// maxExpiries is how many owners are remembered that may be out of use; beyond that the first is looked at early.
const maxExpiries = 100_000

// maxBars is how many kicks are remembered; beyond that the first ends early.
const maxBars = 100_000

// owners are the users that client_ids belong to, and who may not come back yet. It is guarded by Hub.mu. An owner
// stays no longer than its client_id is in use, or until it was said to be.
type owners struct {
	byID     map[string]owner
	claimed  map[string]struct{}  // client_ids since Claimed; nil if nobody asks
	bars     map[string]time.Time // by client_id until when it may not join
	expiry   chunked[expiry]      // of owners that need not be in use, about by time; at most maxExpiries
	barOrder chunked[expiry]      // of bars, by time; at most maxBars

	allClaimed bool // all in byID count as claimed, too
}

// owner is the user that a client_id belongs to.
type owner struct {
	user  string
	until time.Time // up to then it is in use elsewhere, whatever is known of it here
}

// expiry is when something about a client_id may be forgotten.
type expiry struct {
	clientID string
	at       time.Time
}

func newOwners() owners {
	return owners{byID: make(map[string]owner), bars: make(map[string]time.Time)}
}

// barred reports whether a client_id may not join yet.
func (o *owners) barred(clientID string, now time.Time) bool {
	return len(o.bars) > 0 && now.Before(o.bars[clientID])
}

// bar refuses a client_id for a while.
func (o *owners) bar(clientID string, until time.Time) {
	if o.barOrder.n == maxBars {
		o.endFirstBar()
	}
	o.bars[clientID] = until
	o.barOrder.push(expiry{clientID, until})
}

// endFirstBar forgets the oldest kick, and the bar unless a newer kick has renewed it.
func (o *owners) endFirstBar() {
	first := o.barOrder.popFirst()
	if o.bars[first.clientID].Equal(first.at) {
		delete(o.bars, first.clientID)
	}
}

// leftByLocked notes that a client has left. The owner of its client_id is forgotten a while later, if it is out of use
// then: meanwhile somebody who comes back may be sent messages, which are not to become another's.
func (h *Hub) leftByLocked(clientID string, now time.Time) {
	if _, owned := h.owners.byID[clientID]; owned {
		h.expireLocked(clientID, now.Add(sweepInterval), now)
	}
}

// expireLocked has the owner of a client_id looked at later, whether it may be forgotten.
func (h *Hub) expireLocked(clientID string, at, now time.Time) {
	o := &h.owners
	if o.expiry.n == maxExpiries {
		if first := o.expiry.popFirst(); !h.inUseLocked(first.clientID, now) {
			o.forget(first.clientID)
		}
	}
	o.expiry.push(expiry{clientID, at})
}

// forget lets a client_id be anybody's again.
func (o *owners) forget(clientID string) {
	delete(o.byID, clientID)
	delete(o.claimed, clientID)
}

// ownerLocked returns the user that a client_id belongs to; empty if it is anybody's. Once it is out of
// use its owner is forgotten.
func (h *Hub) ownerLocked(clientID string, now time.Time) string {
	if len(h.owners.byID) == 0 {
		return ""
	}
	o, owned := h.owners.byID[clientID]
	if owned && !h.inUseLocked(clientID, now) && !now.Before(o.until) {
		h.owners.forget(clientID)
		return ""
	}
	return o.user
}

// inUseLocked reports whether a client_id has connections or kept messages.
func (h *Hub) inUseLocked(clientID string, now time.Time) bool {
	a := Address{ToClient, clientID}
	if h.audience.count(a) > 0 {
		return true
	}
	if l := h.history.log(a); l != nil {
		h.history.trim(l, now)
	}
	return h.history.log(a) != nil
}

// logCameLocked notes that history keeps something of an address from now on.
func (h *Hub) logCameLocked(a Address) {
	if a.Kind == ToTopic {
		h.audience.keeps(a.Name, true)
	}
}

// logGoneLocked notes that history keeps nothing of an address any more. The owner of a client_id is forgotten then,
// unless it is in use.
func (h *Hub) logGoneLocked(a Address) {
	if a.Kind == ToTopic {
		h.audience.keeps(a.Name, false)
	}
	if a.Kind == ToClient && h.audience.count(a) == 0 {
		if o, owned := h.owners.byID[a.Name]; owned && !time.Now().Before(o.until) {
			h.owners.forget(a.Name)
		}
	}
}

// claimLocked gives a client_id to a user.
func (h *Hub) claimLocked(clientID, user string) {
	if h.owners.claimed != nil && h.owners.byID[clientID].user != user {
		h.owners.claimed[clientID] = struct{}{}
	}
	h.ownLocked(clientID, owner{user: user})
}

// ownLocked notes whose a client_id is. Whoever listens under it without being that user gets nothing that is
// published from now on; it has to ask again, and will be refused.
func (h *Hub) ownLocked(clientID string, o owner) {
	h.owners.byID[clientID] = o
	if !o.until.IsZero() {
		h.expireLocked(clientID, o.until, time.Now())
	}
	if a := (Address{ToClient, clientID}); h.audience.count(a) > 0 {
		h.endAtLocked(a, o.user, ErrClaimed)
	}
}

// endAtLocked ends the clients of an address, but for those of a user if there is one, before anything that is
// published from now on.
func (h *Hub) endAtLocked(a Address, user string, cause error, last ...*Frame) {
	e := ending{cause: cause, until: h.frames.next, frames: last}
	for _, s := range h.shards {
		s.noteLocked(func(s *shard) { s.endAt(a, user, e) })
	}
}

// Kick ends all connections of a client_id here, tells them so, and refuses the ID for barTime. It
// returns how many connections there were.
func (h *Hub) Kick(clientID string) (connections int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	until := time.Now().Add(barTime)
	h.owners.bar(clientID, until)
	a := Address{ToClient, clientID}
	if connections = h.audience.count(a); connections > 0 {
		h.endAtLocked(a, "", ErrKicked, farewell("closed"))
	}
	return connections
}

// forgetExpiredLocked forgets bars and owners whose time is over. It reports whether that is done.
func (h *Hub) forgetExpiredLocked(now time.Time) (done bool) {
	o := &h.owners
	for range maxStep {
		switch {
		case o.barOrder.n > 0 && !now.Before(o.barOrder.at(0).at):
			o.endFirstBar()
		case o.expiry.n > 0 && !now.Before(o.expiry.at(0).at):
			h.ownerLocked(o.expiry.popFirst().clientID, now)
		default:
			return true
		}
	}
	return false
}

// What follows is what logs need to keep owners where they keep messages.

// Owner returns the user that a client_id belongs to, empty if it is anybody's, and whether it is in use
// here.
func (h *Hub) Owner(clientID string) (user string, inUse bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	return h.ownerLocked(clientID, now), h.inUseLocked(clientID, now)
}

// OwnerOf returns the user whose client_id a message is for, even if that one has just left; empty if
// there is none.
func (h *Hub) OwnerOf(m *Message) (user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.To[0].Kind != ToClient { // if it is, it is the only one
		return ""
	}
	return h.owners.byID[m.To[0].Name].user
}

// Own says that a client_id is a user's, up to a moment even if it is not in use here.
func (h *Hub) Own(clientID, user string, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ownLocked(clientID, owner{user, until})
}

// Owners returns the client_ids in use that belong to somebody, or that others may know, with their owners as far
// as they are known here.
func (h *Hub) Owners() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	room := len(h.owners.byID) + len(h.history.logs[ToClient]) + len(h.audience.names[ToClient])
	h.mu.Unlock() // so much room takes a while to make
	owners := make(map[string]string, room)
	h.mu.Lock()
	pauses, now := h.pausesLocked(), time.Now()
	for id, o := range h.owners.byID {
		if h.inUseLocked(id, now) {
			owners[id] = o.user
		}
		pauses.step()
	}
	for id := range h.history.logs[ToClient] {
		owners[id] = h.owners.byID[id].user
		pauses.step()
	}
	for id, n := range h.audience.names[ToClient] {
		if _, known := owners[id]; !known && n.secret == 0 {
			owners[id] = h.owners.byID[id].user
		}
		pauses.step()
	}
	return owners
}

// RestoreOwned is Restore for a message that stands in the log with the owner of the client_id that it
// is for. The newest message kept for a client_id tells.
func (h *Hub) RestoreOwned(m *Message, user string) {
	h.Encode(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keepLocked(m, restored, time.Now())
	for _, to := range m.To {
		switch {
		case to.Kind != ToClient:
		case user != "":
			h.ownLocked(to.Name, owner{user: user})
		case h.audience.count(to) == 0:
			h.owners.forget(to.Name)
		}
	}
}

// Claimed returns whose the client_ids are that were claimed since it was called last, by the positions
// of the newest messages kept for them. Where none is kept yet, the next one will tell.
func (h *Hub) Claimed() map[Position]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	o, pauses := &h.owners, h.pausesLocked()
	room := len(o.claimed)
	if o.allClaimed {
		room += len(o.byID)
	}
	h.mu.Unlock() // so much room takes a while to make
	claims := make(map[Position]string, room)
	h.mu.Lock()
	note := func(id string) {
		l, user := h.history.log(Address{ToClient, id}), o.byID[id].user
		if l != nil && user != "" {
			claims[l.frames[len(l.frames)-1].position] = user
		}
		pauses.step()
	}
	claimed, all := o.claimed, o.allClaimed
	if claimed != nil {
		o.claimed, o.allClaimed = make(map[string]struct{}), false
	}
	for id := range claimed {
		note(id)
	}
	if all {
		for id := range o.byID {
			note(id)
		}
	}
	return claims
}

// noteClaimsLocked begins to note claims, with all there are, or no longer does.
func (h *Hub) noteClaimsLocked(note bool) {
	h.owners.claimed, h.owners.allClaimed = nil, note
	if note {
		h.owners.claimed = make(map[string]struct{})
	}
}
