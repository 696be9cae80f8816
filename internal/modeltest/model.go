// Package modeltest plays an AI's model, as a proxy meets it: a server that streams an answer to each request,
// with everything that models do. It answers by itself as [Model.On] says, or as the test says:
//
//	model := modeltest.Start(t)
//	// ... somebody asks ...
//	call := model.Asked(t)
//	call.Say("data: hello\n\n")
//	call.End()
//
// It counts the requests, and those whose client left before the end.
package modeltest

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

// Model is a server of a test's own. Its methods may be called from any goroutine, but for those with a
// [testing.TB].
type Model struct {
	server *httptest.Server
	asked  chan *Call
	ended  chan struct{} // closed when the test ends

	mu      sync.Mutex // guards the rest
	replies map[string]func(*Call)
	silent  bool
	calls   int
	left    int
}

// Start starts a model. It ends with the test.
func Start(t testing.TB) *Model {
	m := &Model{asked: make(chan *Call, 10_000), ended: make(chan struct{}), replies: make(map[string]func(*Call))}
	m.server = httptest.NewServer(http.HandlerFunc(m.serve))
	t.Cleanup(func() {
		close(m.ended)
		m.server.CloseClientConnections()
		m.server.Close()
	})
	return m
}

// Addr returns host and port.
func (m *Model) Addr() string { return m.server.Listener.Addr().String() }

// On has requests of this path answered by reply, and not by the test.
func (m *Model) On(path string, reply func(*Call)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.replies[path] = reply
}

// Silent has answers that are the test's begin with its first word. Without it, status and headers go out at
// once, as those of most models do.
func (m *Model) Silent() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silent = true
}

// Calls returns how many requests there have been.
func (m *Model) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// Left returns how many clients have left before the end of their answer.
func (m *Model) Left() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left
}

// Asked waits for the next request that is the test's to answer.
func (m *Model) Asked(t testing.TB) *Call {
	t.Helper()
	select {
	case call := <-m.asked:
		return call
	case <-time.After(patience):
		t.Fatal("the model was not asked")
		return nil
	}
}

// NotAsked fails the test if the model was asked, beyond what Asked has returned.
func (m *Model) NotAsked(t testing.TB) {
	t.Helper()
	select {
	case call := <-m.asked:
		t.Errorf("the model was asked: %s %s %q", call.Request.Method, call.Request.URL, call.Body)
	default:
	}
}

func (m *Model) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	call := &Call{Request: r, Body: string(body), w: w, over: make(chan struct{})}
	m.mu.Lock()
	m.calls++
	reply, silent := m.replies[r.URL.Path], m.silent
	m.mu.Unlock()
	if reply != nil {
		reply(call)
		if call.HasLeft() {
			m.noteLeft()
		}
		call.closeZip()
		call.finish()
		return
	}
	if !silent {
		call.Begin(http.StatusOK)
	}
	m.asked <- call
	select {
	case <-call.over:
	case <-m.ended:
	case <-r.Context().Done():
		m.noteLeft()
		select { // the test may still write
		case <-call.over:
		case <-m.ended:
		}
	}
	call.finish()
}

func (m *Model) noteLeft() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left++
}

// Call is one request and its answer. Its methods belong to one goroutine: the test's, or that of the reply.
type Call struct {
	Request *http.Request
	Body    string

	w      http.ResponseWriter
	begun  bool
	zip    *gzip.Writer // nil = the answer is not compressed
	broken bool
	over   chan struct{}
}

// Header returns the headers of the answer, to be set before it begins.
func (c *Call) Header() http.Header { return c.w.Header() }

// Gzip compresses the answer, each piece so that it can be read at once.
func (c *Call) Gzip() {
	c.Header().Set("Content-Encoding", "gzip")
	c.zip = gzip.NewWriter(c.w)
}

// Begin sends the status and the headers. Without a Content-Type the answer is an event stream.
func (c *Call) Begin(status int) {
	if c.Header().Get("Content-Type") == "" {
		c.Header().Set("Content-Type", "text/event-stream")
	}
	c.begun = true
	c.w.WriteHeader(status)
	c.flush()
}

// Say sends a piece of the answer at once, with a 200 before the first.
func (c *Call) Say(text string) {
	if !c.begun {
		c.Begin(http.StatusOK)
	}
	if c.zip != nil {
		_, _ = io.WriteString(c.zip, text)
		_ = c.zip.Flush()
	} else {
		_, _ = io.WriteString(c.w, text)
	}
	c.flush()
}

func (c *Call) flush() { _ = http.NewResponseController(c.w).Flush() }

// End ends the answer in good order. A reply ends its answer by returning, too.
func (c *Call) End() {
	c.closeZip()
	close(c.over)
}

func (c *Call) closeZip() {
	if c.zip != nil && !c.broken {
		_ = c.zip.Close()
	}
}

// BreakOff cuts the connection in the middle of the answer.
func (c *Call) BreakOff() {
	c.broken = true
	close(c.over)
}

func (c *Call) finish() {
	if c.broken {
		panic(http.ErrAbortHandler)
	}
}

// Gone waits until the client has left.
func (c *Call) Gone(t testing.TB) {
	t.Helper()
	select {
	case <-c.Request.Context().Done():
	case <-time.After(patience):
		t.Fatal("the client of the model has not left")
	}
}

// HasLeft reports whether the client has left.
func (c *Call) HasLeft() bool { return c.Request.Context().Err() != nil }
