package live

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/stream"
)

// When the process begins to exit, a client whose socket takes nothing is cut after drainTime, any other
// client after exitTime.
const (
	drainTime = time.Second
	exitTime  = 1600 * time.Millisecond
)

// closing are the brokers that are closed because the process exits. They are closed side by side, since each
// may wait for a server that does not answer. The process waits for all of them.
var closing sync.WaitGroup

func init() { caddy.OnExit(func(context.Context) { closing.Wait() }) }

// ShutDown ends the hub's clients in good order, and cuts those that take too long.
func (h *Hub) ShutDown() {
	h.shutOnce.Do(func() {
		h.Answers.Close(answers.ErrExit)
		h.Core.Drain()
		time.AfterFunc(drainTime, h.Core.AbortBlocked)
		time.AfterFunc(exitTime, h.Core.Abort)
	})
}

// ShutDownIfExiting is for a server that shuts down, for a reload or because the process exits. A process that exits
// waits for every request, and so for every stream.
func (h *Hub) ShutDownIfExiting() {
	if caddy.Exiting() {
		h.ShutDown()
	}
}

// CloseAtExit closes the multiplexed connection of r drainTime after the process begins to exit: net/http
// waits for its peer, which may be stalled. Call stop when the request ends.
func (h *Hub) CloseAtExit(r *http.Request) (stop func() bool) {
	if r.ProtoMajor == 1 {
		return nothing
	}
	var shut func() error
	if server, ok := r.Context().Value(http3.ServerContextKey).(*http3.Server); ok {
		shut = server.Close
	} else if socket := stream.SocketOf(r.Context()); socket != nil {
		shut = socket.Close
	} else {
		return nothing
	}
	return context.AfterFunc(h.Core.Context(), func() {
		if caddy.Exiting() {
			time.AfterFunc(drainTime, func() { _ = shut() })
		}
	})
}

func nothing() bool { return true }
