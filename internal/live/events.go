package live

import (
	"github.com/caddy-sse/caddy-sse/hub"
	"go.uber.org/zap"
)

// noteBroker tells the operator that the broker went out of reach, or is back.
func (s *Hub) noteBroker(up bool, err error) {
	current := s.current.Load()
	if up {
		current.Logger.Info("the broker is in reach", zap.String("hub", s.Name))
		current.Emit("sse.broker_up", map[string]any{"hub": s.Name})
		return
	}
	current.Logger.Warn("the broker is out of reach, or takes no messages; clients stay connected, publishing answers 503",
		zap.String("hub", s.Name), zap.Error(err))
	current.Emit("sse.broker_down", map[string]any{"hub": s.Name, "error": err.Error()})
}

// noteConnected tells the operator of a client that came: in the log, and as an event.
func (s *Hub) noteConnected(c *hub.Client, welcome hub.Welcome) {
	current := s.current.Load()
	current.Logger.Debug("client connected", zap.String("hub", s.Name), zap.String("client_id", c.ClientID),
		zap.String("user", c.User), zap.String("resume", string(welcome.Resume)))
	current.Emit("sse.connected", map[string]any{
		"hub": s.Name, "client_id": c.ClientID, "user": c.User, "topics": c.Asked(),
		"resume": string(welcome.Resume),
	})
}

// noteDisconnected tells the operator of a client whose stream has ended, and what it had got.
func (s *Hub) noteDisconnected(c *hub.Client, cause error) {
	current := s.current.Load()
	messages, bytes := c.Sent()
	duration := c.Age()
	current.Logger.Debug("client disconnected", zap.String("hub", s.Name), zap.String("client_id", c.ClientID),
		zap.String("user", c.User), zap.String("reason", hub.NameOf(cause)), zap.Duration("duration", duration),
		zap.Uint64("messages", messages), zap.Uint64("bytes", bytes))
	current.Emit("sse.disconnected", map[string]any{
		"hub": s.Name, "client_id": c.ClientID, "user": c.User, "reason": hub.NameOf(cause),
		"seconds": duration.Seconds(), "messages": messages, "bytes": bytes,
	})
}
