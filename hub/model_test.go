package hub_test

import (
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
	"github.com/caddy-sse/caddy-sse/topic"
)

// This file holds a hub against a model of its contract, under random operations. The model knows the order in which
// everything was published and nothing of how a hub works. It can fail; each of these was tried by hand, and found
// within the first seeds:
//
//   - late.go, turn: go on behind what was handed over instead of behind what was taken (messages are missing, no gap).
//   - resume.go, resumeLocked: leave out the look at history.lost (complete is said with messages missing).
//   - deliver.go, give: do not leave out what stands before c.from (a message comes twice).
//   - deliver.go, topUp: do it although there are notes (who was kicked gets what was said after that).
//   - history.go, dropUnpinned: trim what is pinned (a client that takes everything is told a gap).
//   - owners.go, ownLocked: end nobody (who was there before a claim gets what was said after it).
//   - sequence.go, after: pass by what has left at the position itself (who comes back does not get what was held).
//   - held.go, replaceHeldLocked: replace nothing (an older value comes behind a newer one).
//   - late.go, passLapseLocked: look at the ring alone (who is catching up loses the rest, and is told late).
//   - held.go, leaveAllLocked: do nothing (the rules change, and what is held leaves by the old ones).

// said is one thing that was published, as the model has it.
type said struct {
	number    int
	epoch     string
	id        string // empty if it is ephemeral
	position  uint64
	to        []hub.Address
	key       string
	ephemeral bool
}

// played is a client, as the model has it.
type played struct {
	*hubtest.Client
	sub     hub.Subscription
	joined  int // how much had been said by then
	purges  int // how many purges there had been by then
	losses  int // how often the log had lost something by then
	start   int // from here on it is to get everything
	told    []told
	healthy bool // its stream has always taken everything
	left    bool
	ended   bool // by the hub
	cut     int  // from here on it is to get nothing; 0 if it may
}

// purged is an address that has lost what had been said to it by then.
type purged struct {
	hub.Address
	epoch string
	until int
}

// told is what came on a client's stream.
type told struct {
	number int // of what was said; -1 for a gap
	reason string
	id     string
	by     int // how much had been said when it was heard
}

// model plays one game.
type model struct {
	t       *testing.T
	random  *rand.Rand
	hub     *hubtest.Hub
	said    []said
	clients []*played
	left    map[string]bool // epochs that the hub has left
	kept    map[string][]*hub.Message
	since   map[string]uint64 // of epochs that it came back to
	ids     []string
	limits  hub.Limits
	losses  int // how often the log has lost something
	purges  []purged
	trouble bool           // something was announced to all: gaps may be told to anybody
	holds   bool           // values of heldTopic are held
	leftAt  map[int]uint64 // the positions at which they were told, by number
}

// heldTopic is a topic of whose keys one value leaves in heldFor.
const (
	heldTopic = "d"
	heldFor   = 40 * time.Millisecond
)

var (
	modelTopics     = []string{"a", "b", "room/1", "room/2", "room/1/x", "c", "d"}
	conflatedTopics = []string{"b", "room/1", heldTopic}
	modelPolicies   = []hub.Policy{
		{Pattern: "b", Conflate: true},
		{Pattern: "room/1", Conflate: true},
		{Pattern: heldTopic, Conflate: true, Interval: heldFor},
	}
)

func (g *model) address() hub.Address {
	switch g.random.IntN(10) {
	case 0:
		return hub.Address{Kind: hub.ToClient, Name: "c" + strconv.Itoa(g.random.IntN(6))}
	case 1:
		return hub.Address{Kind: hub.ToUser, Name: []string{"alice", "bob"}[g.random.IntN(2)]}
	case 2:
		return hub.Address{Kind: hub.ToBroadcast}
	}
	return hub.Topics(modelTopics[g.random.IntN(len(modelTopics))])[0]
}

func (g *model) publish() {
	m := g.say()
	listening := 0
	if g.random.IntN(8) == 0 {
		for _, c := range g.clients {
			if !c.left && c.End() == nil && c.Aborts() == 0 && c.listens(m.To) {
				listening++
			}
		}
	}
	if got := g.hub.Deliver(m); got < listening {
		g.t.Errorf("%q to %v counts %d receivers; %d listen", m.Data, m.To, got, listening)
	}
}

// interrupt publishes something, and more while the first client is being given that.
func (g *model) interrupt() {
	synctest.Wait()
	g.hub.Meanwhile(func() {
		if g.random.IntN(4) == 0 {
			g.kick()
		}
		for range 1 + g.random.IntN(4) {
			g.hub.Deliver(g.say())
		}
	})
	g.hub.Deliver(g.say())
	synctest.Wait()
	g.hub.Meanwhile(nil)
}

// say takes down what comes next in the log, and returns it.
func (g *model) say() *hub.Message {
	to := []hub.Address{g.address()}
	if to[0].Kind == hub.ToTopic {
		for g.random.IntN(4) == 0 {
			to = append(to, hub.Topics(modelTopics[g.random.IntN(len(modelTopics))])...)
		}
	}
	at := g.hub.Position()
	s := said{number: len(g.said), epoch: at.Epoch, to: to, ephemeral: g.random.IntN(5) == 0}
	s.key = []string{"", "", "x", "y"}[g.random.IntN(4)]
	text := strconv.Itoa(s.number) + strings.Repeat(".", g.random.IntN(50))
	m := &hub.Message{To: to, Key: s.key, Data: []byte(text), Ephemeral: s.ephemeral}
	if !s.ephemeral {
		at.Position.Major++
		m.Position = at.Position
		s.position, s.id = at.Position.Major, at.String()
		g.ids = append(g.ids, s.id)
		g.kept[at.Epoch] = append(g.kept[at.Epoch], &hub.Message{
			To: to, Key: s.key, Data: m.Data, Position: m.Position,
		})
	}
	g.said = append(g.said, s)
	return m
}

func (c *played) listens(to []hub.Address) bool {
	return slices.ContainsFunc(to, func(a hub.Address) bool {
		switch a.Kind {
		case hub.ToBroadcast:
			return true
		case hub.ToClient:
			return a.Name == c.sub.ClientID
		case hub.ToUser:
			return a.Name == c.sub.User
		}
		return slices.Contains(c.sub.Topics, a.Name) || topic.Covered(c.sub.Patterns, a.Name)
	})
}

func (g *model) join() {
	var names []string
	all := append([]string{"*", "room/*", "room/**", "**", "room/*/x"}, modelTopics...)
	for range g.random.IntN(4) {
		names = append(names, all[g.random.IntN(len(all))])
	}
	s := hubtest.With(topic.Distinct(names)...)
	s.ClientID = "c" + strconv.Itoa(g.random.IntN(6))
	s.Queue, s.QueueBytes = 3+g.random.IntN(20), 300+g.random.IntN(2000)
	s.SlowClient = []hub.SlowClient{hub.CatchUp, hub.CatchUp, hub.Disconnect, hub.DropOldest}[g.random.IntN(4)]
	if g.random.IntN(4) == 0 {
		s.User = []string{"alice", "bob"}[g.random.IntN(2)]
	}
	switch g.random.IntN(4) {
	case 0:
	case 1:
		s.LastEventID = g.hub.Position().String()
	default:
		if len(g.ids) > 0 {
			from := max(0, len(g.ids)-1-g.random.IntN(60))
			s.LastEventID = g.ids[from]
		}
	}
	c, err := g.hub.TryEnter(s)
	if err != nil {
		return // its client_id is somebody's
	}
	p := &played{
		Client: c, sub: s, joined: len(g.said), purges: len(g.purges), losses: g.losses, start: len(g.said),
	}
	for _, other := range g.clients {
		if s.User != "" && other.sub.ClientID == s.ClientID && other.sub.User != s.User {
			g.cut(other)
		}
	}
	g.clients = append(g.clients, p)
	if c.Resume != hub.ResumeNone {
		p.start = g.startOf(p)
	}
	if g.random.IntN(3) > 0 {
		p.healthy = true
		c.Open()
	} else if g.random.IntN(2) == 0 {
		c.Let(1 + g.random.IntN(10))
	}
}

// startOf returns from where on a client that came back is to get everything, and checks what it was told.
func (g *model) startOf(p *played) int {
	id, _ := hub.ParseID(p.Welcome.ID)
	start := -1
	for i, s := range g.said {
		if s.epoch == id.Epoch && (start < 0 || !s.ephemeral && s.position <= id.Position.Major) {
			start = i
			if !s.ephemeral && s.position <= id.Position.Major {
				start++
			}
		}
	}
	if start < 0 {
		start = len(g.said)
	}
	known, _ := hub.ParseID(p.LastEventID)
	if p.Resume == hub.ResumeComplete {
		switch now := g.hub.Position(); {
		case known.Epoch != now.Epoch || p.Welcome.ID != p.LastEventID:
			g.t.Errorf("%q resumes completely at %q in %v", p.LastEventID, p.Welcome.ID, now)
		case known.Position.Major <= g.since[now.Epoch] && g.left[now.Epoch]:
			g.t.Errorf("%q is from before the return at %d, and resumes completely", p.LastEventID, g.since[now.Epoch])
		}
	}
	return start
}

// cut notes that a client gets nothing of what is said from now on.
func (g *model) cut(c *played) {
	if c.cut == 0 {
		c.cut = len(g.said)
	}
}

func (g *model) kick() {
	id := "c" + strconv.Itoa(g.random.IntN(6))
	g.hub.Kick(id)
	for _, c := range g.clients {
		if c.sub.ClientID == id {
			g.cut(c)
		}
	}
}

func (g *model) lose() {
	at := g.hub.Position()
	at.Position.Major += 1 + g.random.Uint64N(5)
	g.hub.Lose(at.Position, "history_trimmed")
	g.ids = append(g.ids, at.String())
	g.losses++
}

// purge removes what is kept at an address. Whoever is catching up may be told a gap.
func (g *model) purge() {
	a := g.address()
	g.hub.Purge(hub.Purge{To: []hub.Address{a}})
	epoch := g.hub.Position().Epoch
	var kept []*hub.Message
	for _, m := range g.kept[epoch] {
		left := slices.DeleteFunc(slices.Clone(m.To), func(to hub.Address) bool { return to == a })
		if len(left) > 0 {
			kept = append(kept, &hub.Message{To: left, Key: m.Key, Data: m.Data, Position: m.Position})
		}
	}
	g.kept[epoch] = kept
	g.purges = append(g.purges, purged{a, epoch, len(g.said)})
	g.losses++
}

// hadPurged reports whether all that a client could get of a message had been purged when it came.
func (g *model) hadPurged(c *played, s said) bool {
	return !slices.ContainsFunc(s.to, func(a hub.Address) bool {
		return c.listens([]hub.Address{a}) && !slices.ContainsFunc(g.purges[:c.purges], func(p purged) bool {
			return p.Address == a && p.epoch == s.epoch && s.number < p.until
		})
	})
}

func (g *model) someone() *played {
	if len(g.clients) == 0 {
		return nil
	}
	return g.clients[g.random.IntN(len(g.clients))]
}

// switchTo makes the hub follow a log, new or one that it has left, with what that kept.
func (g *model) switchTo(epoch string) {
	now := g.hub.Position().Epoch
	if epoch == now {
		return
	}
	g.left[now] = true
	g.hub.Follow(hub.Origin{Epoch: epoch})
	end := hub.Position{}
	for _, m := range g.kept[epoch] {
		again := *m
		g.hub.Restore(&again)
		end = m.Position
	}
	g.hub.Advance(end)
	g.since[epoch] = end.Major
	g.hub.Announce("broker_changed")
	g.trouble = true
}

func (g *model) step() {
	switch n := g.random.IntN(100); {
	case n < 15:
		g.interrupt()
	case n < 18:
		time.Sleep(time.Duration(g.random.IntN(50)) * time.Millisecond)
	case n < 55:
		for range 1 + g.random.IntN(6) {
			g.publish()
		}
	case n < 67:
		g.join()
	case n < 72:
		if c := g.someone(); c != nil {
			g.hear(c)
			c.Leave()
			c.left = true
		}
	case n < 79:
		if c := g.someone(); c != nil {
			c.Block()
			c.healthy = false
		}
	case n < 88:
		if c := g.someone(); c != nil && !c.healthy {
			c.Let(1 + g.random.IntN(12))
		}
	case n < 93:
		if c := g.someone(); c != nil {
			c.Open()
		}
	case n < 95:
		g.limits.History.Count = g.random.IntN(30)
		g.limits.History.Bytes = int64(g.random.IntN(3) * 4000)
		g.hub.Apply(g.limits)
	case n < 96:
		time.Sleep(time.Duration(g.random.IntN(30)) * time.Second)
	case n == 97 && g.random.IntN(3) == 0:
		g.kick()
	case n == 97 && g.random.IntN(2) == 0:
		g.lose()
	case n == 97:
		g.purge()
	case n < 98:
		g.switchTo([]string{"log0", "log1", "log2", hub.NewEpoch()}[g.random.IntN(4)])
	default:
		synctest.Wait()
	}
	if g.random.IntN(3) == 0 {
		for _, c := range g.clients {
			g.hear(c)
		}
	}
}

func play(t *testing.T, seed uint64) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1 + int(seed%4))) // there are fewer shards by one
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 1))
		holds := false
		limits := hub.Limits{History: hub.HistoryLimits{Count: 5 + random.IntN(60)}}
		if random.IntN(2) == 0 {
			limits.Policies, holds = modelPolicies, true
		}
		if random.IntN(3) == 0 {
			limits.History.Age = time.Minute
		}
		if random.IntN(3) == 0 {
			limits.History.Bytes = 20_000
		}
		g := &model{
			t: t, random: random, hub: hubtest.New(t, limits), limits: limits, left: make(map[string]bool),
			kept: make(map[string][]*hub.Message), since: make(map[string]uint64),
			holds: holds, leftAt: make(map[int]uint64),
		}
		if seed%3 > 0 {
			hub.Shrink(g.hub.Hub, 1+random.Uint64N(40), random.IntN(4), 1+random.IntN(20))
		}
		for range 300 {
			g.step()
			if t.Failed() {
				break
			}
		}
		for _, c := range g.clients {
			if !c.left {
				c.Open()
			}
		}
		for range 10 {
			g.publish()
		}
		hubtest.Pause(2 * heldFor) // until nothing is held
		for _, c := range g.clients {
			g.hear(c)
		}
		for range 5 {
			g.join()
		}
		for _, c := range g.clients[max(0, len(g.clients)-5):] {
			c.Open()
		}
		synctest.Wait()
		for _, c := range g.clients {
			g.hear(c)
		}
		for _, c := range g.clients {
			g.check(c)
		}
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
}

func TestAHubKeepsItsContractWhateverHappens(t *testing.T) {
	first, seeds := uint64(0), uint64(300)
	if one, err := strconv.ParseUint(os.Getenv("SSE_TEST_SEED"), 10, 64); err == nil {
		first, seeds = one, 1
	}
	if n, err := strconv.ParseUint(os.Getenv("SSE_TEST_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	for seed := first; seed < first+seeds && !t.Failed(); seed++ {
		play(t, seed)
	}
}
