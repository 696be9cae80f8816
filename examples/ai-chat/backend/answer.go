package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// answer is what the model says to one prompt. It grows, and is kept whole, so that it can be published
// again from its beginning.
type answer struct {
	id       string
	clientID string // of the page that asked
	stop     context.CancelFunc

	mu     sync.Mutex // guards the rest
	tokens []string
	done   bool
	err    string
	more   chan struct{} // closed and made anew at every change
}

func newAnswer(id, clientID string, stop context.CancelFunc) *answer {
	return &answer{id: id, clientID: clientID, stop: stop, more: make(chan struct{})}
}

func (a *answer) add(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens = append(a.tokens, token)
	a.changedLocked()
}

func (a *answer) end(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = true
	if err != nil {
		a.err = err.Error()
	}
	a.changedLocked()
}

func (a *answer) changedLocked() {
	close(a.more)
	a.more = make(chan struct{})
}

// snapshot is an answer as far as it has come.
type snapshot struct {
	Tokens []string `json:"tokens"`
	Done   bool     `json:"done"`
	Error  string   `json:"error,omitempty"`

	more <-chan struct{} // closed when there is more
}

func (a *answer) snapshot() snapshot {
	a.mu.Lock()
	defer a.mu.Unlock()
	return snapshot{append([]string{}, a.tokens...), a.done, a.err, a.more}
}

// writeTo writes the answer as an event stream while it grows, until its end. The tokens are numbered, so
// that the page can tell one that it has already.
func (a *answer) writeTo(ctx context.Context, w io.Writer) error {
	for n := 0; ; {
		now := a.snapshot()
		var events bytes.Buffer
		for ; n < len(now.Tokens); n++ {
			writeEvent(&events, map[string]any{"n": n, "text": now.Tokens[n]})
		}
		if now.Error != "" {
			writeEvent(&events, map[string]any{"error": now.Error})
		}
		if now.Done {
			events.WriteString("data: [DONE]\n\n")
		}
		if _, err := w.Write(events.Bytes()); err != nil || now.Done {
			return err
		}
		select {
		case <-now.more:
		case <-time.After(time.Second):
			// Go's client finds out that a line has broken when it writes to it. Comments are nobody's events.
			if _, err := io.WriteString(w, ":\n\n"); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func writeEvent(w io.Writer, data any) {
	text, _ := json.Marshal(data) // strings and numbers only
	fmt.Fprintf(w, "data: %s\n\n", text)
}

// publisher sends answers to Caddy.
type publisher struct {
	urls    []string // of the instances; any of them will do
	token   string
	unheard time.Duration // how long the page may be away until Caddy ends the answer
}

// errUnheard ends an answer that nobody listens to any more.
var errUnheard = errors.New("nobody was listening any more, so the model was stopped")

// publish publishes an answer while it grows, in one request. Should that break, it is made again, at the
// next instance, with the whole answer and the same key: what was published already is not published
// twice.
func (p publisher) publish(ctx context.Context, a *answer) error {
	for n := 0; ; n++ {
		again, err := p.try(ctx, p.urls[n%len(p.urls)], a)
		if err == nil || !again {
			return err
		}
		log.Printf("answer %s: %v; trying again", a.id, err)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// try makes one request. It tells whether another might go better.
func (p publisher) try(ctx context.Context, at string, a *answer) (again bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // also ends the writing
	body, writer := io.Pipe()
	go func() { writer.CloseWithError(a.writeTo(ctx, writer)) }()

	target := at + "?" + url.Values{
		"client_id": {a.clientID}, "event": {a.id}, "unheard": {p.unheard.String()},
	}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, body)
	if err != nil {
		return false, err
	}
	request.Header.Set("Authorization", "Bearer "+p.token)
	request.Header.Set("Content-Type", "text/event-stream")
	request.Header.Set("Idempotency-Key", a.id)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return true, fmt.Errorf("publishing: %w", err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return false, nil
	case http.StatusGone:
		return false, errUnheard
	}
	detail, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	err = fmt.Errorf("publishing: %s: %s", response.Status, detail)
	switch response.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true, err
	}
	return response.StatusCode >= 500, err
}
