package sse_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// thinConn is a connection that takes 4 KB every 100 ms, until it is made fast.
type thinConn struct {
	net.Conn
	fast *atomic.Bool
}

func (c thinConn) Read(p []byte) (int, error) {
	if !c.fast.Load() {
		p = p[:min(len(p), 4<<10)]
		time.Sleep(100 * time.Millisecond)
	}
	return c.Conn.Read(p)
}

// smallSegments gives a connection to this machine the segments of one over the Internet; the loopback
// device's are larger than a thin line takes in a second.
func smallSegments(network, address string, conn syscall.RawConn) error {
	err := conn.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400) })
	if err != nil {
		return err
	}
	return smallReadBuffer(network, address, conn)
}

// A line is alive that takes any bytes, however few.
func TestThinLineIsNotCut(t *testing.T) {
	s := serve(t, `
		sse /events {
			write_timeout 1s
			publish {
				open
				max_size 32MiB
			}
		}`, withTLS)
	var fast atomic.Bool
	var streams []*e2etest.Stream
	eachProtocol(t, s, func(_ *testing.T, p protocol) {
		if p.major == 3 {
			return // which has no socket of its own to tell
		}
		client := lazyClient(t, p)
		client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{Control: smallSegments}).DialContext(ctx, network, address)
			return thinConn{conn, &fast}, err
		}
		streams = append(streams, e2etest.Subscribe(t, p.url("/events?topic=a"), e2etest.Via(client)))
	})
	awaitReceivers(t, s, len(streams))
	publish(t, s.url("/events?topic=a"), hugeData[:6<<20])
	deadline := time.Now().Add(5 * time.Second) // five times what a write may stand still
	for time.Now().Before(deadline) {
		for i, stream := range streams {
			if ended(stream) {
				t.Fatalf("stream %d was cut: %v", i, stream.Ended(0))
			}
		}
	}
	fast.Store(true)
	for i, stream := range streams {
		if event := mustNext(t, stream); string(event.Data) != hugeData[:6<<20] {
			t.Errorf("stream %d got %d bytes", i, len(event.Data))
		}
	}
}

// A peer that vanished without a word is found by probes and by what it does not acknowledge.
func TestSocketsOfStreamsLookForVanishedPeers(t *testing.T) {
	s := serve(t, openRoute, withTLS)
	for _, url := range []string{s.url("/events"), s.secure("/events")} {
		var local net.Addr
		client := e2etest.H1(t)
		client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil {
				local = conn.LocalAddr()
			}
			return conn, err
		}
		e2etest.Subscribe(t, url, e2etest.Via(client)).Connected(t)
		fd := serverSide(t, local.(*net.TCPAddr).Port)
		option := func(level, name int) int {
			value, err := unix.GetsockoptInt(fd, level, name)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
		unacknowledged := option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		probes := option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE) +
			option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)*option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		if option(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 0 || probes > 70 {
			t.Errorf("a silent peer is found within %d s", probes)
		}
		if unacknowledged == 0 || unacknowledged > 70_000 {
			t.Errorf("one that acknowledges nothing is found within %d ms", unacknowledged)
		}
	}
}

// serverSide returns the socket of this process whose peer has this port.
func serverSide(t *testing.T, port int) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for fd := range len(open) + 100 {
		var peerPort int
		switch peer, _ := unix.Getpeername(fd); peer := peer.(type) {
		case *unix.SockaddrInet4:
			peerPort = peer.Port
		case *unix.SockaddrInet6:
			peerPort = peer.Port
		}
		if peerPort == port {
			return fd
		}
	}
	t.Fatal("the server has no such connection")
	return -1
}
