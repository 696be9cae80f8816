package live

import (
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
)

// noteBroker tells the operator that the broker is out of reach, or back.
func (h *Hub) noteBroker(up bool, err error) {
	current := h.current.Load()
	if up {
		current.Logger.Info("the broker is in reach", zap.String("hub", h.Name))
		h.emit(current, "sse.broker_up", map[string]any{"hub": h.Name})
		return
	}
	current.Logger.Warn(
		"the broker is out of reach, or takes no messages; clients stay connected, publishing answers 503",
		zap.String("hub", h.Name), zap.Error(err))
	h.emit(current, "sse.broker_down", map[string]any{"hub": h.Name, "error": err.Error()})
}

// noteLoss tells the operator that the log has lost messages: it was emptied, replaced by an older copy, or
// trimmed before this instance had read it.
func (h *Hub) noteLoss(reason string, clients int) {
	h.current.Load().Logger.Warn("the log has lost messages; clients are told a gap",
		zap.String("hub", h.Name), zap.String("reason", reason), zap.Int("clients", clients))
}

// noteConnected tells the operator of a client that has joined. A call that polls is no event: there are too many.
func (h *Hub) noteConnected(c *hub.Client, welcome hub.Welcome) {
	current := h.current.Load()
	current.Logger.Debug("client connected", zap.String("hub", h.Name), zap.String("client_id", c.ClientID),
		zap.String("user", c.User), zap.String("resume", string(welcome.Resume)))
	if c.Form == hub.Answer {
		return
	}
	h.emit(current, "sse.connected", map[string]any{
		"hub": h.Name, "client_id": c.ClientID, "user": c.User, "topics": c.Asked(),
		"resume": string(welcome.Resume),
	})
}

// noteDisconnected tells the operator of a client whose stream has ended, and what it got.
func (h *Hub) noteDisconnected(c *hub.Client, cause error) {
	current := h.current.Load()
	reason := hub.NameOf(cause)
	messages, bytes := c.Sent()
	duration := c.Age()
	current.Logger.Debug("client disconnected", zap.String("hub", h.Name), zap.String("client_id", c.ClientID),
		zap.String("user", c.User), zap.String("reason", reason), zap.Duration("duration", duration),
		zap.Uint64("messages", messages), zap.Uint64("bytes", bytes))
	if c.Form == hub.Answer {
		return
	}
	h.emit(current, "sse.disconnected", map[string]any{
		"hub": h.Name, "client_id": c.ClientID, "user": c.User, "reason": reason,
		"seconds": duration.Seconds(), "messages": messages, "bytes": bytes,
	})
}

// emit has one of Caddy's events told to those who listen to it.
func (h *Hub) emit(current *Settings, name string, data map[string]any) {
	if h.events.add(func() { current.Emit(name, data) }) {
		return
	}
	h.unemitted.Do(func() {
		current.Logger.Warn("events are dropped: their handlers are slower than what happens",
			zap.String("hub", h.Name), zap.String("event", name))
	})
}
