package e2etest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// maxEvent bounds one event of a stream, far above what tests send.
const maxEvent = 64 << 20

// Stream is one subscription over one connection. It is read at once, however
// slowly the test takes the events, so that no test is a slow client by
// accident; [Stall] is one on purpose.
//
// One goroutine at a time may call Next and Expect. The other methods may be
// called from any.
type Stream struct {
	// Response is the answer that began the stream. Its body is not the test's.
	Response *http.Response

	cancel    context.CancelFunc
	free      func()
	each      func(eventstream.Event)
	connected chan Connected // holds the first event, unless it was another
	wake      chan struct{}  // holds something when queue may have grown
	done      chan struct{}  // closed when the stream has ended
	err       error          // how it ended; to be read after done

	mu     sync.Mutex // guards the rest
	queue  []eventstream.Event
	lastID string
	retry  time.Duration
	raw    *bytes.Buffer // nil unless KeepRaw
}

// Connected is the event that begins a stream.
type Connected struct {
	Status    string   `json:"status"`
	ClientID  string   `json:"client_id"`
	Generated bool     `json:"generated"`
	Topics    []string `json:"topics"` // patterns, too
	Resume    string   `json:"resume"` // none, complete or gap

	ID    string        `json:"-"` // the position before the first message
	Retry time.Duration `json:"-"`
}

// Refused is the error of a subscription that was answered otherwise than with
// 200 and an event stream.
type Refused struct{ Answer }

func (r *Refused) Error() string {
	return fmt.Sprintf("subscribing: %d %s: %s", r.Status, r.Header.Get("Content-Type"), r.Body)
}

// Each has every event but `connected` given to f instead of being kept for
// Next. It is called by the goroutine that reads the stream.
func Each(f func(eventstream.Event)) Option {
	return func(r *request) { r.each = f }
}

// KeepRaw keeps the bytes of the stream for [Stream.Raw].
func KeepRaw() Option {
	return func(r *request) { r.keep = true }
}

// Subscribe opens a stream and closes it when the test ends. The test fails
// unless the answer is 200 with an event stream. One that is compressed is
// read as others are; it ends in good order only with a right trailer.
func Subscribe(t testing.TB, url string, options ...Option) *Stream {
	t.Helper()
	stream, err := Open(context.Background(), url, options...)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	t.Cleanup(stream.Close)
	return stream
}

// Open is [Subscribe] for any goroutine. The stream ends with ctx or Close; the
// caller calls Close in either case. The error may be [*Refused].
func Open(ctx context.Context, url string, options ...Option) (*Stream, error) {
	r := newRequest(options)
	r.header.Set("Accept", "text/event-stream")
	unasked := compressed() && r.header["Accept-Encoding"] == nil
	if unasked {
		r.header.Set("Accept-Encoding", "gzip")
	}
	ctx, cancel := context.WithCancel(ctx)
	resp, free, err := r.send(ctx, cmp.Or(r.method, http.MethodGet), url, r.body)
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		answer, err := readAnswer(resp)
		cancel()
		free()
		return nil, errors.Join(&Refused{answer}, err)
	}
	if resp.Header.Get("Content-Encoding") == "gzip" {
		resp.Body = &gunzipped{body: resp.Body}
		if unasked { // the test need not know
			resp.Header.Del("Content-Encoding")
		}
	}
	s := &Stream{
		Response:  resp,
		cancel:    cancel,
		free:      free,
		each:      r.each,
		connected: make(chan Connected, 1),
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		lastID:    r.header.Get("Last-Event-ID"),
	}
	if r.keep {
		s.raw = new(bytes.Buffer)
	}
	go s.read()
	return s, nil
}

// read ends when the connection does, which Close sees to.
func (s *Stream) read() {
	defer close(s.done)
	decoder := eventstream.NewDecoder(tee{s}, maxEvent)
	for first := true; ; first = false {
		event, err := decoder.Next()
		if err != nil {
			s.err = err
			_ = s.Response.Body.Close()
			return
		}
		s.take(event, first)
	}
}

func (s *Stream) take(event eventstream.Event, first bool) {
	s.mu.Lock()
	if event.HasRetry {
		s.retry = time.Duration(event.Retry) * time.Millisecond
	}
	if first && event.Name == "connected" {
		defer s.mu.Unlock()
		connected := Connected{ID: event.ID, Retry: s.retry}
		if err := json.Unmarshal(event.Data, &connected); err != nil {
			connected.Status = fmt.Sprintf("unreadable %q: %v", event.Data, err)
		}
		s.lastID = event.ID
		s.connected <- connected
		return
	}
	if s.each != nil {
		s.note(event)
		s.mu.Unlock()
		if event.HasData {
			s.each(event)
		}
		return
	}
	s.queue = append(s.queue, event)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// note is called with mu held, when an event goes to the test.
func (s *Stream) note(event eventstream.Event) {
	if event.ID != "" {
		s.lastID = event.ID
	}
}

// Next returns the next event that has data, or why there is none: [ErrTimeout],
// io.EOF when the server ended the stream in good order, or another error when
// the connection broke. The event `connected` at the beginning is left out.
func (s *Stream) Next(timeout time.Duration) (eventstream.Event, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		if event, ok := s.pop(); ok {
			return event, nil
		}
		select {
		case <-s.wake:
		case <-timer.C:
			return eventstream.Event{}, fmt.Errorf("no event within %v: %w", timeout, ErrTimeout)
		case <-s.done:
			if event, ok := s.pop(); ok {
				return event, nil
			}
			return eventstream.Event{}, s.err
		}
	}
}

func (s *Stream) pop() (eventstream.Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		event := s.queue[0]
		s.queue = s.queue[1:]
		s.note(event)
		if event.HasData {
			return event, true
		}
	}
	return eventstream.Event{}, false
}

// Expect returns the next event; the test fails unless it is a message with
// this data.
func (s *Stream) Expect(t testing.TB, data string) eventstream.Event {
	t.Helper()
	event, err := s.Next(patience)
	if err != nil {
		t.Fatalf("waiting for %q: %v", data, err)
	}
	if string(event.Data) != data {
		t.Fatalf("got the event %q with data %q, want data %q", event.Name, event.Data, data)
	}
	return event
}

// Connected returns the event that began the stream; the test fails if there is
// none.
func (s *Stream) Connected(t testing.TB) Connected {
	t.Helper()
	connected, err := s.awaitConnected(patience)
	if err != nil {
		t.Fatalf("waiting for the event connected: %v", err)
	}
	return connected
}

func (s *Stream) awaitConnected(timeout time.Duration) (Connected, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case connected := <-s.connected:
		s.connected <- connected // for the next caller
		return connected, nil
	case <-timer.C:
		return Connected{}, ErrTimeout
	case <-s.done:
	}
	select {
	case connected := <-s.connected:
		s.connected <- connected
		return connected, nil
	default:
		return Connected{}, s.err
	}
}

// LastID returns the ID of the last event that Next returned, or before that
// the ID the stream began with: what a browser that had got as far would send.
func (s *Stream) LastID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastID
}

// Retry returns the last reconnect delay the server told, even one that Next
// has not come to.
func (s *Stream) Retry() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retry
}

// Raw returns all bytes received so far. It needs [KeepRaw].
func (s *Stream) Raw() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw == nil {
		return ""
	}
	return s.raw.String()
}

// Ended returns how the stream ended, as [Stream.Next] would, without taking
// events: io.EOF when the server ended it in good order.
func (s *Stream) Ended(timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-s.done:
		return s.err
	case <-timer.C:
		return ErrTimeout
	}
}

// Close leaves, as a closed tab does, and waits until nothing of the stream is
// left here. Events that had arrived stay for Next.
func (s *Stream) Close() {
	s.cancel()
	<-s.done
	s.free()
}

// tee reads the body of a stream and keeps a copy if asked to.
type tee struct{ s *Stream }

func (r tee) Read(p []byte) (int, error) {
	n, err := r.s.Response.Body.Read(p)
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.raw != nil {
		r.s.raw.Write(p[:n])
	}
	return n, err
}

var _ io.Reader = tee{}

// Stall subscribes over HTTP/1.1 and then reads nothing, through a small socket
// buffer. The connection is the test's to read from after all; it is closed
// when the test ends.
func Stall(t testing.TB, url string) net.Conn {
	t.Helper()
	target, err := neturl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", target.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", target.RequestURI(), target.Host)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
