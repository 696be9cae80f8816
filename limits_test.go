package sse_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// noticed is how soon a client that has left is gone in every respect. Promised are 2 s, of a machine that is not busy;
// nothing but its leaving is noticed as soon as this.
const noticed = 10 * time.Second

func TestFullHubIs503WithRetryAfter(t *testing.T) {
	s := serve(t, openRoute, withTLS, globals("sse {\nmax_clients 2\n}"))
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		first := e2etest.Subscribe(t, p.url("/events"), p.via)
		first.Connected(t)
		second := e2etest.Subscribe(t, p.url("/events"), p.via)
		second.Connected(t)
		answer := get(t, p.url("/events"), p.via)
		wantRefusal(t, answer, http.StatusServiceUnavailable)
		wantRetryAfter(t, answer)
		if head := e2etest.Send(t, http.MethodHead, p.url("/events"), "", p.via); head.Status != answer.Status {
			t.Errorf("HEAD is answered %d", head.Status)
		}
		publish(t, p.url("/events?broadcast"), "publishing goes on", p.via)
		first.Expect(t, "publishing goes on")
		second.Close()
		eventually(t, noticed, "there is room again", func() bool {
			stream, err := e2etest.Open(t.Context(), p.url("/events"), p.via)
			if err != nil {
				return false
			}
			stream.Close()
			return true
		})
		first.Close()
		awaitReceivers(t, s, 0)
	})
}

func wantRetryAfter(t *testing.T, answer e2etest.Answer) {
	t.Helper()
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Errorf("Retry-After is %q", answer.Header.Get("Retry-After"))
	}
}

func awaitReceivers(t *testing.T, s *site, n int) {
	t.Helper()
	eventually(t, noticed, fmt.Sprint(n, " clients"), func() bool { return receivers(t, s.url("/events?broadcast&ephemeral")) == n })
}

func TestTooManyClientsOfOneAddressAre429(t *testing.T) {
	s := serve(t, `
		sse /events {
			max_clients_per_ip 2
			publish {
				open
			}
		}`, withTLS, globals("servers {\ntrusted_proxies static 127.0.0.1/32\n}"))
	from := func(ip string) e2etest.Option { return e2etest.Header("X-Forwarded-For", ip) }
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for _, c := range []struct{ first, second, third, other string }{
			{"192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"},
			{"192.0.2.3", "::ffff:192.0.2.3", "192.0.2.3", "::ffff:192.0.2.4"},
			{"2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"}, // counted per /64
			{"2001:db8::1", "2001:db8::1", "2001:db8::1", "2001:db9::1"},
		} {
			first := e2etest.Subscribe(t, p.url("/events"), p.via, from(c.first))
			second := e2etest.Subscribe(t, p.url("/events"), p.via, from(c.second))
			first.Connected(t)
			second.Connected(t)
			answer := get(t, p.url("/events"), p.via, from(c.third))
			if r := wantRefusal(t, answer, http.StatusTooManyRequests); r.Title != "Too many connections" {
				t.Errorf("the title is %q", r.Title)
			}
			wantRetryAfter(t, answer)
			other := e2etest.Subscribe(t, p.url("/events"), p.via, from(c.other))
			other.Connected(t)
			second.Close()
			eventually(t, noticed, "one more is let in", func() bool {
				stream, err := e2etest.Open(t.Context(), p.url("/events"), p.via, from(c.third))
				if err != nil {
					return false
				}
				stream.Close()
				return true
			})
			first.Close()
			other.Close()
		}
	})
}

func TestForwardedAddressesOfStrangersDoNotCount(t *testing.T) {
	s := serve(t, "sse /events {\nmax_clients_per_ip 2\n}")
	for i := range 2 {
		e2etest.Subscribe(t, s.url("/events"), e2etest.Header("X-Forwarded-For", fmt.Sprint("192.0.2.", i))).Connected(t)
	}
	wantRefusal(t, get(t, s.url("/events"), e2etest.Header("X-Forwarded-For", "192.0.2.9")), http.StatusTooManyRequests)
}

var waysToLeave = map[string]func(*net.TCPConn) error{
	"close":      (*net.TCPConn).Close,
	"half-close": (*net.TCPConn).CloseWrite, // which a browser never does; a proxy may
	"reset": func(conn *net.TCPConn) error {
		_ = conn.SetLinger(0)
		return conn.Close()
	},
}

func TestClientThatLeavesIsNoticedAtOnce(t *testing.T) {
	s := serve(t, `
		sse /events {
			heartbeat off
			publish {
				open
			}
		}`, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for range 3 { // on one connection, where the protocol shares it
			stream := e2etest.Subscribe(t, p.url("/events?topic=a"), p.via)
			other := e2etest.Subscribe(t, p.url("/events?topic=a"), p.via)
			stream.Connected(t)
			other.Connected(t)
			awaitReceivers(t, s, 2)
			stream.Close()
			awaitReceivers(t, s, 1)
			other.Close()
			awaitReceivers(t, s, 0)
		}
	})
	for how, leave := range waysToLeave {
		for request, body := range map[string]string{
			"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n":                                                        "",
			"GET /events HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n":                                                        "",
			"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\n":                                   "body",
			"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n":                          "4\r\nbody\r\n0\r\n\r\n",
			"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n": "",
		} {
			conn := s.dial()
			fmt.Fprint(conn, request, body)
			awaitReceivers(t, s, 1)
			if err := leave(conn); err != nil {
				t.Fatal(err)
			}
			eventually(t, noticed, how+" of "+request, func() bool { return receivers(t, s.url("/events?topic=none")) == 0 })
			awaitReceivers(t, s, 0)
		}
	}
}

// The client leaves while the server waits for it to take more.
func TestClientThatLeavesWhileItsSocketIsFullIsNoticed(t *testing.T) {
	s := serve(t, `
		sse /events {
			write_timeout 1m
			queue 10000 256MiB # for what the test asks with
			publish {
				open
				max_size 32MiB
			}
		}`, withTLS)
	lazy := lazyClients(t, s, "/events?topic=a")
	publish(t, s.url("/events?topic=a"), hugeData)
	for i, c := range lazy {
		awaitReceivers(t, s, len(lazy)-i)
		_ = c.leave()
		eventually(t, noticed, c.name+" has left", func() bool {
			return receivers(t, s.url("/events?broadcast&ephemeral")) == len(lazy)-i-1
		})
	}
	for how, leave := range map[string]func(*net.TCPConn) error{
		"close":      (*net.TCPConn).Close,
		"half-close": (*net.TCPConn).CloseWrite,
	} {
		conn := e2etest.Stall(t, s.url("/events?topic=a")).(*net.TCPConn)
		awaitReceivers(t, s, 1)
		publish(t, s.url("/events?topic=a"), hugeData)
		if err := leave(conn); err != nil {
			t.Fatal(err)
		}
		eventually(t, noticed, how, func() bool { return receivers(t, s.url("/events?broadcast")) == 0 })
	}
}

func TestClientWithoutMessagesEndsAfterIdleTimeout(t *testing.T) {
	s := serve(t, `
		sse /events {
			idle_timeout 5s
			heartbeat 300ms
			publish {
				open
			}
		}
		sse /patient {
			heartbeat 300ms
		}`, withTLS)
	begin := time.Now()
	patient, idle, busy := lasting(t, s, "/patient"), lasting(t, s, "/events?topic=idle"), lasting(t, s, "/events?topic=busy")
	for _, stream := range idle {
		eventually(t, patience, "the idle client ends", func() bool {
			publish(t, s.url("/events?topic=busy"), "x")
			return ended(stream)
		})
		if err := stream.Ended(patience); err != io.EOF {
			t.Errorf("an idle client ended with %v", err)
		}
	}
	if took := time.Since(begin); took < 5*time.Second {
		t.Errorf("the idle clients ended after %v", took)
	}
	for _, stream := range append(busy, patient...) {
		if ended(stream) {
			t.Errorf("a client ended that was not idle, or may be")
		}
	}
	for _, stream := range busy {
		if err := stream.Ended(patience); err != io.EOF {
			t.Errorf("a client that was busy before ended with %v", err)
		}
	}
}

// lasting subscribes one client over each protocol, to the test's end.
func lasting(t *testing.T, s *site, path string) (streams []*e2etest.Stream) {
	t.Helper()
	eachProtocol(t, s, func(_ *testing.T, p protocol) {
		client := map[int]func(testing.TB) *http.Client{1: e2etest.H1, 2: e2etest.H2, 3: e2etest.H3}[p.major]
		streams = append(streams, e2etest.Subscribe(t, p.url(path), e2etest.Via(client(t)), e2etest.KeepRaw()))
	})
	return streams
}

// ended reports whether a stream has ended by now.
func ended(stream *e2etest.Stream) bool {
	return !errors.Is(stream.Ended(20*time.Millisecond), e2etest.ErrTimeout)
}

func TestClientEndsAtItsMaxAgeLessSomeJitter(t *testing.T) {
	s := serve(t, `
		sse /events {
			max_age 2s
			publish {
				open
			}
		}`, withTLS)
	begin := time.Now()
	streams := slices.Concat(lasting(t, s, "/events?topic=a"), lasting(t, s, "/events?topic=a"), lasting(t, s, "/events?topic=b"))
	for i, stream := range streams {
		eventually(t, patience, "the client ends", func() bool {
			publish(t, s.url("/events?topic=a"), "x") // messages don't prolong it
			return ended(stream)
		})
		if err := stream.Ended(patience); err != io.EOF {
			t.Errorf("client %d ended with %v", i, err)
		}
		if took := time.Since(begin); i == 0 && took < 1800*time.Millisecond {
			t.Errorf("ended after %v", took)
		}
	}
}

// lazyClient speaks a protocol through a small window, so that a test that does not read shows.
func lazyClient(t testing.TB, p protocol) *http.Client {
	t.Helper()
	if p.major == 3 {
		return e2etest.H3(t)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(p.major == 1)
	protocols.SetHTTP2(p.major == 2)
	transport := &http.Transport{
		Protocols:          protocols,
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
		DisableCompression: true,
		DialContext:        (&net.Dialer{Control: smallReadBuffer}).DialContext,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// openUnread subscribes; the body of the answer is the test's to read.
func openUnread(t testing.TB, client *http.Client, url string) *http.Response {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatalf("answered %s", response.Status)
	}
	return response
}
