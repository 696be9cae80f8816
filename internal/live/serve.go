package live

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/stream"
)

// StreamOptions are how a route has its streams.
type StreamOptions struct {
	// Hello returns what a stream begins with; nil if that is for its first message.
	Hello func(c *hub.Client, welcome hub.Welcome) []byte
	// Header adds to the headers of the response what the client's place in the log is to tell; nil for nothing.
	Header func(header http.Header, c *hub.Client, welcome hub.Welcome)
	// Direct lets streams be written past what wraps the response, where that is safe.
	Direct bool
}

// Serve joins a client to the hub and answers its request with its messages. It returns when the stream ends,
// or goes on without the request. HEAD has the headers of GET, but what Header adds. The error is why the hub does not admit the client, or a *stream.HeldBack;
// then nothing has reached the client.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, sub hub.Subscription, o StreamOptions) error {
	if r.Method == http.MethodHead {
		return h.serveHead(w, sub)
	}
	if err := stream.CheckFlush(w); err != nil {
		return err
	}
	var err error
	if sub.Place, err = h.Core.Hold(sub); err != nil { // before it waits for anything
		return err
	}
	defer sub.Place.GiveUp()
	h.Core.Await(r.Context(), &sub)
	handler := h.streams.New(w, r, sub.WriteTimeout)
	claims := h.Core.Admits(sub) == nil // a client that is refused claims nothing
	if claims {
		h.claim(r.Context(), &sub)
	}
	client, welcome, err := h.Core.Join(sub, handler)
	if err != nil {
		if claims && sub.User != "" && err != hub.ErrClientIDOwned { // others came first
			h.release(sub.ClientID)
		}
		return err
	}
	defer h.CloseAtExit(r)()
	clean, err := h.serve(w, handler, client, welcome, o)
	if err == nil && !clean {
		panic(http.ErrAbortHandler)
	}
	return err
}

func (h *Hub) serveHead(w http.ResponseWriter, sub hub.Subscription) error {
	if err := h.Core.Admits(sub); err != nil {
		return err
	}
	SetHeaders(w, &sub.Subscriber)
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // before net/http adds a Content-Length of 0
	return nil
}

// serve writes the stream of a client that has joined. It reports whether the response is to end in good
// order, if there is no error. The client leaves, whatever panics on the way.
func (h *Hub) serve(
	w http.ResponseWriter, handler *stream.Stream, c *hub.Client, welcome hub.Welcome, o StreamOptions,
) (clean bool, err error) {
	serving := false
	defer func() {
		if !serving {
			h.left(c, h.Core.Leave(c, hub.ErrAborted))
		}
	}()
	h.noteConnected(c, welcome)
	if o.Direct && c.Form != hub.Answer { // the connection goes on behind an answer
		handler.AllowDirect()
	}
	SetHeaders(w, &c.Subscriber)
	if o.Header != nil {
		o.Header(w.Header(), c, welcome)
	}
	w.WriteHeader(http.StatusOK)
	hello := c.Opening(o.Hello(c, welcome))
	serving = true
	return handler.Serve(c, hello)
}

// left does what is still to be done for a client that has left the hub.
func (h *Hub) left(c *hub.Client, cause error) {
	if c.Generated && c.User != "" { // nobody else knows it
		h.release(c.ClientID)
	}
	h.noteDisconnected(c, cause)
	if tell := h.onLeave.Load(); tell != nil {
		(*tell)(c)
	}
}

// OwnTopics has CheckMessage refuse topics that begin so, from now on.
func (h *Hub) OwnTopics(prefix string) { h.own.Store(&prefix) }

// CheckMessage says why nobody may publish a message to this hub.
func (h *Hub) CheckMessage(m *hub.Message) error {
	if own := h.own.Load(); own != nil {
		for _, to := range m.To {
			if to.Kind == hub.ToTopic && strings.HasPrefix(to.Name, *own) {
				return fmt.Errorf("topic %q is the hub's own: there it tells who subscribes; choose another", to.Name)
			}
		}
	}
	return h.Core.CheckMessage(m)
}

// OnLeave sets who is told, from now on, of each client that has left the hub.
func (h *Hub) OnLeave(tell func(*hub.Client)) { h.onLeave.Store(&tell) }

// contentTypes are those of the forms that are no event streams.
var contentTypes = map[hub.Form]string{hub.Lines: "application/x-ndjson", hub.Answer: "application/json"}

// SetHeaders sets the headers of a response that has a client's messages.
func SetHeaders(w http.ResponseWriter, s *hub.Subscriber) {
	header := w.Header()
	header.Set("Content-Type", cmp.Or(contentTypes[s.Form], "text/event-stream; charset=utf-8"))
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	if s.Gzip {
		header.Set("Content-Encoding", "gzip")
		header.Add("Vary", "Accept-Encoding")
	}
}

// AcceptsGzip reports whether a client takes a stream that is compressed.
func AcceptsGzip(r *http.Request) bool {
	return slices.Contains(encode.AcceptedEncodings(r, nil), "gzip")
}

// UnsetHeaders takes back what SetHeaders and a stream have set, for another answer.
func UnsetHeaders(w http.ResponseWriter) {
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering", "Content-Encoding"} {
		w.Header().Del(name)
	}
}
