package hub

import (
	"cmp"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/topic"
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
	chosen := choice{query: q, most: q.Limit + 1}
	for _, s := range h.shards {
		for at, there := math.MaxInt, true; at > 0 && there; {
			there = h.askShard(s, func(s *shard) { at = chosen.look(s, at) })
		}
	}
	clients := chosen.cut()
	if len(clients) > q.Limit {
		clients = clients[:q.Limit]
		next = clients[q.Limit-1].serial
	}
	infos := make([]ClientInfo, len(clients))
	for _, s := range h.shards {
		for from := 0; from < len(clients); from += infoStep {
			h.askShard(s, func(s *shard) {
				for i := from; i < min(from+infoStep, len(clients)); i++ {
					if c := clients[i].client; c.shard == s {
						infos[i] = c.info()
					}
				}
			})
		}
	}
	gone := func(info ClientInfo) bool { return info.Topics == nil } // and its shard has no more clients
	return slices.DeleteFunc(infos, gone), next
}

// How many clients of a shard are looked at, and told of, while its others wait.
const (
	lookStep = 1024
	infoStep = 64 // each may have many topics
)

// choice gathers the clients that a query chooses: those that joined first.
type choice struct {
	query ClientQuery
	most  int
	rows  []choiceRow
}

type choiceRow struct {
	serial uint64
	client *Client
}

// look goes through some of a shard's clients, from below a place in its index downwards. It returns where to go on; 0
// if that was all.
func (x *choice) look(s *shard, at int) int {
	address, q := everybody, &x.query
	switch {
	case q.Topic != "":
		address = Address{ToTopic, q.Topic}
	case q.User != "":
		address = Address{ToUser, q.User}
	}
	set := s.index.get(address)
	if set == nil {
		return 0
	}
	at = min(at, len(set.members)) // what has moved there from behind was looked at
	rest := max(0, at-lookStep)
	for _, m := range set.members[rest:at] {
		if c := m.client; c.serial > q.After && (q.User == "" || c.User == q.User) {
			if len(x.rows) >= 2*x.most {
				x.cut()
			}
			x.rows = append(x.rows, choiceRow{c.serial, c})
		}
	}
	return rest
}

// cut leaves no more than are wanted, in order and each once.
func (x *choice) cut() []choiceRow {
	slices.SortFunc(x.rows, func(a, b choiceRow) int { return cmp.Compare(a.serial, b.serial) })
	x.rows = slices.Compact(x.rows)
	x.rows = x.rows[:min(len(x.rows), x.most)]
	return x.rows
}

// askShards has each shard that has clients run something, one after the other.
func (h *Hub) askShards(ask func(*shard)) {
	for _, s := range h.shards {
		h.askShard(s, ask)
	}
}

// askShard has a shard run something, if it has clients.
func (h *Hub) askShard(s *shard, ask func(*shard)) (asked bool) {
	done := make(chan struct{})
	h.mu.Lock()
	if asked = s.working; asked {
		s.noteLocked(func(s *shard) {
			defer close(done)
			ask(s)
		})
	}
	h.mu.Unlock()
	if asked {
		<-done
	}
	return asked
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
	// Presence tells that it is a topic which has presence.
	Presence bool `json:"presence,omitempty"`
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
		info.Presence = h.presence.has(name) && !topic.IsPattern(name)
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
	room := h.audience.all.n + h.history.all.n
	h.mu.Unlock() // so much room takes a while to make
	names = make([]string, 0, room+room/8)
	h.mu.Lock()
	pauses := h.pausesLocked()
	// From the end: what moves meanwhile into the place of another was looked at.
	for at := h.audience.all.n - 1; at >= 0; at = min(at, h.audience.all.n) - 1 {
		if name := (*h.audience.all.at(at)).name; name > after {
			names = append(names, name)
		}
		pauses.step()
	}
	for at := h.history.all.n - 1; at >= 0; at = min(at, h.history.all.n) - 1 {
		if a := (*h.history.all.at(at)).address; a.Kind == ToTopic && a.Name > after {
			names = append(names, a.Name)
		}
		pauses.step()
	}
	return names
}

// topicsLocked returns how many topics and patterns have clients or kept messages.
func (h *Hub) topicsLocked() int { return h.audience.all.n + h.audience.onlyKept }

// MessageInfo is what an operator sees of a kept message.
type MessageInfo struct {
	ID    string    `json:"id"`
	Event string    `json:"event,omitempty"`
	Key   string    `json:"key,omitempty"`
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
		page[i] = MessageInfo{e.ID, e.Name, f.key, beginning(e.Data), len(e.Data), time.Unix(0, f.time)}
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
