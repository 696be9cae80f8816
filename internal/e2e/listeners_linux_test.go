package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// listener is one that Caddy can have, and how a client gets through it.
type listener struct {
	name    string
	address string // of a Unix socket if it begins with a slash
	header  bool   // it wants a header of the PROXY protocol
	secure  bool
}

// listeners are all kinds that Caddy brings.
var listeners = []listener{
	{name: "TCP", address: "127.0.0.1:{{port}}"},
	{name: "TCP with h1 alone", address: "127.0.0.1:{{only_h1}}"},
	{name: "TCP with h2c alone", address: "127.0.0.1:{{only_h2c}}"},
	{name: "TLS", address: "127.0.0.1:{{tls}}", secure: true},
	{name: "proxy_protocol", address: "127.0.0.1:{{proxy}}", header: true},
	{name: "proxy_protocol and TLS", address: "127.0.0.1:{{proxy_tls}}", header: true, secure: true},
	{name: "http_redirect and TLS", address: "127.0.0.1:{{redirect}}", secure: true},
	{name: "Unix", address: "{{sockets}}/plain"},
	{name: "Unix and proxy_protocol", address: "{{sockets}}/proxy", header: true},
}

// speaks reports whether the listener takes this protocol.
func (l listener) speaks(protocol string) bool {
	return !strings.HasSuffix(l.name, " alone") || strings.Contains(l.name, protocol)
}

const listenersSite = `
{
	skip_install_trust
	auto_https disable_redirects
	servers {
		protocols h1 h2 h2c
	}
	servers :{{only_h1}} {
		protocols h1
	}
	servers :{{only_h2c}} {
		protocols h2c
	}
	servers :{{proxy}} {
		protocols h1 h2 h2c
		listener_wrappers {
			proxy_protocol {
				allow 127.0.0.0/8
			}
		}
	}
	servers :{{proxy_tls}} {
		listener_wrappers {
			proxy_protocol {
				allow 127.0.0.0/8
			}
			tls
		}
	}
	servers :{{redirect}} {
		listener_wrappers {
			http_redirect
			tls
		}
	}
	servers unix/{{sockets}}/proxy {
		protocols h1 h2 h2c
		listener_wrappers {
			proxy_protocol {
				allow 127.0.0.0/8
			}
		}
	}
}
(site) {
	sse /events {
		heartbeat off
		write_timeout 2s
		queue 100000 1GiB
		publish {
			open
			max_size 32MiB
		}
	}
	sse /patient {
		heartbeat off
		write_timeout 5m
	}
	sse /one {
		heartbeat off
		max_clients_per_ip 1
	}
}
http://127.0.0.1:{{port}}, http://localhost:{{port}},
http://localhost:{{only_h1}}, http://localhost:{{only_h2c}}, http://localhost:{{proxy}} {
	import site
}
https://localhost:{{tls}}, https://localhost:{{proxy_tls}}, https://localhost:{{redirect}} {
	tls internal
	import site
}
http://localhost:80 {
	bind unix/{{sockets}}/plain
	import site
}
http://localhost:81 {
	bind unix/{{sockets}}/proxy
	import site
}
`

// allListeners starts a server that has each listener.
func allListeners(t *testing.T) *e2etest.Server {
	t.Helper()
	sockets, err := os.MkdirTemp("", "sse") // the name of a socket is to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	return e2etest.Start(t, listenersSite, e2etest.Var("sockets", sockets), awaitTLS, e2etest.Plain())
}

// guests are the IP addresses that clients have come from; each has its own.
var guests atomic.Int32

// guest is a client's connection. It reads nothing that the test doesn't read.
type guest struct {
	net.Conn          // over which it speaks HTTP
	bottom   net.Conn // the socket
	framer   *http2.Framer
	topic    string // which it alone listens to
}

// dial opens a connection from an IP address of its own.
func (l listener) dial(t *testing.T, server *e2etest.Server, protocol string) *guest {
	t.Helper()
	n := guests.Add(1)
	return l.dialFrom(t, server, protocol, net.IPv4(127, 1, byte(n>>8), byte(n)))
}

func (l listener) dialFrom(t *testing.T, server *e2etest.Server, protocol string, ip net.IP) *guest {
	t.Helper()
	network, address := "tcp", server.Expand(l.address)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}, Control: thin}
	if strings.HasPrefix(address, "/") {
		network, dialer = "unix", net.Dialer{}
	}
	bottom, err := dialer.DialContext(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bottom.Close() })
	if l.header {
		fmt.Fprintf(bottom, "PROXY TCP4 %v 127.0.0.1 4000 4000\r\n", ip)
	}
	g := &guest{Conn: bottom, bottom: bottom}
	if l.secure {
		next := map[string]string{"h1": "http/1.1", "h2": "h2"}[protocol]
		over := tls.Client(bottom, &tls.Config{
			InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{next},
		})
		if err := over.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.Conn = over
	}
	return g
}

// thin gives a connection to this machine the segments and the buffer of one over a thin line.
func thin(_, _ string, conn syscall.RawConn) (err error) {
	_ = conn.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10))
	})
	return err
}

// subscribe opens a stream of the topic load, and returns once its answer has begun. Over HTTP/2, window is how
// many bytes the server may send before it is told to go on.
func (g *guest) subscribe(t *testing.T, path string, window uint32) (status string) {
	t.Helper()
	g.topic = fmt.Sprint("own", guests.Add(1))
	path += "?topic=load&topic=" + g.topic
	_ = g.bottom.SetReadDeadline(time.Now().Add(patience))
	defer g.bottom.SetReadDeadline(time.Time{})
	if window == noHTTP2 {
		fmt.Fprintf(g, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
		var line []byte
		for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\r\n\r\n")); line = append(line, b...) {
			if _, err := io.ReadFull(g, b); err != nil {
				t.Fatalf("after %q: %v", line, err)
			}
		}
		return strings.Fields(string(line))[1]
	}
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for _, field := range [][2]string{
		{":method", "GET"}, {":scheme", "http"}, {":authority", "localhost"}, {":path", path},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	fmt.Fprint(g, http2.ClientPreface)
	g.framer = http2.NewFramer(g, g)
	g.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	err := errors.Join(
		g.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}),
		g.framer.WriteWindowUpdate(0, 1<<30),
		g.framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: header.Bytes(), EndStream: true, EndHeaders: true,
		}),
	)
	for err == nil {
		var frame http2.Frame
		frame, err = g.framer.ReadFrame()
		if answer, ok := frame.(*http2.MetaHeadersFrame); ok {
			return answer.PseudoValue("status")
		}
	}
	t.Fatal(err)
	return ""
}

// noHTTP2 has a guest speak HTTP/1.1.
const noHTTP2 = 1 << 31

// eachListener runs a test for each way to a stream: on each listener, over HTTP/1.1, over HTTP/2 with windows
// that never close, and over HTTP/2 with those given.
func eachListener(window uint32, test func(name string, l listener, protocol string, window uint32)) {
	for _, l := range listeners {
		if l.speaks("h1") {
			test(l.name+", h1", l, "h1", noHTTP2)
		}
		if l.speaks("h2") {
			test(l.name+", h2", l, "h2", 1<<30)
			test(fmt.Sprint(l.name, ", h2 with a window of ", window), l, "h2", window)
		}
	}
}

// stays reports whether the server still has the stream of a guest. The guest is sent nothing, which could
// tell.
func (g *guest) stays(t *testing.T, server *e2etest.Server) bool {
	t.Helper()
	answer := e2etest.Send(t, http.MethodGet, server.AdminURL("/sse/hubs/default/clients?topic="+g.topic), "")
	var page struct{ Clients []json.RawMessage }
	decodeLoosely(t, answer, &page)
	return len(page.Clients) > 0
}

// publishHuge publishes more than all the buffers on the way hold, to so many guests at least.
func publishHuge(t *testing.T, server *e2etest.Server, n int) {
	t.Helper()
	answer := e2etest.Publish(t, server.URL("/events?topic=load"), strings.Repeat("x", 16<<20))
	var told struct{ Receivers int }
	if decodeLoosely(t, answer, &told); told.Receivers < n {
		t.Fatalf("%d guests are to get the message; want %d", told.Receivers, n)
	}
}

func TestStalledReadersHoldUpTheExitOnNoListener(t *testing.T) {
	server, n := allListeners(t), 0
	eachListener(0, func(name string, l listener, protocol string, window uint32) {
		n++
		if status := l.dial(t, server, protocol).subscribe(t, "/patient", window); status != "200" {
			t.Fatalf("%s: %s", name, status)
		}
	})
	publishHuge(t, server, n)
	terminate(t, server)
}

func TestWriteTimeoutCutsStalledReadersOnEveryListener(t *testing.T) {
	t.Parallel()
	server, waiting := allListeners(t), 0
	stalled := make(map[string]*guest)
	eachListener(0, func(name string, l listener, protocol string, window uint32) {
		if window > 0 { // or it may be cut already
			waiting++
		}
		stalled[name] = l.dial(t, server, protocol)
		stalled[name].subscribe(t, "/events", window)
	})
	publishHuge(t, server, waiting)
	for name, g := range stalled {
		e2etest.Await(t, name+": the end", func() bool { return !g.stays(t, server) })
	}
}

func TestWhoLeavesIsNoticedOnEveryListener(t *testing.T) {
	t.Parallel()
	server := allListeners(t)
	eachListener(0, func(name string, l listener, protocol string, window uint32) {
		for way, leave := range map[string]func(g *guest){
			"FIN": func(g *guest) { _ = g.bottom.Close() },
			"RST": func(g *guest) {
				if tcp, ok := g.bottom.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0)
				}
				_ = g.bottom.Close()
			},
		} {
			n := guests.Add(1)
			ip := net.IPv4(127, 2, byte(n>>8), byte(n))
			come := func() (g *guest, status string) {
				g = l.dialFrom(t, server, protocol, ip)
				return g, g.subscribe(t, "/one", window)
			}
			g, status := come()
			if status != "200" {
				t.Fatalf("%s: %s", name, status)
			}
			hasIP := l.name != "Unix"
			if _, status := come(); hasIP && status != "429" {
				t.Fatalf("%s: the second one of an IP address gets %s, so this test shows nothing", name, status)
			}
			if protocol == "h1" {
				fmt.Fprint(g, "\n") // the HTTP server looks no further
			}
			leave(g)
			e2etest.Await(t, name+": the end by "+way, func() bool { return !g.stays(t, server) })
			if _, status := come(); status != "200" {
				t.Errorf("%s: after the first has left by %s, the next gets %s", name, way, status)
			}
		}
	})
}

func TestThinLinesAreCutOnNoListener(t *testing.T) {
	t.Parallel()
	server := allListeners(t)
	const (
		step  = 200 * time.Millisecond
		steps = 35 // 7 s, more than three times write_timeout
		bite  = 1 << 10
	)
	slow, bites := make(map[string]*guest), make(map[string]int)
	eachListener(bite, func(name string, l listener, protocol string, window uint32) {
		slow[name], bites[name] = l.dial(t, server, protocol), bite
		if !strings.HasPrefix(l.name, "Unix") && window != bite {
			bites[name] = 8 * bite // TCP takes half a buffer at once, TLS a record
		}
		slow[name].subscribe(t, "/events", window)
	})
	publishHuge(t, server, len(slow))
	var lines sync.WaitGroup
	for name, g := range slow {
		lines.Go(func() {
			_ = g.bottom.SetReadDeadline(time.Now().Add(patience))
			for range steps {
				time.Sleep(step) // is what a thin line does
				if _, err := io.ReadFull(g, make([]byte, bites[name])); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				if g.framer != nil {
					_ = g.framer.WriteWindowUpdate(1, bite)
				}
			}
		})
	}
	lines.Wait()
	for name, g := range slow {
		if !g.stays(t, server) {
			t.Errorf("%s: the stream was cut", name)
		}
	}
}

func TestVanishedPeersAreLookedForOnEveryListener(t *testing.T) {
	t.Parallel()
	server := allListeners(t)
	eachListener(1<<20, func(name string, l listener, protocol string, window uint32) {
		g := l.dial(t, server, protocol)
		g.subscribe(t, "/events", window)
		local, ok := g.bottom.LocalAddr().(*net.TCPAddr)
		if !ok {
			return // of a Unix socket nobody vanishes
		}
		fd := socketOf(t, server.PID(), local)
		defer unix.Close(fd)
		ms, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if err != nil || ms == 0 || ms > 60_000 {
			t.Errorf("%s: TCP_USER_TIMEOUT is %d ms, %v", name, ms, err)
		}
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || on == 0 {
			t.Errorf("%s: a silent peer is not probed: %v", name, err)
		}
	})
}

// socketOf returns a duplicate of the socket by which a process is connected to a peer.
func socketOf(t *testing.T, pid int, peer *net.TCPAddr) (fd int) {
	t.Helper()
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(process)
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(open) + 100 {
		fd, err := unix.PidfdGetfd(process, n, 0)
		if errors.Is(err, unix.EPERM) {
			t.Skip("the kernel does not let this user look at another process's sockets")
		}
		if err != nil {
			continue
		}
		var port int
		var ip net.IP
		switch name, _ := unix.Getpeername(fd); name := name.(type) {
		case *unix.SockaddrInet4:
			ip, port = name.Addr[:], name.Port
		case *unix.SockaddrInet6:
			ip, port = name.Addr[:], name.Port
		}
		if port == peer.Port && peer.IP.Equal(ip) {
			return fd
		}
		unix.Close(fd)
	}
	t.Fatalf("the server has no connection with %v", peer)
	return -1
}
