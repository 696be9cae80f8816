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

// Serve enters a client and answers its request with its messages, until the stream ends or leaves the request. The error
// is why the hub does not admit the client; then nothing was written.
func (s *Hub) Serve(w http.ResponseWriter, r *http.Request, sub hub.Subscription, o StreamOptions) error {
	s.Core.AwaitID(r.Context(), sub.LastEventID)
	live := s.streams.New(w, r, sub.WriteTimeout)
	client, welcome, err := s.join(r.Context(), sub, live)
	if err != nil {
		return err
	}
	s.noteConnected(client, welcome)
	defer s.CloseAtExit(r)()
	past := o.Direct && stream.Plain(w)
	direct := past && stream.MayDetach(r)
	stream.SetHeaders(w)
	if direct {
		w.Header().Set("Connection", "close") // the HTTP server will not be there for a further request
	}
	w.WriteHeader(http.StatusOK)
	defer live.Open()()
	ended := live.Hello(o.Hello(client, welcome))
	if ended == nil {
		if past && !stream.Changed(w) {
			if direct && live.Detach(client) {
				return nil
			}
			live.BypassWrappers()
		}
		defer live.WatchHangup(client)()
		ended = live.Run(client)
	}
	if !s.leave(client, ended) {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// leave takes a client out whose stream has ended. It reports whether that was in good order.
func (s *Hub) leave(c *hub.Client, ended error) bool {
	cause := s.Core.Leave(c, ended)
	s.noteDisconnected(c, cause)
	return stream.EndsCleanly(cause) && stream.EndsCleanly(ended)
}
