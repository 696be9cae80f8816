package hub

import (
	"cmp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// This file is what an operator sees of a hub. Lists come in pages of a stable order, and what they cost is taken
// from deliveries in small steps.

// ClientInfo is what an operator sees of a client.
type ClientInfo struct {
	ClientID string    `json:"client_id"`
	User     string    `json:"user"`   // empty for anonymous
	Topics   []string  `json:"topics"` // patterns included
	Since    time.Time `json:"since"`
	Queued   int       `json:"queued"` // messages that it is behind
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
	type row struct {
		serial uint64
		info   ClientInfo
	}
	var rows []row
	h.askShards(func(s *shard) {
		for _, c := range s.choices(q) {
			rows = append(rows, row{c.serial, c.info()})
		}
	})
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.serial, b.serial) })
	if len(rows) > q.Limit {
		rows = rows[:q.Limit]
		next = rows[q.Limit-1].serial
	}
	page = make([]ClientInfo, len(rows))
	for i, r := range rows {
		page[i] = r.info
	}
	return page, next
}

// askShards has each shard that has clients run something, one after the other.
func (h *Hub) askShards(ask func(*shard)) {
	for _, s := range h.shards {
		done := make(chan struct{})
		h.mu.Lock()
		if !s.working {
			h.mu.Unlock()
			continue
		}
		s.noteLocked(func(s *shard) {
			defer close(done)
			ask(s)
		})
		h.mu.Unlock()
		<-done
	}
}

// choices returns the clients that a query chooses, no more than one page and one.
func (s *shard) choices(q ClientQuery) (chosen []*Client) {
	address := everybody
	switch {
	case q.Topic != "":
		address = Address{ToTopic, q.Topic}
	case q.User != "":
		address = Address{ToUser, q.User}
	}
	if set := s.index.get(address); set != nil {
		for _, m := range set.members {
			if c := m.client; c.serial > q.After && (q.User == "" || c.User == q.User) {
				chosen = append(chosen, c)
			}
		}
	}
	slices.SortFunc(chosen, func(a, b *Client) int { return cmp.Compare(a.serial, b.serial) })
	return chosen[:min(len(chosen), q.Limit+1)]
}

func (c *Client) info() ClientInfo {
	info := ClientInfo{ClientID: c.ClientID, User: c.User, Topics: c.Asked(), Since: c.hub.times.time(c.joined)}
	if c.late != nil {
		info.Queued = c.late.messages
	}
	return info
}

// Age is how long the client has been there.
func (c *Client) Age() time.Duration { return c.hub.times.now().since(c.joined) }

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
		info := TopicInfo{Topic: name, Clients: h.audience.count(a), Kept: len(h.keptLocked(a))}
		if info.Clients > 0 || info.Kept > 0 { // it is not gone by now
			page = append(page, info)
		}
	}
	return page, next
}

// keptLocked returns the messages that are kept for an address and not too old by now.
func (h *Hub) keptLocked(a Address) []*Frame {
	l := h.history.log(a)
	if l == nil {
		return nil
	}
	h.history.trim(l, time.Now())
	return l.frames
}

func (h *Hub) topicsAfter(after string) (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	room := len(h.audience.all) + len(h.history.all)
	h.mu.Unlock() // so much room takes a while to make
	names = make([]string, 0, room+room/8)
	h.mu.Lock()
	pauses := h.pausesLocked()
	// From the end: what moves meanwhile into the place of another was looked at.
	for at := len(h.audience.all) - 1; at >= 0; at = min(at, len(h.audience.all)) - 1 {
		if name := h.audience.all[at].name; name > after {
			names = append(names, name)
		}
		pauses.step()
	}
	for at := len(h.history.all) - 1; at >= 0; at = min(at, len(h.history.all)) - 1 {
		if a := h.history.all[at].address; a.Kind == ToTopic && a.Name > after {
			names = append(names, a.Name)
		}
		pauses.step()
	}
	return names
}

// topicsLocked returns how many topics and patterns have clients or kept messages.
func (h *Hub) topicsLocked() int { return len(h.audience.all) + h.audience.onlyKept }

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
	for i, f := range messages {
		e := eventstream.Parse([]byte(f.Block()))
		page[i] = MessageInfo{e.ID, e.Name, beginning(e.Data), len(e.Data), time.Unix(0, f.time)}
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

func (h *Hub) newestMessages(a Address, limit int) []*Frame {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := h.keptLocked(a)
	return slices.Clone(kept[max(0, len(kept)-limit):])
}

// Connections returns how many connections a client_id has here.
func (h *Hub) Connections(clientID string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.audience.count(Address{ToClient, clientID})
}
