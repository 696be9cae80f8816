// Package load is a load client that costs little itself: subscribers are raw sockets behind epoll whose streams are
// parsed as the bytes come, publishers are raw sockets too. What it counts is exact: a message that a client did
// not get, or got out of order, is found whatever the server does.
//
// Over TLS and HTTP/2 it costs more, because crypto/tls does the work there. That is fine where only what the server
// consumes is measured.
package load
