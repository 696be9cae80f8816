//go:build !linux

package stream

import (
	"net/http"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// These systems have no direct streams: every client has a handler stream.

type writers struct{}

func (*writers) retire() {}

func (*writers) wait(time.Duration) {}

// MayDetach reports whether the stream of a request can leave it.
func MayDetach(*http.Request) bool { return false }

// Detach reports whether the stream goes on without the request.
func (*Handler) Detach(*hub.Client) bool { return false }

// WatchHangup has the stream end when its peer hangs up, where nobody else notices.
func (*Handler) WatchHangup(*hub.Client) (stop func()) { return func() {} }
