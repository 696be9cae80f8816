package hub

import (
	"time"
)

// This file is whose a client_id is: a user's who has listened under it, as long as it is in use. It is
// in use while it has connections or kept messages.

// owner is the user that a client_id belongs to.
type owner struct {
	user  string
	until time.Time // up to then it is in use elsewhere, whatever is known of it here
}

// ownerLocked returns the user that a client_id belongs to; empty if it is anybody's. Once it is out of
// use its owner is forgotten.
func (h *Hub) ownerLocked(clientID string) string {
	o, owned := h.owners[clientID]
	if owned && !h.inUseLocked(clientID) && !time.Now().Before(o.until) {
		delete(h.owners, clientID)
		delete(h.claimed, clientID)
		return ""
	}
	return o.user
}

// inUseLocked reports whether a client_id has connections or kept messages.
func (h *Hub) inUseLocked(clientID string) bool {
	a := Address{ToClient, clientID}
	if l := h.history.logs[a]; l != nil {
		h.history.trim(l, time.Now())
	}
	return h.index.exact[a] != nil || h.history.logs[a] != nil
}

// claimLocked gives a client_id to a user.
func (h *Hub) claimLocked(clientID, user string) {
	if h.claimed != nil && h.owners[clientID].user != user {
		h.claimed[clientID] = struct{}{}
	}
	h.ownLocked(clientID, owner{user: user})
}

// ownLocked notes whose a client_id is. Whoever listens under it without being that user has to ask
// again, and will be refused.
func (h *Hub) ownLocked(clientID string, o owner) {
	h.owners[clientID] = o
	if set := h.index.exact[Address{ToClient, clientID}]; set != nil {
		for _, m := range set.members {
			if m.client.User != o.user {
				m.client.finish(ErrClaimed)
			}
		}
	}
}

// What follows is what logs need to keep owners where they keep messages.

// Owner returns the user that a client_id belongs to, empty if it is anybody's, and whether it is in use
// here.
func (h *Hub) Owner(clientID string) (user string, inUse bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ownerLocked(clientID), h.inUseLocked(clientID)
}

// OwnerOf returns the user whose client_id a message is for, even if that one has just left; empty if
// there is none.
func (h *Hub) OwnerOf(m *Message) (user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.To[0].Kind != ToClient { // if it is, it is the only one
		return ""
	}
	return h.owners[m.To[0].Name].user
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
	owners := make(map[string]string, len(h.owners))
	for id, o := range h.owners {
		if h.inUseLocked(id) {
			owners[id] = o.user
		}
	}
	for a := range h.history.logs {
		if a.Kind == ToClient {
			owners[a.Name] = h.owners[a.Name].user
		}
	}
	h.eachLocked(func(c *Client) {
		if !c.Generated {
			owners[c.ClientID] = h.owners[c.ClientID].user
		}
	})
	return owners
}

// RestoreOwned is Restore for a message that stands in the log with the owner of the client_id that it
// is for. The newest message kept for a client_id tells.
func (h *Hub) RestoreOwned(m *Message, user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keepLocked(m, time.Now())
	for _, to := range m.To {
		switch {
		case to.Kind != ToClient:
		case user != "":
			h.ownLocked(to.Name, owner{user: user})
		case h.index.exact[to] == nil:
			delete(h.owners, to.Name)
		}
	}
}

// Claimed returns whose the client_ids are that were claimed since it was called last, by the positions
// of the newest messages kept for them. Where none is kept yet, the next one will tell.
func (h *Hub) Claimed() map[Position]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	owners := make(map[Position]string)
	for id := range h.claimed {
		l, user := h.history.logs[Address{ToClient, id}], h.owners[id].user
		if l != nil && user != "" {
			owners[l.messages[len(l.messages)-1].Position] = user
		}
	}
	clear(h.claimed)
	return owners
}

// noteClaimsLocked begins to note claims, with all there are, or no longer does.
func (h *Hub) noteClaimsLocked(note bool) {
	h.claimed = nil
	if note {
		h.claimed = make(map[string]struct{})
		for id := range h.owners {
			h.claimed[id] = struct{}{}
		}
	}
}
