package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

// tokens are how many a model's answer has.
const tokens = 150

// answers are those of a model behind sse_resume, each read to its end by somebody whose lines are cut.
type answers struct {
	model *modeltest.Model
	ends  atomic.Int64 // grows when an instance is ended, and again when it is gone: with it go the answers that it asked for

	mu                 sync.Mutex // guards the rest
	begun, whole, lost int        // lost: told as lost
	findings           []string
}

func newAnswers(w *world) *answers {
	a := &answers{model: modeltest.Start(w.t)}
	a.model.On("/model", modeltest.Plain(tokens, 10*time.Millisecond))
	return a
}

func (a *answers) note(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

func (a *answers) finding(format string, args ...any) {
	a.note(func() { a.findings = append(a.findings, fmt.Sprintf("answers: "+format, args...)) })
}

// read reads one answer after the other until ctx ends.
func (a *answers) read(ctx context.Context, w *world) {
	for ctx.Err() == nil {
		(&answer{answers: a, w: w, ends: a.ends.Load()}).read(ctx)
		time.Sleep(w.between(10*time.Millisecond, 100*time.Millisecond))
	}
}

// answer is one, as far as it was read.
type answer struct {
	*answers
	w    *world
	ends int64  // of the answers, when it began
	id   string // the last that came; "" before the first
	next int    // the token to come; above tokens: all have come, and the end
}

// errOver ends the reading of an answer.
var errOver = errors.New("it is over")

// read comes back until the answer is whole, or is told as lost.
func (a *answer) read(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.follow(ctx)
		switch {
		case errors.Is(err, errOver):
			return
		case a.id == "":
			return // nobody can come back to what had no ID yet
		}
		time.Sleep(a.w.between(20*time.Millisecond, 100*time.Millisecond))
	}
}

func (a *answer) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	method := http.MethodPost
	if a.id != "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, a.w.url("/model"), http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "text/event-stream")
	if a.id != "" {
		request.Header.Set("Last-Event-ID", a.id)
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return a.take(response.Body)
	case http.StatusNoContent:
		if a.next <= tokens {
			a.finding("%d tokens had come when it was called over", a.next)
		}
		return errOver
	case http.StatusNotFound:
		a.isLost("is unknown")
		return errOver
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return errors.New(response.Status)
	}
	a.finding("coming back behind token %d was answered %s", a.next, response.Status)
	return errOver
}

func (a *answer) take(body io.Reader) error {
	decoder := eventstream.NewDecoder(body, 1<<20)
	for {
		event, err := decoder.Next()
		switch {
		case err == io.EOF && a.next <= tokens:
			a.finding("it ended in good order with %d tokens", a.next)
			return errOver
		case err == io.EOF:
			a.note(func() { a.whole++ })
			return errOver
		case err != nil:
			return err
		case event.Name == "error":
			a.isLost(string(event.Data))
			return errOver
		}
		if a.id == "" {
			a.note(func() { a.begun++ })
		}
		want := modeltest.Token(a.next)
		if a.next == tokens {
			want = "[DONE]"
		}
		if string(event.Data) != want {
			a.finding("%q came in place of %q", event.Data, want)
			return errOver
		}
		a.id = event.ID
		a.next++
	}
}

// isLost notes that an answer was told as lost, as it may be if the instance that had asked for it was ended.
func (a *answer) isLost(how string) {
	a.note(func() { a.lost++ })
	if a.answers.ends.Load() == a.ends && !a.w.lossy {
		a.finding("behind token %d it was lost, though its instance lives: %s", a.next, how)
	}
}
