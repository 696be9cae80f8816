package hub_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// hubtest reads what is compressed by the library of Go, piece by piece, and half of all clients there read gzip. So
// every test of this package, the model's too, is one of this: here is only what can't be seen from outside.

// zipped is a client that reads gzip, of which the test sees what it is sent.
type zipped struct {
	*hub.Client
	mu     sync.Mutex // guards frames
	frames []*hub.Frame
}

func (z *zipped) Send(frames []*hub.Frame, _ error) (int, bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.frames = append(z.frames, frames...)
	return len(frames), true
}
func (*zipped) Notice(hub.News) bool { return true }
func (*zipped) Abort()               {}
func (*zipped) Blocked() bool        { return false }

// joinZipped enters a client that reads gzip.
func joinZipped(t *testing.T, h *hub.Hub, s hub.Subscription) *zipped {
	z := new(zipped)
	s.Gzip = true
	var err error
	if z.Client, _, err = h.Join(s, z); err != nil {
		t.Error(err)
	}
	z.Opening(nil)
	z.Post(1)
	settle()
	return z
}

// last returns the newest frame of a client.
func (z *zipped) last() *hub.Frame {
	settle()
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.frames[len(z.frames)-1]
}

// forget forgets what a client was sent. It returns how many frames that were.
func (z *zipped) forget() (n int) {
	settle()
	z.mu.Lock()
	defer z.mu.Unlock()
	n, z.frames = len(z.frames), nil
	return n
}

// tick is a message as dashboards get them, of about 190 bytes.
func tick(i int) string {
	return fmt.Sprintf(`{"symbol":"BTC-EUR","bid":%d.%02d,"ask":%d.%02d,"volume":%d,`+
		`"time":"2026-11-30T08:00:%02d.%03dZ","source":"exchange-7","seq":%d}`,
		61234+i%7, i*37%100, 61236+i%9, i*53%100, 1000+i*7919%9000, i%60, i*313%1000, 500000+i)
}

func TestClientsThatCameAtDifferentTimesShareCompressedMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var clients []*zipped
		for i := range 500 {
			if i%5 == 0 || rand.IntN(3) == 0 {
				h.Publish(hub.Topics("a"), tick(i))
			}
			clients = append(clients, joinZipped(t, h.Hub, hubtest.With("a")))
		}
		for i := range 10 {
			h.Publish(hub.Topics("a"), tick(1000+i))
		}
		shared := make(map[*hub.Frame]int)
		for _, c := range clients {
			shared[c.last()]++
		}
		most := 0
		for _, n := range shared {
			most = max(most, n)
		}
		if most < len(clients)*95/100 {
			t.Errorf("of %d clients %d share the message, which was made %d times", len(clients), most, len(shared))
		}
		if plain := len(tick(0)) + 40; len(clients[0].last().Block()) > plain*28/100 {
			t.Errorf("a message of %d bytes takes %d", plain, len(clients[0].last().Block()))
		}
		for _, c := range clients {
			h.Leave(c.Client, nil)
		}
	})
}

// sentLast returns how many bytes the last of some messages takes for a client of topics a and b.
func sentLast(t *testing.T, publish func(h *hubtest.Hub)) (bytes int) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a", "b")
		s.ClientID, s.User = "a", "a"
		c := joinZipped(t, h.Hub, s)
		publish(h)
		bytes = len(c.last().Block())
		h.Leave(c.Client, nil)
	})
	return bytes
}

func TestNothingButEarlierMessagesOfItsTopicsShortensAMessage(t *testing.T) {
	const secret, guess, wrong = "token=correct-horse-staple", "token=correct-horse-staple", "token=xyzqjvk-kqzxv-wpfjqz"
	a, b, client := hub.Topics("a"), hub.Topics("b"), []hub.Address{{Kind: hub.ToClient, Name: "a"}}
	user, all, both := []hub.Address{{Kind: hub.ToUser, Name: "a"}}, []hub.Address{{Kind: hub.ToBroadcast}}, hub.Topics("a", "b")
	for name, c := range map[string]struct {
		first, between, then []hub.Address
		shortens             bool
	}{
		"the same topic":                 {a, nil, a, true},
		"the same two topics":            {both, nil, both, true},
		"everybody":                      {all, nil, all, true},
		"another topic":                  {a, nil, b, false},
		"one of two topics":              {both, nil, a, false},
		"two topics, one of them":        {a, nil, both, false},
		"a topic, everybody":             {a, nil, all, false},
		"everybody, a topic":             {all, nil, a, false},
		"the same topic after another":   {a, b, a, false},
		"the same topic after a client":  {a, client, a, false},
		"a client, a topic":              {client, nil, a, false},
		"a topic, a client":              {a, nil, client, false},
		"the same client":                {client, nil, client, false},
		"the same user":                  {user, nil, user, false},
		"a user, a topic":                {user, nil, a, false},
		"a topic, a user":                {a, nil, user, false},
		"the same user after everybody":  {user, all, user, false},
		"everybody after a user between": {all, user, all, false},
	} {
		length := func(second string) int {
			return sentLast(t, func(h *hubtest.Hub) {
				h.Publish(c.first, secret)
				if c.between != nil {
					h.Publish(c.between, "x")
				}
				h.Publish(c.then, second)
			})
		}
		if right, other := length(guess), length(wrong); (right < other) != c.shortens {
			t.Errorf("%s: what came before takes %d bytes, something else as long %d", name, right, other)
		}
	}
	length := func(second string) int { // of what stands in one message
		return sentLast(t, func(h *hubtest.Hub) { h.Publish(client, secret+second) })
	}
	if right, other := length(guess), length(wrong); right != other {
		t.Errorf("a private message of one length takes %d or %d bytes", right, other)
	}
}

func TestWhatIsSentToOneClientAloneEndsItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		o := *s.ClientOptions
		o.Heartbeat = time.Second
		s.ClientOptions = &o
		c := joinZipped(t, h.Hub, s)
		h.Publish(hub.Topics("a"), tick(1))
		h.Publish(hub.Topics("a"), tick(2))
		near := len(c.last().Block())
		hubtest.Pause(1500 * time.Millisecond)
		beat := c.forget()
		h.Publish(hub.Topics("a"), tick(3))
		if anew := len(c.last().Block()); beat != 3 || anew < 2*near {
			t.Errorf("%d frames came until the heartbeat; a message takes %d bytes, and %d behind it", beat, near, anew)
		}
		h.Leave(c.Client, nil)
	})
}

func TestWhatClientsShareIsBoundedAndGoesWithTheLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{})
		c := joinZipped(t, h.Hub, hubtest.With("**"))
		for i := range 20_000 {
			h.Publish(hub.Topics(fmt.Sprint("topic/", i%5_000)), tick(i))
			if i%100 == 0 {
				c.forget()
			}
		}
		settle()
		if entries, bytes := hub.Shared(h.Hub); entries == 0 || bytes > 2*hub.MaxCompressed {
			t.Errorf("%d entries of %d bytes are shared", entries, bytes)
		}
		h.Publish(hub.Topics("large"), strings.Repeat("0123456789", 200_000))
		settle()
		if _, bytes := hub.Shared(h.Hub); bytes > 3*hub.MaxCompressed+4_000_000 {
			t.Errorf("%d bytes are shared", bytes)
		}
		h.Leave(c.Client, nil)
		settle()
		if entries, bytes := hub.Shared(h.Hub); entries != 0 || bytes != 0 {
			t.Errorf("with all clients gone %d entries of %d bytes are left", entries, bytes)
		}
	})
}

func TestCompressionThatNobodyAskedForCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hub.NewHub(hubtest.Plenty)
		s := new(streamOfOne)
		c, _, _ := h.Join(hubtest.With("a"), s)
		c.Post(1)
		h.Deliver(&hub.Message{To: hub.Topics("a"), Data: []byte("x"), Ephemeral: true})
		settle()
		if entries, bytes := hub.Shared(h); entries != 0 || bytes != 0 || s.last.Block() != "data: x\n\n" {
			t.Errorf("%d entries of %d bytes are shared, and %q was sent", entries, bytes, s.last.Block())
		}
		h.Leave(c, nil)
		h.Close()
		settle()
	})
}

// FuzzCompressedTwins plays the same to two clients, one of which reads gzip: both are told the same.
func FuzzCompressedTwins(f *testing.F) {
	for range 40 {
		script := make([]byte, 200)
		for i := range script {
			script[i] = byte(rand.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		bubble(t, func(t *testing.T) { playTwins(t, script[:min(len(script), 500)]) })
	})
}

// twins are two clients of one subscription. The second reads gzip.
type twins struct {
	sub  hub.Subscription
	both [2]*hubtest.Client
	last string
}

func (w *twins) join(h *hubtest.Hub) {
	for i := range w.both {
		s := hubtest.Returning(w.sub, w.last)
		s.Gzip = i == 1
		var err error
		if w.both[i], err = h.EnterAs(s); err != nil {
			h.T.Fatal(err)
		}
		w.both[i].Open()
	}
}

func (w *twins) each(do func(*hubtest.Client)) {
	for _, c := range w.both {
		do(c)
	}
}

// compare holds what both were told against each other.
func (w *twins) compare(t *testing.T) {
	if plain, zipped := w.both[0].Blocks(), w.both[1].Blocks(); !slices.Equal(plain, zipped) {
		t.Fatalf("one was told %q\nthe other %q", hubtest.Brief(plain), hubtest.Brief(zipped))
	}
}

func playTwins(t *testing.T, script []byte) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 30}})
	all := []*twins{
		{sub: hubtest.With("a")}, {sub: hubtest.With("a", "b")}, {sub: hubtest.With("**")}, {sub: hubtest.As("me", "alice")},
	}
	for i, w := range all {
		w.sub.Heartbeat, w.sub.Form = 10*time.Second, []hub.Form{hub.Events, hub.Events, hub.Envelopes, hub.Lines}[i]
		w.sub.Topics = append(w.sub.Topics, "c")
		w.join(h)
	}
	targets := [][]hub.Address{
		hub.Topics("a"), hub.Topics("a"), hub.Topics("a"), hub.Topics("b"), hub.Topics("c"), hub.Topics("a", "b"),
		{{Kind: hub.ToClient, Name: "me"}},
		{{Kind: hub.ToUser, Name: "alice"}},
		{{Kind: hub.ToBroadcast}},
	}
	for i, b := range script {
		w := all[int(b>>3)%len(all)]
		switch text := tick(i); b & 7 {
		case 0, 1, 2:
			h.Publish(targets[int(b>>3)%len(targets)], text)
		case 3:
			h.PublishEphemeral(targets[int(b>>3)%len(targets)], strings.Repeat(text, int(b>>3)))
		case 4:
			hubtest.Pause(time.Duration(b>>3) * time.Second)
		case 5:
			w.each((*hubtest.Client).Block)
			for n := range int(b >> 3) {
				h.Publish(targets[(i+n)%len(targets)], tick(i+n))
			}
			w.each(func(c *hubtest.Client) { c.Let(int(b >> 4)) })
		case 6:
			w.each((*hubtest.Client).Open)
			w.compare(t)
		case 7:
			w.each((*hubtest.Client).Open)
			w.compare(t)
			w.each(func(c *hubtest.Client) { _ = c.Leave() })
			w.last = h.Position().String()
			for n := range int(b >> 3) {
				h.Publish(targets[(i+n)%len(targets)], tick(i+n))
			}
			w.join(h)
		}
	}
	for _, w := range all {
		w.each((*hubtest.Client).Open)
		w.compare(t)
	}
}
