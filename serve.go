package sse

import (
	"net/http"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/stream"
	"go.uber.org/zap"
)

// streamOptions are how a route has its streams.
type streamOptions struct {
	// Hello returns what a stream begins with.
	Hello func(c *hub.Client, welcome hub.Welcome) []byte
	// Direct lets streams be written past what wraps the response, where that is safe.
	Direct bool
}

// Serve enters a client and answers its request with its messages, until the stream ends or leaves the request. The error
// is why the hub does not admit the client; then nothing was written.
func (s *sharedHub) Serve(w http.ResponseWriter, r *http.Request, sub hub.Subscription, o streamOptions) error {
	s.Core.AwaitID(r.Context(), sub.LastEventID)
	live := s.streams.New(w, r, sub.WriteTimeout)
	client, welcome, err := s.join(r.Context(), sub, live)
	if err != nil {
		return err
	}
	s.noteConnected(client, welcome)
	defer s.closeAtExit(r)()
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
func (s *sharedHub) leave(c *hub.Client, ended error) bool {
	cause := s.Core.Leave(c, ended)
	s.noteDisconnected(c, cause)
	return stream.EndsCleanly(cause) && stream.EndsCleanly(ended)
}

// noteConnected tells the operator of a client that came: in the log, and as an event.
func (s *sharedHub) noteConnected(c *hub.Client, welcome hub.Welcome) {
	current := s.current.Load()
	current.logger.Debug("client connected", zap.String("hub", s.name), zap.String("client_id", c.ClientID),
		zap.String("user", c.User), zap.String("resume", string(welcome.Resume)))
	current.emit("sse.connected", map[string]any{
		"hub": s.name, "client_id": c.ClientID, "user": c.User, "topics": c.Asked(),
		"resume": string(welcome.Resume),
	})
}

// noteDisconnected tells the operator of a client whose stream has ended, and what it had got.
func (s *sharedHub) noteDisconnected(c *hub.Client, cause error) {
	current := s.current.Load()
	messages, bytes := c.Sent()
	duration := c.Age()
	current.logger.Debug("client disconnected", zap.String("hub", s.name), zap.String("client_id", c.ClientID),
		zap.String("user", c.User), zap.String("reason", hub.NameOf(cause)), zap.Duration("duration", duration),
		zap.Uint64("messages", messages), zap.Uint64("bytes", bytes))
	current.emit("sse.disconnected", map[string]any{
		"hub": s.name, "client_id": c.ClientID, "user": c.User, "reason": hub.NameOf(cause),
		"seconds": duration.Seconds(), "messages": messages, "bytes": bytes,
	})
}
