package soak

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	neturl "net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// reader subscribes in one of the forms, on whatever instance, comes back with the last ID that it saw, and keeps all
// that it got, as events.
type reader struct {
	w      *world
	name   string
	form   string   // "" is sse; "mercure" is its protocol
	gzip   bool     // it takes streams compressed
	asks   []string // topics and patterns
	user   string   // who it is, if anybody
	covers []string // what reaches it
	values bool     // it reads values, of which only the newest count
	slow   bool     // it reads a little at a time
	leaves bool     // it goes by itself now and then

	mu      sync.Mutex // guards the rest
	from    string     // the ID that its first stream began with
	lastID  string
	events  []eventstream.Event
	visits  int
	trouble string // why it came back last
}

// readers are one of each kind that there is.
func (w *world) readers() []*reader {
	all := []*reader{
		{name: "sse", asks: topics[:1]},
		{name: "sse of several", asks: topics},
		{name: "sse by pattern", asks: []string{"soak/*"}, covers: topics},
		{name: "sse of a user", asks: topics[:1], user: "u1", covers: []string{topics[0], toUser}},
		{name: "sse of another user", asks: topics[1:2], user: "u2"},
		{name: "sse that leaves", asks: topics, leaves: true},
		{name: "sse that is slow", asks: topics[1:], slow: true},
		{name: "envelope", form: "envelope", asks: []string{"soak/**"}, covers: topics},
		{name: "ndjson", form: "ndjson", asks: topics},
		{name: "ndjson that leaves", form: "ndjson", asks: topics[:2], leaves: true},
		{name: "polls", form: "json", asks: topics},
		{name: "sse, compressed", asks: topics, gzip: true},
		{name: "ndjson, compressed, that leaves", form: "ndjson", asks: topics[:2], gzip: true, leaves: true},
		{name: "mercure", form: "mercure", asks: topics},
		{name: "mercure by template, slowly", form: "mercure", asks: []string{"soak/{name}"}, covers: topics, slow: true},
		{name: "mercure that leaves", form: "mercure", asks: topics[:2], leaves: true},
		{name: "values", asks: []string{valueTopic}, values: true},
		{name: "values, slowly", form: "envelope", asks: []string{"values/*"}, values: true, slow: true},
		{name: "values, compressed, slowly", asks: []string{valueTopic}, values: true, gzip: true, slow: true},
		{name: "values, coming and going", form: "ndjson", asks: []string{valueTopic}, values: true, leaves: true},
	}
	for _, r := range all {
		r.w = w
		if r.covers == nil {
			r.covers = r.asks
		}
	}
	return all
}

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		visit := r.follow
		if r.form == "json" {
			visit = r.poll
		}
		err := visit(ctx)
		r.mu.Lock()
		r.visits++
		if err != nil {
			r.trouble = err.Error()
		}
		r.mu.Unlock()
		if r.form != "json" || err != nil {
			time.Sleep(r.w.between(50*time.Millisecond, 150*time.Millisecond))
		}
	}
}

// get begins a request.
func (r *reader) get(ctx context.Context, query neturl.Values) (*http.Response, error) {
	query["topic"] = r.asks
	path, id := "/events", r.last()
	switch r.form {
	case "":
	case "mercure":
		path, id = mercurePath, cmp.Or(id, earliest)
	default:
		query.Set("format", r.form)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.w.url(path+"?"+query.Encode()), nil)
	if err != nil {
		return nil, err
	}
	if r.gzip {
		request.Header.Set("Accept-Encoding", "gzip")
	}
	if id != "" {
		request.Header.Set("Last-Event-ID", id)
	}
	if r.user != "" {
		request.Header.Set("X-User", r.user)
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	response, err := transport.RoundTrip(request)
	switch {
	case err != nil:
		return nil, err
	case response.StatusCode != http.StatusOK:
		body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		_ = response.Body.Close()
		return nil, fmt.Errorf("%s: %s", response.Status, body)
	case r.gzip != (response.Header.Get("Content-Encoding") == "gzip"):
		r.w.t.Errorf("%s gets the coding %q", r.name, response.Header.Get("Content-Encoding"))
	case r.form == "mercure":
		r.arrive(id, response.Header.Get("Last-Event-ID"))
	}
	return response, nil
}

// follow reads one stream to its end.
func (r *reader) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.leaves {
		time.AfterFunc(r.w.between(0, 3*time.Second), cancel)
	}
	const silence = 8 * time.Second // a heartbeat comes each second
	watch := time.AfterFunc(silence, cancel)
	defer watch.Stop()
	response, err := r.get(ctx, neturl.Values{})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	line := &watched{Reader: response.Body, came: func() { watch.Reset(silence) }}
	if r.slow {
		line.pause = func() {
			if random(r.w, func(rng *rand.Rand) bool { return rng.IntN(50) == 0 }) {
				time.Sleep(r.w.between(0, 2*time.Second)) // it stands still
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	var body io.Reader = line
	if r.gzip {
		if body, err = gzip.NewReader(line); err != nil {
			return err
		}
	}
	if r.form == "ndjson" {
		return r.readLines(body)
	}
	decoder := eventstream.NewDecoder(body, 1<<20)
	for {
		event, err := decoder.Next()
		if err != nil {
			return err
		}
		if err := r.take(event); err != nil {
			return err
		}
	}
}

// watched is a body that tells when something comes, and may be read slowly.
type watched struct {
	io.Reader
	came, pause func()
}

func (b *watched) Read(p []byte) (int, error) {
	if b.pause != nil {
		b.pause()
		p = p[:min(len(p), 2<<10)]
	}
	n, err := b.Reader.Read(p)
	b.came()
	return n, err
}

// object is what a message is in every form but sse.
type object struct {
	ID, Event, Data string
}

func (r *reader) readLines(body io.Reader) error {
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err // what has no end was cut
		}
		if len(line) <= 1 {
			continue // a heartbeat
		}
		var o object
		if err := json.Unmarshal(line, &o); err != nil {
			return fmt.Errorf("reading the line %q: %w", line, err)
		}
		r.note(o.event())
	}
}

func (o object) event() eventstream.Event {
	return eventstream.Event{ID: o.ID, Name: o.Event, Data: []byte(o.Data), HasData: true}
}

// poll makes one call.
func (r *reader) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	response, err := r.get(ctx, neturl.Values{"wait": {"1s"}, "limit": {"200"}})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Resume   string
		Messages []object
		LastID   string `json:"last_id"`
		More     bool
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if r.last() == "" {
		r.note(eventstream.Event{Name: "connected", ID: answer.LastID})
		return nil
	}
	if answer.Resume == "gap" {
		r.note(eventstream.Event{Name: "gap"})
	}
	for _, o := range answer.Messages {
		r.note(o.event())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastID = answer.LastID
	return nil
}

// take notes an event of a stream.
func (r *reader) take(event eventstream.Event) error {
	if event.HasData && event.Name == "" && r.form == "envelope" {
		var o object
		if err := json.Unmarshal(event.Data, &o); err != nil {
			return fmt.Errorf("reading the envelope %q: %w", event.Data, err)
		}
		event.Data = []byte(o.Data)
	}
	r.note(event)
	return nil
}

// note keeps what a reader got, and where it goes on.
func (r *reader) note(event eventstream.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if event.ID != "" {
		r.lastID = event.ID
	}
	switch {
	case event.Name == "connected":
		if r.from == "" {
			r.from = event.ID
		}
		if strings.Contains(string(event.Data), `"resume":"gap"`) {
			r.keep(eventstream.Event{Name: "gap"}) // the event itself may be cut off
		}
	case event.Name == "gap", event.HasData && event.Name == "":
		r.keep(event)
	}
}

func (r *reader) keep(event eventstream.Event) {
	if r.w.tamper == nil || r.values {
		r.events = append(r.events, event)
		return
	}
	r.events = append(r.events, r.w.tamper(event)...)
}

func (r *reader) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastID
}

func (r *reader) isThere() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from != ""
}

func (r *reader) got() []eventstream.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// newest returns at most so many of a reader's events.
func (r *reader) newest(most int) []eventstream.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events[max(0, len(r.events)-most):])
}

// awaitEnds waits until a reader has the last message of all that reaches it, and returns those that it lacks.
func (r *reader) awaitEnds(patience time.Duration) (missing map[string]bool) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		missing = make(map[string]bool)
		if r.values {
			for _, key := range keys {
				missing[r.w.values.last(key)] = true
			}
		} else {
			for _, to := range r.covers {
				missing["end of "+to] = true
			}
		}
		for _, e := range r.newest(5000) {
			delete(missing, string(e.Data))
		}
		if len(missing) == 0 {
			break
		}
	}
	return missing
}
