package hub

import (
	"cmp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// This file is what an operator sees of a hub and does to it. Lists come in pages of a stable order,
// and each costs a moment of the hub's lock at most.

// ClientInfo is what an operator sees of a client.
type ClientInfo struct {
	ClientID string    `json:"client_id"`
	User     string    `json:"user"`   // empty for anonymous
	Topics   []string  `json:"topics"` // patterns included
	Since    time.Time `json:"since"`
	Queued   int       `json:"queued"` // messages that wait
}

// ClientQuery chooses clients. Empty fields choose all.
type ClientQuery struct {
	Topic string // that listen to this topic or pattern itself
	User  string
	After uint64 // that joined after the one with this number; numbers grow
	Limit int
}

// ListClients returns a page of clients in the order they joined, and the number that the next page
// goes on after; 0 if this is the last.
func (h *Hub) ListClients(q ClientQuery) (page []ClientInfo, next uint64) {
	chosen := h.chooseClients(q)
	slices.SortFunc(chosen, func(a, b *Client) int { return cmp.Compare(a.serial, b.serial) })
	if len(chosen) > q.Limit {
		chosen = chosen[:q.Limit]
		next = chosen[q.Limit-1].serial
	}
	page = make([]ClientInfo, len(chosen))
	for i, c := range chosen {
		page[i] = c.info()
	}
	return page, next
}

func (h *Hub) chooseClients(q ClientQuery) (chosen []*Client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	address := Address{Kind: ToBroadcast}
	switch {
	case q.Topic != "":
		address = Address{ToTopic, q.Topic}
	case q.User != "":
		address = Address{ToUser, q.User}
	}
	if set := h.index.set(address); set != nil {
		for _, m := range set.members {
			if c := m.client; c.serial > q.After && (q.User == "" || c.User == q.User) {
				chosen = append(chosen, c)
			}
		}
	}
	return chosen
}

func (c *Client) info() ClientInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ClientInfo{
		ClientID: c.ClientID,
		User:     c.User,
		Topics:   c.Asked(),
		Since:    c.hub.clock.time(c.joined),
		Queued:   len(c.queue),
	}
}

// Asked returns the topics and patterns that the client asked for, never nil: it goes into JSON.
func (c *Client) Asked() []string { return append(append([]string{}, c.Topics...), c.Patterns...) }

// TopicInfo is what an operator sees of a topic or pattern.
type TopicInfo struct {
	Topic   string `json:"topic"`
	Clients int    `json:"clients"` // that listen to it itself
	Kept    int    `json:"kept"`    // messages
}

// ListTopics returns a page of the topics and patterns that have clients or kept messages, by name,
// and the name that the next page goes on after; empty if this is the last.
func (h *Hub) ListTopics(after string, limit int) (page []TopicInfo, next string) {
	names := h.topicsAfter(after)
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > limit {
		names = names[:limit]
		next = names[limit-1]
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	page = make([]TopicInfo, 0, len(names))
	for _, name := range names {
		a := Address{ToTopic, name}
		info := TopicInfo{Topic: name, Clients: h.index.count(a), Kept: len(h.keptLocked(a))}
		if info.Clients > 0 || info.Kept > 0 { // it is not gone by now
			page = append(page, info)
		}
	}
	return page, next
}

// keptLocked returns the messages that are kept for an address and not too old by now.
func (h *Hub) keptLocked(a Address) []*Message {
	l := h.history.logs[a]
	if l == nil {
		return nil
	}
	h.history.trim(l, time.Now())
	return l.messages
}

func (h *Hub) topicsAfter(after string) (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	add := func(a Address) {
		if a.Kind == ToTopic && a.Name > after {
			names = append(names, a.Name)
		}
	}
	for a := range h.history.logs {
		add(a)
	}
	for a := range h.index.exact {
		add(a)
	}
	for _, group := range h.index.patterns {
		for pattern := range group {
			add(Address{ToTopic, pattern})
		}
	}
	return names
}

// MessageInfo is what an operator sees of a kept message.
type MessageInfo struct {
	ID    string    `json:"id"`
	Event string    `json:"event,omitempty"`
	Data  string    `json:"data"`  // no more than its beginning
	Bytes int       `json:"bytes"` // of all its data
	Time  time.Time `json:"time"`
}

// maxShown is how many bytes of a message's data a list shows.
const maxShown = 4 << 10

// ListMessages returns the newest messages that are kept for a topic, the oldest first.
func (h *Hub) ListMessages(topic string, limit int) []MessageInfo {
	messages := h.newestMessages(Address{ToTopic, topic}, limit)
	page := make([]MessageInfo, len(messages))
	for i, m := range messages {
		e := eventstream.Parse(m.frame)
		page[i] = MessageInfo{e.ID, e.Name, beginning(e.Data), len(e.Data), m.Time}
	}
	return page
}

// beginning returns what of data a list shows, which ends with a whole character.
func beginning(data []byte) string {
	if len(data) <= maxShown {
		return string(data)
	}
	end := maxShown
	for !utf8.RuneStart(data[end]) {
		end--
	}
	return string(data[:end])
}

func (h *Hub) newestMessages(a Address, limit int) []*Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := h.keptLocked(a)
	return slices.Clone(kept[max(0, len(kept)-limit):])
}

// barTime is how long a client_id that an operator closed may not come back.
const barTime = time.Minute

// Connections returns how many connections a client_id has here.
func (h *Hub) Connections(clientID string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.index.count(Address{ToClient, clientID})
}

// Kick ends all connections of a client_id here, tells them so, and refuses the ID for barTime. It
// returns how many connections there were.
func (h *Hub) Kick(clientID string) (connections int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.barred[clientID] = time.Now().Add(barTime)
	if set := h.index.exact[Address{ToClient, clientID}]; set != nil {
		for _, m := range set.members {
			m.client.finish(ErrKicked, farewell("closed"))
			connections++
		}
	}
	return connections
}
