package sse

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// record asks the upstream, records the answer if it is a stream, and gives it to the client. A request whose
// key is under way or kept is given that answer.
func (h *Resume) record(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, asked resumeRequest) error {
	body, ok, err := h.readBody(r)
	switch {
	case err != nil:
		return err
	case !ok:
		return next.ServeHTTP(w, r)
	}
	request := h.request(r, asked, body)
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context())) // the upstream calls it at its end
	answer, mine, err := h.live.Answers.Open(r.Context(), request, cancel)
	switch {
	case r.Context().Err() != nil && answer == nil:
		return nil
	case err != nil:
		return h.refuse(w, problem.New(http.StatusUnprocessableEntity,
			"this key was used for another request; use a new key for a new request"))
	}
	if !mine {
		defer answer.Leave()
		kept, err := h.awaitDecided(r, answer)
		switch {
		case err != nil:
			return nil
		case kept:
			return h.serve(w, r, answer, 0, nil)
		}
		request.Key, request.Name = "", "" // the first answer was none to keep: this one is by itself
		if answer, _, err = h.live.Answers.Open(r.Context(), request, cancel); err != nil {
			return err
		}
	}
	defer answer.Leave()
	u := &upstream{
		answer: answer,
		ids:    h.IDs == "replace",
		logger: h.logger,
		cancel: cancel,
		w:      w,
		header: w.Header().Clone(),
		begun:  make(chan struct{}),
		done:   make(chan struct{}),

		continued: len(body) > 0 && r.Header.Get("Expect") != "",
	}
	asking := ctx
	if len(body) == 0 && r.Method == http.MethodPost {
		asking = u.askOnce(ctx)
	}
	u.start(detach(asking, r, body, u), next)
	return h.serveFirst(w, r, u, ctx.Done())
}

// serveFirst gives the client of the first request its answer, or what is none to keep. If the answer is ended before
// it begins, the upstream is cancelled.
func (h *Resume) serveFirst(w http.ResponseWriter, r *http.Request, u *upstream, cancelled <-chan struct{}) error {
	select {
	case <-u.begun:
	case <-u.done: // and not yet when it is known to be none to keep: it costs less to wake up once
	case <-cancelled:
		if state, _ := u.answer.State(); state == answers.Pending { // not ended, so the upstream is to say what it is
			<-u.done
		}
	case <-r.Context().Done():
		if u.leave() {
			return nil
		}
	}
	if !u.recorded() {
		if u.leave() { // it was ended before it began
			return h.serve(w, r, u.answer, 0, nil)
		}
		return u.await(r)
	}
	defer u.leave()
	return h.serve(w, r, u.answer, 0, u)
}

// awaitDecided waits until it is known whether an answer is kept. The error is for a client that has gone, or an
// instance that exits.
func (h *Resume) awaitDecided(r *http.Request, a *answers.Answer) (kept bool, err error) {
	select {
	case <-a.Decided():
		state, _ := a.State()
		return state != answers.Passed, nil
	case <-r.Context().Done():
		return false, r.Context().Err()
	case <-h.live.Answers.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// resume answers a request that names an answer by its ID.
func (h *Resume) resume(w http.ResponseWriter, r *http.Request, asked resumeRequest) error {
	answer, err := h.find(r, asked)
	switch {
	case err != nil:
		return h.refuse(w, away())
	case answer == nil:
		h.live.Answers.CountResume(errUnknownAnswer)
		return h.refuse(w, notKept())
	}
	defer answer.Leave()
	kept, err := h.awaitDecided(r, answer)
	switch {
	case err != nil:
		return nil
	case kept && asked.counts && asked.after == 0 && answer.Head().Kind == answers.Events: // lines are counted by clients
		h.live.Answers.CountResume(answers.ErrNeverGiven)
		return h.refuse(w, neverGiven())
	}
	return h.serve(w, r, answer, asked.after, nil)
}

func neverGiven() *problem.Problem { return malformed("the answer has not given out this number") }

// find returns the answer that a request asks for, or nil; see [answers.Store.Find].
func (h *Resume) find(r *http.Request, asked resumeRequest) (*answers.Answer, error) {
	request := &answers.Request{Owner: asked.owner, Host: r.Host, Name: asked.name, Bounds: h.bounds()}
	if asked.byID {
		return h.live.Answers.Find(r.Context(), request, asked.id)
	}
	return h.live.Answers.Named(r.Context(), request)
}

func away() *problem.Problem {
	return problem.New(http.StatusServiceUnavailable,
		"the answer may be on another instance, which can't be asked now; try again")
}

var errUnknownAnswer = errors.New("there is no such answer")

func notKept() *problem.Problem {
	return problem.New(http.StatusNotFound, "there is no such answer, or no longer; ask again to get a new one")
}

// resumeNamed answers a GET that asks by name: with the answer from its start if it goes on, or else with 204.
func (h *Resume) resumeNamed(w http.ResponseWriter, r *http.Request, asked resumeRequest) error {
	answer, err := h.find(r, asked)
	switch {
	case err != nil:
		return h.refuse(w, away())
	case answer == nil:
		return noContent(w)
	}
	defer answer.Leave()
	waited := answer.Status().State == answers.Pending
	kept, err := h.awaitDecided(r, answer)
	switch {
	case err != nil:
		return nil
	case !kept, answer.Status().State != answers.Live && !(waited && answer.Head().Header != nil):
		return noContent(w) // who has waited for its first byte gets an answer that is over meanwhile, too
	}
	h.live.Answers.CountAttached()
	return h.serve(w, r, answer, 0, nil)
}

func noContent(w http.ResponseWriter) error {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// stop answers a DELETE. What is unknown, or another's, is no error, and no hint that it exists.
func (h *Resume) stop(w http.ResponseWriter, r *http.Request, asked resumeRequest) error {
	if asked.refusal != nil {
		return noContent(w)
	}
	answer, err := h.find(r, asked)
	if err != nil { // it goes on, and who asked should know
		return h.refuse(w, away())
	}
	if answer != nil {
		answer.Stop()
		answer.Leave()
	}
	return noContent(w)
}

// tellStatus answers a request for the state of an answer.
func (h *Resume) tellStatus(w http.ResponseWriter, r *http.Request, asked resumeRequest) error {
	answer, err := h.find(r, asked)
	switch {
	case err != nil:
		return h.refuse(w, away())
	case answer == nil:
		return h.refuse(w, notKept())
	}
	defer answer.Leave()
	if err := answer.Refresh(r.Context()); err != nil {
		return h.refuse(w, away())
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return problem.WriteJSON(w, http.StatusOK, answer.Status())
}

// serve gives a client what follows an event of an answer. Every refusal comes before the headers. For the client
// of the first request u is the upstream.
func (h *Resume) serve(
	w http.ResponseWriter, r *http.Request, a *answers.Answer, after uint64, u *upstream,
) error {
	if h.live.Answers.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	read := func() (*answers.Reader, error) { return a.Resume(r.Context(), after) }
	if u != nil {
		read = a.ReadFirst
	}
	reader, err := read()
	if u == nil && r.Header.Get("Last-Event-ID") != "" {
		h.live.Answers.CountResume(err)
	}
	trimmed, isTrimmed := errors.AsType[*answers.TrimmedError](err)
	switch {
	case errors.Is(err, answers.ErrOver):
		return h.allHad(w, r, a)
	case errors.Is(err, answers.ErrAway):
		return h.refuse(w, away())
	case errors.Is(err, answers.ErrNeverGiven):
		return h.refuse(w, neverGiven())
	case isTrimmed:
		refusal := problem.New(http.StatusGone, "what follows is no longer kept")
		refusal.Oldest = trimmed.Oldest
		return h.refuse(w, refusal)
	case err != nil:
		return h.refuse(w, notKept())
	}
	defer reader.Close()
	setAnswerHeaders(w, a, u != nil)
	w.WriteHeader(http.StatusOK)
	stream := &resumeStream{
		w: w, r: r, reader: reader, controller: http.NewResponseController(w), closed: h.live.Answers.Context(),
		heartbeat: time.Duration(h.Heartbeat), lines: a.Head().Kind == answers.Lines,
	}
	defer h.live.CloseAtExit(r)()
	end := stream.run()
	if end != answers.Cut {
		return nil
	}
	if state, _ := a.State(); state == answers.Passed && u != nil && stream.closed.Err() == nil {
		u.handOver()
		return u.await(r)
	}
	panic(http.ErrAbortHandler)
}

// allHad answers a client that has had all of an answer that is over.
func (h *Resume) allHad(w http.ResponseWriter, r *http.Request, a *answers.Answer) error {
	if state, reason := a.State(); state == answers.Aborted && a.Head().Header == nil {
		return h.refuse(w, problem.New(http.StatusGatewayTimeout, "the upstream did not answer: %s", reason))
	}
	setAnswerHeaders(w, a, false)
	if r.Method != http.MethodPost {
		w.Header().Del("Content-Type")
		return noContent(w)
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

// setAnswerHeaders sets the headers of an answer. Cookies are for the client of the first request only.
func setAnswerHeaders(w http.ResponseWriter, a *answers.Answer, first bool) {
	header := w.Header()
	for name, values := range a.Head().Header {
		if name != "Set-Cookie" || first {
			header[name] = append([]string(nil), values...)
		}
	}
	header.Set("Content-Location", contentLocation(a))
}

// resumeStream writes an answer to a client.
type resumeStream struct {
	w          http.ResponseWriter
	r          *http.Request
	reader     *answers.Reader
	controller *http.ResponseController
	closed     context.Context // ends when all readers are cut
	heartbeat  time.Duration   // 0 or less for none
	lines      bool
}

// comment keeps a line open. No empty line follows: some clients take one for the end of an event.
var comment = []byte(":\n")

// run writes until the answer ends or the client leaves. It returns how it ended; Open if the client left. While it
// waits it listens to the reader alone, and whatever else may happen wakes that: to select among channels, one of
// them a ticker's, would cost for each event.
func (s *resumeStream) run() answers.End {
	defer context.AfterFunc(s.closed, func() { // a write to a client that takes nothing would hold up the exit
		_ = s.controller.SetWriteDeadline(time.Unix(1, 0))
		s.reader.Poke()
	})()
	defer context.AfterFunc(s.r.Context(), s.reader.Poke)()
	_ = s.controller.Flush()
	last := time.Now()
	var due atomic.Bool // it is time to look whether the upstream is silent
	var timer *time.Timer
	if s.heartbeat > 0 && !s.lines {
		timer = time.AfterFunc(s.heartbeat, func() {
			due.Store(true)
			s.reader.Poke()
		})
		defer timer.Stop()
	}
	buf := make([]byte, 0, 8<<10)
	for {
		out, end := s.reader.Next(buf[:0])
		switch {
		case s.closed.Err() != nil:
			return answers.Cut
		case len(out) > 0:
		case end != answers.Open:
			return end
		case s.r.Context().Err() != nil:
			return answers.Open
		case due.Swap(false):
			if rest := s.heartbeat - time.Since(last); rest > 0 {
				timer.Reset(rest)
				continue
			}
			timer.Reset(s.heartbeat)
			out = comment
		default:
			<-s.reader.Wake()
			continue
		}
		if !s.write(out) {
			return answers.Open
		}
		last = time.Now()
	}
}

func (s *resumeStream) write(b []byte) bool {
	if _, err := s.w.Write(b); err != nil {
		return false
	}
	return s.controller.Flush() == nil
}
