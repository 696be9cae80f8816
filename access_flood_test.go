package sse_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// TestFloodOfConnectionsFromOneAddressIsCheap makes 10,000 connections beyond the limit of 20. Those who
// make them keep their side open and hang up on nobody.
func TestFloodOfConnectionsFromOneAddressIsCheap(t *testing.T) {
	const limit, flood, kept = 20, 10_000, 2000
	s := serveLogged(t, `
		sse /events {
			max_clients_per_ip 20
			publish {
				open
			}
		}`, withTLS)
	var clients []*e2etest.Stream
	for range limit {
		stream := e2etest.Subscribe(t, s.url("/events?topic=a"))
		stream.Connected(t)
		clients = append(clients, stream)
	}
	memory := func() (inUse uint64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before, goroutines := memory(), runtime.NumGoroutine()
	begin := time.Now()
	var next atomic.Int64
	var attackers sync.WaitGroup
	for range 8 {
		attackers.Go(func() {
			for n := next.Add(1); n <= flood; n = next.Add(1) {
				conn, err := s.refusedConnection()
				if err != nil {
					t.Errorf("connection %d: %v", n, err)
					return
				}
				if n <= kept {
					defer conn.Close()
				} else {
					_ = conn.Close()
				}
			}
			if grown := int64(memory()) - int64(before); grown > kept*2<<10+32<<20 {
				t.Errorf("memory grew by %d KiB", grown>>10)
			}
		})
	}
	attackers.Wait()
	t.Logf("%d refused in %v; memory grew by %d KiB", flood, time.Since(begin), (int64(memory())-int64(before))>>10)
	eventually(t, patience, "nothing runs for those who were refused", func() bool { return runtime.NumGoroutine() < goroutines+50 })
	if n, most := strings.Count(s.everything(), "client refused"), int(time.Since(begin)/time.Second)+2; n == 0 || n > most {
		t.Errorf("the log has %d lines of it, want 1 to %d", n, most)
	}

	// Over one connection with many requests it is no different.
	h2 := e2etest.Via(e2etest.H2(t))
	for range 200 {
		wantRefusal(t, refusedGet(t, s.secure("/events?topic=a"), h2), http.StatusTooManyRequests, "address")
	}

	// The count is exact all the while.
	if n := receivers(t, s.url("/events?topic=a")); n != limit {
		t.Errorf("%d clients are there, want %d", n, limit)
	}
	for round := range 3 {
		clients[round].Close()
		eventually(t, patience, "one has left", func() bool { return receivers(t, s.url("/events?topic=a")) == limit-1 })
		clients[round] = e2etest.Subscribe(t, s.url("/events?topic=a"))
		clients[round].Connected(t)
		wantRefusal(t, refusedGet(t, s.url("/events?topic=a")), http.StatusTooManyRequests)
	}
	for _, stream := range clients {
		stream.Close()
	}
	eventually(t, patience, "all have left", func() bool { return receivers(t, s.url("/events?topic=a")) == 0 })
}

// refusedConnection makes a connection that has to be refused, and closed by the server.
func (s *site) refusedConnection() (net.Conn, error) {
	address := fmt.Sprintf("127.0.0.1:%d", s.port)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err = fmt.Fprintf(conn, "GET /events?topic=a HTTP/1.1\r\nHost: %s\r\n\r\n", address); err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		var answer []byte
		answer, err = io.ReadAll(conn)
		if err == nil && (!bytes.HasPrefix(answer, []byte("HTTP/1.1 429 ")) || !bytes.Contains(answer, []byte("\r\nRetry-After: "))) {
			err = fmt.Errorf("answered %.200q", answer)
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}
