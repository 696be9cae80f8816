package live

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/stream"
	"github.com/caddyserver/caddy/v2"
	"github.com/quic-go/quic-go/http3"
)

// When the process exits clients have drainTime to take what is theirs, and the machine has exitTime to hand it to
// those that do.
const (
	drainTime = time.Second
	exitTime  = 1600 * time.Millisecond
)

// ShutDown ends the hub's clients in an orderly way, and cuts those that do not take what is theirs in time.
func (s *Hub) ShutDown() {
	s.shutOnce.Do(func() {
		s.Core.Drain()
		time.AfterFunc(drainTime, s.Core.AbortBlocked)
		time.AfterFunc(exitTime, s.Core.Abort)
	})
}

// CloseAtExit closes the multiplexed connection of r drainTime after the process begins to exit: net/http waits for its
// peer, which may be stalled. Call stop when the request ends.
func (s *Hub) CloseAtExit(r *http.Request) (stop func() bool) {
	var shut func() error
	if server, ok := r.Context().Value(http3.ServerContextKey).(*http3.Server); ok {
		shut = server.Close
	} else if socket := stream.SocketOf(r.Context()); socket != nil && r.ProtoMajor == 2 {
		shut = socket.Close
	} else {
		return func() bool { return true }
	}
	return context.AfterFunc(s.Core.Context(), func() {
		if caddy.Exiting() {
			time.AfterFunc(drainTime, func() { _ = shut() })
		}
	})
}

// WhileOpen derives a context that is also canceled `soon` after the hub ends, so that no pending call delays the exit.
func (s *Hub) WhileOpen(ctx context.Context, soon time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.Core.Context(), func() { time.AfterFunc(soon, cancel) })
	return ctx, func() { stop(); cancel() }
}
