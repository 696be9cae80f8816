package hubtest

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Client is a client whose stream the test plays by hand.
type Client struct {
	*hub.Client
	hub.Welcome
	LastEventID string // it joined with
	hub         *Hub

	mu     sync.Mutex // guards all below
	credit int        // how many frames the stream takes; below 0 all
	busy   bool       // it is not the socket that it waits for
	sends  int        // how often it was given frames
	blocks []string   // that it took
	gzip   *reader    // nil unless it reads gzip
	end    error      // that the stream was given, once it has all
	aborts int
	panics bool
}

// Event is what a stream took.
type Event struct {
	Text string // in short
	ID   string
}

// Join enters a client whose stream takes everything.
func (h *Hub) Join(s hub.Subscription) *Client {
	h.T.Helper()
	c := h.Enter(s)
	c.Open()
	h.settle()
	return c
}

// TryJoin is Join for a client that may be refused.
func (h *Hub) TryJoin(s hub.Subscription) (*Client, error) {
	c, err := h.TryEnter(s)
	if err == nil {
		c.Open()
		h.settle()
	}
	return c, err
}

// Enter enters a client whose stream is not ready yet.
func (h *Hub) Enter(s hub.Subscription) *Client {
	h.T.Helper()
	c, err := h.TryEnter(s)
	if err != nil {
		h.T.Fatalf("the hub refused a client: %v", err)
	}
	return c
}

// TryEnter is Enter for a client that may be refused.
func (h *Hub) TryEnter(s hub.Subscription) (*Client, error) {
	s.Gzip = s.Gzip || s.Form != hub.Answer && rand.IntN(2) == 0 // what it is told is the same
	return h.EnterAs(s)
}

// EnterAs is TryEnter for a client that reads gzip only if its subscription says so.
func (h *Hub) EnterAs(s hub.Subscription) (*Client, error) {
	c := &Client{hub: h, LastEventID: s.LastEventID}
	options := *s.ClientOptions // the test may go on with its own
	s.ClientOptions = &options
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.Client, c.Welcome, err = h.Hub.Join(s, (*stream)(c)); err != nil {
		return nil, err
	}
	if s.Gzip {
		c.gzip = newReader(h.T, c.Opening(nil))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients = append(h.clients, c)
	return c, nil
}

// Open has the stream take everything.
func (c *Client) Open() { c.Let(-1) }

// Block has it take nothing: its socket is full.
func (c *Client) Block() { c.set(0) }

// Busy has it take nothing, though it says that its socket would take bytes.
func (c *Client) Busy() {
	c.set(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = true
}

// Let has the stream take so many frames more, and says so.
func (c *Client) Let(n int) {
	c.set(n)
	c.Post(1)
}

// Allow is Let without a look at whether the hub has done what there was to do, for tests where everything happens at
// once.
func (c *Client) Allow(n int) {
	c.allow(n)
	c.Post(1)
}

func (c *Client) set(credit int) {
	c.hub.settle()
	c.allow(credit)
}

func (c *Client) allow(credit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.credit, c.busy = credit, false
}

// Panic has the stream panic when it is next given or told something.
func (c *Client) Panic() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.panics = true
}

// Leave ends the client's stream, and returns why it has ended.
func (c *Client) Leave() error { return c.hub.Leave(c.Client, hub.ErrGone) }

// Texts returns what the stream took since it was called last.
func (c *Client) Texts() []string { return TextsOf(c.Events()) }

// TextsOf returns the texts of events.
func TextsOf(events []Event) (texts []string) {
	for _, e := range events {
		texts = append(texts, e.Text)
	}
	return texts
}

// Events is Texts with IDs.
func (c *Client) Events() (events []Event) {
	c.hub.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, block := range c.blocks {
		events = append(events, read(block))
	}
	c.blocks = nil
	return events
}

// Blocks returns what the stream took since it was looked at last, as it goes to the socket.
func (c *Client) Blocks() (blocks []string) {
	c.hub.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	blocks, c.blocks = c.blocks, nil
	return blocks
}

// Want compares what the stream took since it was looked at last.
func (c *Client) Want(texts ...string) {
	c.hub.T.Helper()
	Want(c.hub.T, c.Texts(), texts...)
}

// WantResume checks what a client that joined is told and what it gets then.
func (c *Client) WantResume(resume hub.Resume, id string, texts ...string) {
	c.hub.T.Helper()
	if c.Resume != resume || c.Welcome.ID != id {
		c.hub.T.Errorf("with Last-Event-ID %q the client is told %q at %s; want %q at %s",
			c.LastEventID, c.Resume, c.Welcome.ID, resume, id)
	}
	c.Want(texts...)
}

// End returns why the stream was ended, once it has all that it was to get; nil while it goes on.
func (c *Client) End() error {
	c.hub.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

// Aborts returns how often the stream was cut.
func (c *Client) Aborts() int {
	c.hub.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.aborts
}

// Sends returns how often the stream was given frames.
func (c *Client) Sends() int {
	c.hub.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sends
}

// stream is the side of a Client that its hub sees.
type stream Client

func (s *stream) Send(frames []*hub.Frame, end error) (taken int, ready bool) {
	if do := s.hub.meanwhile.Swap(nil); do != nil && *do != nil {
		(*do)()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panics {
		panic("a wrapper of the response")
	}
	s.sends++
	if taken = len(frames); s.credit >= 0 {
		taken = min(taken, s.credit)
		s.credit -= taken
	}
	for _, f := range frames[:taken] {
		if block, more := s.gzip.read(f.Block()); more {
			s.blocks = append(s.blocks, block)
		}
	}
	if taken == len(frames) && end != nil {
		s.end = end
		s.gzip.finish(hub.EndsCleanly(end))
		go func() { _ = s.hub.Leave(s.Client, end) }()
	}
	return taken, s.credit != 0
}

func (s *stream) Notice(hub.News) (ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panics {
		panic("a wrapper of the response")
	}
	return s.credit != 0
}

func (s *stream) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborts++
	go func() { _ = s.hub.Leave(s.Client, hub.ErrAborted) }()
}

func (s *stream) Blocked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.credit == 0 && !s.busy
}

// read tells in short what a block is.
func read(block string) Event {
	if comment, ok := strings.CutPrefix(block, ": "); ok {
		return Event{Text: ":" + strings.TrimSuffix(comment, "\n")}
	}
	if retry, ok := strings.CutPrefix(block, "retry: "); ok && !strings.Contains(retry, "data: ") {
		return Event{Text: "retry " + strings.TrimSuffix(retry, "\n")}
	}
	e := eventstream.Parse([]byte(block))
	text := string(e.Data)
	if e.Name != "" {
		text = e.Name + " " + text
	}
	if e.HasRetry {
		text += " retry " + strconv.FormatInt(e.Retry, 10)
	}
	return Event{text, e.ID}
}
