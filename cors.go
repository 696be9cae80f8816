package sse

import "github.com/caddy-sse/caddy-sse/internal/origin"

// allowedMethods are those that a route serves.
const allowedMethods = "GET, HEAD, POST, DELETE, OPTIONS"

// allowedHeaders are what pages of other origins may send: what a route reads, and what libraries add. Others stay
// away: a guard in front may believe them.
const allowedHeaders = "Authorization, Cache-Control, Content-Encoding, Content-Type, Idempotency-Key, " +
	"Last-Event-ID, " + origin.LibraryHeaders

// exposedHeaders are what pages of other origins may read, besides those that they may always.
const exposedHeaders = "Retry-After"
