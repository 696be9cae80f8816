package sse_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
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

// Of a client that has sent anything after its request, the HTTP server does not see that it leaves.
func TestClientThatSentMoreThanItsRequestIsNoticedWhenItLeaves(t *testing.T) {
	s := serve(t, `
		sse /events {
			heartbeat off
			direct_writes on
			publish {
				open
			}
		}
		sse /handler {
			heartbeat off
			direct_writes off
		}`, withTLS)
	left := 0
	for _, secure := range []bool{false, true} {
		for _, head := range []string{"GET /events HTTP/1.1", "GET /events HTTP/1.0", "GET /handler HTTP/1.1", "GET /handler HTTP/1.0"} {
			for _, more := range []string{"\n", "GET /handler HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"} {
				for how, leave := range waysToLeave {
					tcp, conn := s.dialEither(secure)
					fmt.Fprint(conn, head, "\r\nHost: 127.0.0.1\r\n\r\n")
					awaitReceivers(t, s, 1)
					fmt.Fprint(conn, more)
					if err := leave(tcp); err != nil {
						t.Fatal(err)
					}
					left++
					s.awaitLeft(left, fmt.Sprintf("%s of %q with %q, TLS %v", how, head, more, secure))
				}
			}
		}
	}
	awaitReceivers(t, s, 0)
}

// awaitLeft waits until so many clients are told to have left. It sends them nothing, of which they might be found out.
func (s *site) awaitLeft(n int, what string) {
	s.t.Helper()
	eventually(s.t, noticed, what, func() bool {
		log, err := os.ReadFile(filepath.Join(s.dir, "log"))
		return err == nil && bytes.Count(log, []byte(`"reason":"left"`)) == n
	})
}

// A stream that ended in good order has left its connection to the next request.
func TestClientIsNoticedWhenItLeavesItsSecondStreamOfAConnection(t *testing.T) {
	s := serve(t, `
		sse /events {
			heartbeat off
			direct_writes off
			publish {
				open
			}
		}
		sse /brief {
			idle_timeout 100ms
			direct_writes off
		}`, withTLS)
	for i, secure := range []bool{false, true} {
		_, conn := s.dialEither(secure)
		fmt.Fprint(conn, "GET /brief HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		answers := bufio.NewReader(conn)
		first, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, first.Body); err != nil {
			t.Fatal(err)
		}
		_ = first.Body.Close()
		awaitReceivers(t, s, 1)
		fmt.Fprint(conn, "\n")
		_ = conn.Close()
		s.awaitLeft(i+1, fmt.Sprint("leaving, TLS ", secure))
	}
}

// dialEither opens a connection to the site's plain or secure port, to speak HTTP/1 over conn.
func (s *site) dialEither(secure bool) (tcp *net.TCPConn, conn net.Conn) {
	s.t.Helper()
	if !secure {
		tcp = s.dial()
		return tcp, tcp
	}
	over, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.tls), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = over.Close() })
	return over.NetConn().(*net.TCPConn), over
}

// A line is alive that takes any bytes, however few.
func TestThinLineIsNotCut(t *testing.T) {
	s := serve(t, `
		sse /events {
			write_timeout 3s
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
	deadline := time.Now().Add(9 * time.Second) // three times what a write may stand still
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

// A connection of HTTP/2 that is full may be so of what others send, which is not to suffer.
func TestAStreamThatIsClosedLeavesItsConnectionToTheOthers(t *testing.T) {
	const size, downloads = 4 << 20, 8 // more than all buffers on the way hold
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, openRoute+`
		root `+dir+`
		file_server`, withTLS)
	var fast atomic.Bool
	fast.Store(true)
	var local net.Addr
	client := e2etest.H2(t)
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{Control: smallReadBuffer}).DialContext(ctx, network, address)
		if err == nil {
			local = conn.LocalAddr()
		}
		return thinConn{conn, &fast}, err
	}
	stream := e2etest.Subscribe(t, s.secure("/events?topic=a"), e2etest.Via(client))
	stream.Connected(t)
	fast.Store(false)
	var downloading sync.WaitGroup
	for range downloads {
		downloading.Go(func() {
			response, err := client.Get(s.secure("/large"))
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if n, err := io.Copy(io.Discard, response.Body); n != size {
				t.Errorf("of %d bytes %d came: %v", size, n, err)
			}
		})
	}
	fd := serverSide(t, local.(*net.TCPAddr).Port)
	e2etest.Await(t, "the connection to be full", func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
		return n == 0 && err == nil
	})
	stream.Close()
	awaitReceivers(t, s, 0)
	fast.Store(true)
	downloading.Wait()
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
		stream := e2etest.Subscribe(t, url, e2etest.Via(client))
		stream.Connected(t)
		publish(t, s.url("/events?broadcast"), "x")
		stream.Expect(t, "x") // the socket is where it stays
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
