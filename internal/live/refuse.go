package live

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/stream"
)

// Refuse answers a client that may not have what it asks for. If the hub ends it cuts the client, which comes back:
// the exit may be why.
func (h *Hub) Refuse(w http.ResponseWriter, r *http.Request, logger *zap.Logger, why *problem.Problem) error {
	if h.Core.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	h.Core.CountRefused()
	h.LogRefusal(logger, r, why)
	return problem.Write(w, why)
}

// TurnAway answers a client for whom [Hub.Serve] has an error. A hub that ends cuts it, so that it reconnects.
func (h *Hub) TurnAway(w http.ResponseWriter, r *http.Request, logger *zap.Logger, cause error) error {
	if held, ok := errors.AsType[*stream.HeldBack](cause); ok {
		h.Refusals.Do(func() {
			logger.Error("no stream can pass here; others within a second are not logged",
				zap.String("hub", h.Name), zap.String("wrapper", held.By), zap.Error(held))
		})
		UnsetHeaders(w)
		return caddyhttp.Error(http.StatusInternalServerError, held)
	}
	if errors.Is(cause, hub.ErrDraining) || errors.Is(cause, hub.ErrHubClosed) {
		panic(http.ErrAbortHandler)
	}
	h.Refusals.Do(func() {
		logger.Warn("client refused; others within a second are not logged",
			zap.String("hub", h.Name), zap.String("remote", r.RemoteAddr), zap.Error(cause))
	})
	if r.ProtoMajor == 1 { // a refused client must not keep a connection
		w.Header().Set("Connection", "close")
	}
	return problem.Write(w, problem.Of(cause))
}

// IgnoreBody keeps net/http from waiting for the body of a GET, which may never arrive. Call the returned function
// before the handler returns.
func IgnoreBody(w http.ResponseWriter, r *http.Request) (end func()) {
	if r.ProtoMajor != 1 || r.ContentLength == 0 {
		return func() {}
	}
	w.Header().Set("Connection", "close")
	return func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) }
}

// LogRefusal logs at debug why a request is refused. A detail holds no token and no data.
func (h *Hub) LogRefusal(logger *zap.Logger, r *http.Request, refusal *problem.Problem) {
	logger.Debug("request refused", zap.String("hub", h.Name), zap.String("method", r.Method),
		zap.String("remote", r.RemoteAddr), zap.Int("status", refusal.Status), zap.String("reason", refusal.Detail))
}
