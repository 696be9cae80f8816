package sse

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptrace"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/internal/answers"
)

// upstream is a request that goes to the handlers behind, detached from its client: on a goroutine and with a
// request of its own, which go on when the client leaves. It is their ResponseWriter. What they answer is
// recorded if it is a stream, and else passed on to the client.
type upstream struct {
	answer *answers.Answer
	ids    bool // ids of the upstream are replaced
	logger *zap.Logger
	cancel context.CancelCauseFunc

	continued bool // the client was told to send its body, which has been read

	w      http.ResponseWriter // of the client's request; see mode
	header http.Header

	begun    chan struct{} // closed when the response turns out to be a stream that is recorded
	done     chan struct{} // closed when the handlers have returned
	err      error         // what they returned; for reading once done is closed
	panicked any           // what they panicked with

	written  atomic.Bool // the request has been written to a connection; see askOnce
	repeated atomic.Bool // the request was about to be repeated

	mu     sync.Mutex // guards what follows, and w while mode is undecided
	mode   mode
	left   bool      // the client's handler is about to return, and w is off limits
	handed chan bool // while recording: gets true if w is handed over to take, false if the client left; holds one

	unzip *unzipper // of a recorded stream that comes with gzip
	own   bool      // it has ids of its own, and w belongs to whoever calls take
}

// mode is what becomes of what the handlers write. Once decided, only their goroutine uses it, and w.
type mode uint8

const (
	undecided mode = iota
	passing        // it goes to w, which the client's handler leaves alone
	recording      // it goes to the answer; w is the client's handler's
	discarding
)

// start calls the next handler for a request, detached.
func (u *upstream) start(detached *http.Request, next caddyhttp.Handler) {
	go func() {
		defer u.cancel(answers.ErrEnded)
		defer close(u.done)
		growStack()
		func() {
			defer func() {
				u.panicked = recover()
				if u.panicked != nil && u.panicked != any(http.ErrAbortHandler) && u.leave() { // or it is panicked again
					u.logger.Error("a handler behind sse_resume panicked", zap.Any("panic", u.panicked),
						zap.ByteString("stack", debug.Stack()))
				}
			}()
			u.err = next.ServeHTTP(u, detached)
		}()
		u.finish()
	}()
}

// growStack makes the stack of a new goroutine as large as proxying takes, at once. It would double several times
// otherwise, and be copied each time, deep in the handlers.
//
//go:noinline
func growStack() {
	var room [12 << 10]byte
	sink(&room)
}

//go:noinline
func sink(room *[12 << 10]byte) { room[0] = 1 }

// detach returns a request for the handlers behind that outlives its own: it has the same values, and
// placeholders, and the body in memory, and ends by ctx alone.
func detach(ctx context.Context, r *http.Request, body []byte, w http.ResponseWriter) *http.Request {
	old := r.Context()
	placeholders := old.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	server, _ := old.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	ctx = caddyhttp.ContextWithIdleTimeouts(ctx, nil, nil) // those are of a connection that may be gone
	d := r.Clone(ctx)
	now := d.URL
	if original, ok := old.Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		d.URL, d.Method, d.RequestURI = original.URL, original.Method, original.RequestURI
	}
	own := caddy.NewReplacer()
	d = caddyhttp.PrepareRequest(d, own, w, server) // which notes the original request
	d.URL, d.Method, d.RequestURI = now, r.Method, r.RequestURI
	own.Map(placeholders.Get) // behind its own, since handlers may rewrite the request

	ctx = d.Context()
	if vars, ok := old.Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		maps.Copy(ctx.Value(caddyhttp.VarsCtxKey).(map[string]any), vars)
	}
	const routeGroups = caddy.CtxKey("route_group") // which groups of routes have been entered
	if groups, ok := old.Value(routeGroups).(map[string]struct{}); ok {
		maps.Copy(ctx.Value(routeGroups).(map[string]struct{}), groups)
	}
	d.Body = http.NoBody
	if len(body) > 0 {
		d.Body = io.NopCloser(bytes.NewReader(body))
	}
	narrowEncodings(d.Header)
	return d
}

// askOnce returns a context under which Go's transport does not repeat a request by itself. It does so when a
// kept connection breaks before the first byte of a response, if the request has no body and an Idempotency-Key;
// but the upstream has been asked then.
func (u *upstream) askOnce(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest:         func(info httptrace.WroteRequestInfo) { u.written.Store(info.Err == nil) },
		GotFirstResponseByte: func() { u.written.Store(false) },
		GetConn: func(string) {
			if u.written.Load() {
				u.repeated.Store(true)
				u.cancel(errRepeated)
			}
		},
	})
}

// errRepeated is why an upstream is cancelled that would be asked twice.
var errRepeated = errors.New("the upstream closed the connection without an answer")

// narrowEncodings leaves gzip as the only coding that the upstream may choose, since streams must be read.
func narrowEncodings(header http.Header) {
	const name = "Accept-Encoding"
	accepted := header.Values(name)
	if len(accepted) == 0 {
		return
	}
	coding := "identity"
	for item := range strings.SplitSeq(strings.Join(accepted, ","), ",") {
		media, weight, _ := strings.Cut(item, ";")
		weight = strings.ReplaceAll(weight, " ", "")
		refused := strings.HasPrefix(weight, "q=0") && strings.Trim(weight, "q=0.") == ""
		if strings.EqualFold(strings.TrimSpace(media), "gzip") && !refused {
			coding = "gzip"
		}
	}
	if len(accepted) > 1 || accepted[0] != coding {
		header.Set(name, coding)
	}
}

// Header implements http.ResponseWriter. The header is the client's own once the response is passed on, so that
// trailers reach it.
func (u *upstream) Header() http.Header { return u.header }

// WriteHeader implements http.ResponseWriter: the status decides what becomes of the response.
func (u *upstream) WriteHeader(status int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.mode == passing && !u.left:
		u.w.WriteHeader(status)
		return
	case u.mode != undecided:
		return
	case status >= 100 && status < 200 && status != http.StatusSwitchingProtocols:
		u.inform(status)
		return
	}
	if head, ok := u.streamHead(status); ok {
		u.mode = recording
		if u.handed = make(chan bool, 1); u.left {
			u.hand(false)
		}
		if !u.answer.Begin(head) {
			u.mode = discarding
			u.cancel(answers.ErrEnded)
			return
		}
		close(u.begun)
		return
	}
	u.passLocked()
	if u.repeated.Load() { // it looks to the handler as if the client had left
		status = http.StatusBadGateway
	}
	if u.mode == passing {
		u.w.WriteHeader(status)
	}
}

// inform passes an informational response on. The client's handler waits meanwhile.
func (u *upstream) inform(status int) {
	if u.left || (u.continued && status == http.StatusContinue) {
		return
	}
	own := u.w.Header().Clone()
	replaceHeader(u.w.Header(), u.header)
	u.w.WriteHeader(status)
	replaceHeader(u.w.Header(), own)
}

func replaceHeader(header, by http.Header) {
	clear(header)
	for name, values := range by {
		header[name] = slices.Clone(values)
	}
}

// streamHead returns what the answer begins with, if the response is a stream that is kept.
func (u *upstream) streamHead(status int) (answers.Head, bool) {
	if status != http.StatusOK {
		return answers.Head{}, false
	}
	contentType := u.header.Get("Content-Type")
	kind, known := kindOf(contentType)
	if _, _, err := mime.ParseMediaType(contentType); !known || err != nil {
		return answers.Head{}, false
	}
	switch strings.ToLower(strings.Join(u.header.Values("Content-Encoding"), ",")) {
	case "", "identity":
	case "gzip", "x-gzip":
		u.unzip = newUnzipper(u.take)
	default:
		return answers.Head{}, false // it can't be read
	}
	header := u.header.Clone()
	for _, name := range []string{
		"Content-Length", "Content-Encoding", "Transfer-Encoding", "Trailer", "Accept-Ranges", "Etag", "Content-Location",
	} {
		header.Del(name)
	}
	cache := strings.Join(header.Values("Cache-Control"), ", ")
	if cache != "" {
		cache += ", "
	}
	if !strings.Contains(strings.ToLower(cache), "no-transform") {
		header.Set("Cache-Control", cache+"no-transform")
	}
	return answers.Head{Kind: kind, ReplaceIDs: u.ids, Header: header}, true
}

// passLocked has the response passed on to the client, if it is still there and waits for it. mu is held.
func (u *upstream) passLocked() {
	if !u.answer.Pass() || u.left {
		u.mode = discarding
		u.cancel(context.Canceled)
		return
	}
	u.mode = passing
	header := u.w.Header()
	clear(header)
	maps.Copy(header, u.header)
	u.header = header
}

// Write implements http.ResponseWriter.
func (u *upstream) Write(b []byte) (int, error) {
	if u.mode == undecided {
		u.WriteHeader(http.StatusOK)
	}
	var err error
	switch u.mode {
	case passing:
		return u.w.Write(b)
	case discarding:
		return 0, errDiscarded
	case recording:
		if u.unzip != nil {
			err = u.unzip.write(b)
		} else {
			err = u.take(b)
		}
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// errDiscarded is the error of a write that reaches nobody.
var errDiscarded = errors.New("nobody reads the response")

// take records bytes of a stream. Once the upstream has sent an id of its own it passes them on.
func (u *upstream) take(b []byte) error {
	if !u.own {
		own, err := u.answer.Write(b)
		if own == nil || err != nil {
			return err
		}
		if !<-u.handed {
			u.cancel(context.Canceled)
			return errDiscarded
		}
		u.own, b = true, own
	}
	if _, err := u.w.Write(b); err != nil {
		return err
	}
	return http.NewResponseController(u.w).Flush()
}

// FlushError implements what http.ResponseController asks for. What is recorded needs no flush.
func (u *upstream) FlushError() error {
	if u.mode == undecided {
		u.WriteHeader(http.StatusOK)
	}
	if u.mode == passing {
		return http.NewResponseController(u.w).Flush()
	}
	return nil
}

// finish ends the answer once the handlers have returned.
func (u *upstream) finish() {
	inGoodOrder := u.err == nil && u.panicked == nil
	if u.unzip != nil {
		inGoodOrder = u.unzip.close(inGoodOrder) && inGoodOrder
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.mode {
	case undecided:
		u.passLocked()
	case recording:
		u.answer.End(inGoodOrder)
	case discarding:
		u.answer.End(false)
	case passing:
	}
}

// leave says that the client's handler is about to return. It reports false if the response is being passed on:
// then the handler has to wait.
func (u *upstream) leave() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mode == passing {
		return false
	}
	u.left = true
	u.hand(false)
	return true
}

// hand says once whether w is handed over.
func (u *upstream) hand(over bool) {
	select {
	case u.handed <- over:
	default:
	}
}

// recorded reports whether the response is recorded.
func (u *upstream) recorded() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mode == recording
}

// handOver says that the client has had all that was recorded, and that w is no longer used.
func (u *upstream) handOver() { u.hand(true) }

// await waits for the handlers whose response is passed on, and returns, or panics, as they do.
func (u *upstream) await(r *http.Request) error {
	select {
	case <-u.done:
	case <-r.Context().Done():
		u.cancel(context.Cause(r.Context()))
		<-u.done
	}
	if u.panicked != nil {
		panic(u.panicked)
	}
	return u.err
}

// unzipper gives what it is written to another, unzipped.
type unzipper struct {
	in   *io.PipeWriter
	done chan struct{}
	err  error
}

// newUnzipper returns an unzipper that runs until it is closed.
func newUnzipper(take func([]byte) error) *unzipper {
	out, in := io.Pipe()
	u := &unzipper{in: in, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		u.err = unzip(out, take)
		_ = out.CloseWithError(u.err)
	}()
	return u
}

func unzip(in io.Reader, take func([]byte) error) error {
	zip, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := zip.Read(buf)
		if n > 0 {
			if err := take(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF: //nolint:errorlint // it is returned bare
			return nil
		case err != nil:
			return err
		}
	}
}

func (u *unzipper) write(b []byte) error {
	_, err := u.in.Write(b)
	return err
}

// close waits until all is unzipped. It reports whether that was all.
func (u *unzipper) close(inGoodOrder bool) bool {
	if inGoodOrder {
		_ = u.in.Close()
	} else {
		_ = u.in.CloseWithError(io.ErrUnexpectedEOF)
	}
	<-u.done
	return u.err == nil
}
