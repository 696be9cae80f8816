package stream_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestWriteTimeoutEndsAStalledClientWhateverItsSlowClientIs(t *testing.T) {
	for _, direct := range []bool{true, false} {
		for _, policy := range []hub.SlowClient{hub.CatchUp, hub.Disconnect, hub.DropOldest} {
			t.Run(fmt.Sprint(policy, " direct ", direct), func(t *testing.T) {
				s := serve(t, direct)
				stalled(t, s.plain(), "slow="+string(policy))
				s.awaitClients(1)
				s.publish(strings.Repeat("x", 16<<20)) // more than all buffers on the way hold, and one message passes a queue
				s.awaitEnd(1, hub.ErrStuck)
				s.awaitClients(0)
			})
		}
	}
}

func TestASlowClientIsDisconnectedOnceItIsMoreThanItsQueueBehind(t *testing.T) {
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct ", direct), func(t *testing.T) {
			s := serve(t, direct)
			s.timeout = time.Minute // which is not what ends it
			stalled(t, s.plain(), "slow=disconnect")
			s.awaitClients(1)
			long := strings.Repeat("x", 50_000)
			for range 600 { // 30 MB
				s.publish(long)
			}
			s.awaitEnd(1, hub.ErrSlow)
			s.awaitClients(0)
		})
	}
}

// stalledOverTLS opens a stream over HTTP/1.1 and TLS that nobody reads.
func (s *site) stalledOverTLS() net.Conn {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.NetConn().Close() })
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	return conn
}

// stalledOverHTTP2 opens a stream on a connection of its own whose window is zero from the beginning.
func (s *site) stalledOverHTTP2() net.Conn {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.server.Listener.Addr().String(),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.NetConn().Close() })
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/"}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			s.t.Fatal(err)
		}
	}
	fmt.Fprint(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		s.t.Fatal(err)
	}
	err = framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: header.Bytes(), EndStream: true, EndHeaders: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// Whoever comes, stalls, leaves and comes again: if publishers waited for one of them, this would take minutes.
func TestStalledNewcomersHoldUpNobodyOverAnyProtocol(t *testing.T) {
	for name, test := range map[string]struct {
		direct bool
		come   func(s *site, address string) net.Conn
	}{
		"direct":  {true, func(s *site, address string) net.Conn { return stalled(s.t, address, "") }},
		"replay":  {true, func(s *site, address string) net.Conn { return stalled(s.t, address, "id=unknown") }},
		"handler": {false, func(s *site, address string) net.Conn { return stalled(s.t, address, "") }},
		"TLS":     {true, func(s *site, _ string) net.Conn { return s.stalledOverTLS() }},
		"h2":      {true, func(s *site, _ string) net.Conn { return s.stalledOverHTTP2() }},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, test.direct)
			s.timeout = time.Minute
			address := s.plain()
			good := s.listen(new(http.Client), "http://"+address)
			long := strings.Repeat("x", 20_000)
			var conns []net.Conn
			for i := range 20 {
				conns = append(conns, test.come(s, address))
				s.awaitClients(1 + len(conns))
				soon := hubtest.ReturnsSoon(func() {
					for j := range 40 {
						s.publish(strconv.Itoa(40*i+j) + long)
					}
				})
				if !soon {
					t.Fatal("publishers wait")
				}
				for j := range 40 {
					good.want(strconv.Itoa(40*i+j) + long)
				}
				if i%4 == 3 {
					_ = conns[0].Close()
					conns = conns[1:]
					s.awaitClients(1 + len(conns))
				}
			}
			for _, conn := range conns {
				_ = conn.Close()
			}
		})
	}
}

func TestAStalledClientHoldsLessThan16KiBWhateverIsPublished(t *testing.T) {
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct ", direct), func(t *testing.T) {
			s := serve(t, direct)
			s.timeout = time.Minute
			s.hub.Apply(hub.Limits{}) // what is kept is not theirs
			publish := func(topic string, n int) {
				for range n {
					m := &hub.Message{To: hub.Topics(topic), Data: bytes.Repeat([]byte("x"), 7_000), Ephemeral: true}
					s.hub.Wait(t.Context(), s.hub.Deliver(m))
				}
			}
			heap := func() int {
				for !s.hub.Quiet() { // what has not been read yet is not theirs either
					time.Sleep(time.Millisecond)
				}
				publish("b", 200) // on which the log in memory lets go of what all have read
				var m runtime.MemStats
				runtime.GC()
				runtime.GC() // what was freed by the first
				runtime.ReadMemStats(&m)
				return int(m.HeapAlloc + m.StackInuse)
			}
			address := s.plain()
			const n = 60
			for range n {
				conn := stalled(t, address, "")
				_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			}
			s.awaitClients(n)
			publish("b", 2000) // the newest of the log are as many as they will be
			before := heap()
			publish("a", 4000) // 28 MB
			if grown := (heap() - before) / n; grown > 16<<10 {
				t.Errorf("by 28 MB of messages each has come to hold %d bytes more", grown)
			}
		})
	}
}
