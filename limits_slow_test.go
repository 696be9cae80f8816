package sse_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// hugeData is more than any buffer between the hub and a client takes.
var hugeData = strings.Repeat("0123456789abcdef", 12<<16)

// largeData is more than a queue takes.
var largeData = hugeData[:256<<10]

func smallReadBuffer(_, _ string, conn syscall.RawConn) error {
	return conn.Control(func(fd uintptr) { setReadBuffer(fd, 4<<10) })
}

func TestMessageLargerThanTheQueueArrives(t *testing.T) {
	s := serve(t, `
		sse /events {
			queue 4 1KiB
			publish {
				open
				max_size 1MiB
			}
		}`, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := e2etest.Subscribe(t, p.url("/events?topic=a"), p.via)
		start := stream.Connected(t).ID
		for _, data := range []string{largeData, "small", largeData[:2000], largeData} {
			publish(t, s.url("/events?topic=a"), data)
			if event, err := stream.Next(patience); err != nil || string(event.Data) != data {
				t.Fatalf("a message of %d bytes arrived as %d, %v", len(data), len(event.Data), err)
			}
		}
		again := e2etest.Subscribe(t, p.url("/events?topic=a"), p.via, e2etest.LastEventID(start))
		if event, err := again.Next(patience); err != nil || string(event.Data) != largeData {
			t.Fatalf("replayed as %d bytes, %v", len(event.Data), err)
		}
	})
}

// numbered is the data of a message that is large enough to fill windows soon, and tells its number.
func numbered(i int) string { return fmt.Sprintf("%06d %s", i, hugeData[:64<<10]) }

func numberOf(t testing.TB, event eventstream.Event) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(string(event.Data), "%06d ", &n); err != nil {
		t.Fatalf("got %+.100v", event)
	}
	return n
}

// lazy is a client that has read the connected event and nothing since.
type lazy struct {
	protocol
	decoder   *eventstream.Decoder
	connected eventstream.Event
	leave     func() error
}

// lazyClients subscribes one over each protocol, to the test's end.
func lazyClients(t *testing.T, s *site, path string) (clients []lazy) {
	t.Helper()
	eachProtocol(t, s, func(_ *testing.T, p protocol) {
		body := openUnread(t, lazyClient(t, p), p.url(path)).Body
		c := lazy{protocol: p, decoder: eventstream.NewDecoder(body, 64<<20), leave: body.Close}
		var err error
		if c.connected, err = c.decoder.Next(); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	})
	return clients
}

func TestSlowClientIsDisconnectedAndResumesWithoutLoss(t *testing.T) {
	const n = 200
	s := serve(t, `
		sse /events {
			queue 16 1MiB
			slow_client disconnect
			publish {
				open
			}
		}`, withTLS)
	healthy := e2etest.Subscribe(t, s.url("/events?topic=a"))
	healthy.Connected(t)
	slow := lazyClients(t, s, "/events?topic=a")
	for i := range n {
		publish(t, s.url("/events?topic=a"), numbered(i))
		if got := numberOf(t, mustNext(t, healthy)); got != i {
			t.Fatalf("the healthy client got message %d, want %d", got, i)
		}
	}
	if got := receivers(t, s.url("/events?topic=a&ephemeral")); got != 1 {
		t.Fatalf("%d receivers: slow clients are still there", got)
	}
	for _, c := range slow {
		t.Run(c.name, func(t *testing.T) {
			// It has what had got through; then its connection is seen to be cut, not ended.
			lastID, next := c.connected.ID, 0
			event, err := c.decoder.Next()
			for ; err == nil; event, err = c.decoder.Next() {
				lastID = event.ID
				if got := numberOf(t, event); got != next {
					t.Fatalf("it got message %d, want %d", got, next)
				}
				next++
			}
			if err == io.EOF {
				t.Error("its stream ended properly")
			}
			again := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.LastEventID(lastID))
			if told := again.Connected(t); told.Resume != "complete" {
				t.Errorf("resume is %q", told.Resume)
			}
			for ; next < n; next++ {
				if got := numberOf(t, mustNext(t, again)); got != next {
					t.Fatalf("it resumed with message %d, want %d", got, next)
				}
			}
		})
	}
}

// mustNext returns the next message that is not one of those that only count receivers.
func mustNext(t testing.TB, stream *e2etest.Stream) eventstream.Event {
	t.Helper()
	for {
		event, err := stream.Next(patience)
		if err != nil {
			t.Fatal(err)
		}
		if len(event.Data) > 0 {
			return event
		}
	}
}

func TestSlowClientMayStayAndIsToldOfTheGap(t *testing.T) {
	const n = 200
	s := serve(t, `
		sse /events {
			queue 16 1MiB
			slow_client drop_oldest
			write_timeout 1m
			publish {
				open
			}
		}`, withTLS)
	slow := lazyClients(t, s, "/events?topic=a")
	for i := range n {
		publish(t, s.url("/events?topic=a"), numbered(i))
	}
	if got := receivers(t, s.url("/events?topic=none&broadcast=false")); got != 0 {
		t.Errorf("a topic without clients has %d", got)
	}
	for _, c := range slow {
		t.Run(c.name, func(t *testing.T) {
			last, gaps, told := -1, 0, false
			for last < n-1 {
				event, err := c.decoder.Next()
				switch {
				case err != nil:
					t.Fatalf("the stream ended after message %d: %v", last, err)
				case event.Name == "gap":
					if event.ID != "" || !bytes.Contains(event.Data, []byte(`"reason":"slow_client"`)) {
						t.Errorf("the gap is told as %+v", event)
					}
					gaps++
					told = true
				default:
					got := numberOf(t, event)
					if got <= last || got > last+1 && !told {
						t.Fatalf("message %d follows message %d, and a gap was told: %t", got, last, told)
					}
					last, told = got, false
				}
			}
			if gaps == 0 {
				t.Error("no gap was told")
			}
		})
	}
}

func TestWriteThatIsStuckForWriteTimeoutEndsTheClient(t *testing.T) {
	s := serve(t, `
		sse /events {
			write_timeout 1s
			publish {
				open
				max_size 32MiB
			}
		}`, withTLS)
	stuck := lazyClients(t, s, "/events?topic=a")
	begin := time.Now()
	if n := publish(t, s.url("/events?topic=a"), hugeData).Receivers; n != float64(len(stuck)) {
		t.Fatalf("%v receivers", n)
	}
	eventually(t, patience, "the stuck clients are gone", func() bool {
		return receivers(t, s.url("/events?broadcast&ephemeral")) == 0
	})
	if took := time.Since(begin); took < time.Second {
		t.Errorf("the clients were cut after %v", took)
	}
	for _, c := range stuck {
		if event, err := c.decoder.Next(); err == nil || err == io.EOF {
			t.Errorf("%s: the stream that was cut ended with %d bytes of data, %v", c.name, len(event.Data), err)
		}
	}
}

func TestPeerThatFreezesIsGoneAfterWriteTimeout(t *testing.T) {
	e2etest.AboutPlainStreams(t)
	s := serve(t, `
		sse /events {
			write_timeout 1s
			publish {
				open
				max_size 32MiB
			}
		}`, withTLS)
	for name, client := range map[string]*http.Client{"HTTP 1": e2etest.H1(t), "HTTP 2": e2etest.H2(t)} {
		t.Run(name, func(t *testing.T) {
			freeze := e2etest.Freezing(client)
			const n = 8 // streams of one connection must be more than their windows, or the socket is never full
			for range n {
				e2etest.Subscribe(t, s.secure("/events?topic=a"), e2etest.Via(client)).Connected(t)
			}
			freeze()
			publish(t, s.url("/events?topic=a"), hugeData)
			eventually(t, 10*time.Second, "the frozen clients are gone", func() bool {
				return receivers(t, s.url("/events?broadcast&ephemeral")) == 0
			})
		})
	}
}
