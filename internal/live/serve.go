package live

import (
	"net/http"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/stream"
)

// StreamOptions are how a route has its streams.
type StreamOptions struct {
	// Hello returns what a stream begins with.
	Hello func(c *hub.Client, welcome hub.Welcome) []byte
	// Direct lets streams be written past what wraps the response, where that is safe.
	Direct bool
}

// Serve joins a client to the hub and answers its request with its messages. It returns when the stream ends,
// or goes on without the request. The error is why the hub does not admit the client; then nothing was
// written.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, sub hub.Subscription, o StreamOptions) error {
	h.Core.AwaitID(r.Context(), sub.LastEventID)
	handler := h.streams.New(w, r, sub.WriteTimeout)
	h.claim(r.Context(), &sub)
	client, welcome, err := h.Core.Join(sub, handler)
	if err != nil {
		return err
	}
	h.noteConnected(client, welcome)
	defer h.CloseAtExit(r)()
	bypass := o.Direct && stream.Plain(w)
	detach := bypass && stream.MayDetach(r)
	stream.SetHeaders(w)
	if detach {
		w.Header().Set("Connection", "close") // the HTTP server will not be there for another request
	}
	w.WriteHeader(http.StatusOK)
	defer handler.Open()()
	ended := handler.Hello(o.Hello(client, welcome))
	if ended == nil {
		if bypass && !stream.Changed(w) {
			if detach && handler.Detach(client) {
				return nil
			}
			handler.BypassWrappers()
		}
		defer handler.WatchHangup(client)()
		ended = handler.Run(client)
	}
	if !h.leave(client, ended) {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// leave takes a client out of the hub when its stream has ended. It reports whether that is in good order.
func (h *Hub) leave(c *hub.Client, ended error) bool {
	cause := h.Core.Leave(c, ended)
	h.noteDisconnected(c, cause)
	return stream.EndsCleanly(cause) && stream.EndsCleanly(ended)
}
