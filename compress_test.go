package sse_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// gzipRoute is an openRoute whose streams are compressed.
const gzipRoute = `
	sse /events {
		compress gzip
		heartbeat 100ms
		publish {
			open
		}
	}`

var acceptsGzip = e2etest.Header("Accept-Encoding", "gzip")

func TestCompressedStreamsReadAsPlainOnesOverEachProtocol(t *testing.T) {
	for name, body := range map[string]string{
		"direct":           gzipRoute,
		"handler":          strings.Replace(gzipRoute, "compress gzip", "compress gzip\ndirect_writes off", 1),
		"beside encode":    "encode\n" + gzipRoute,
		"below encode":     "route {\nencode gzip zstd\n" + gzipRoute + "\n}",
		"below an unknown": "intercept {\n@none status 599\nhandle_response @none {\nrespond x\n}\n}\n" + gzipRoute,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, body, withTLS)
			eachProtocol(t, s, func(t *testing.T, p protocol) {
				topic := strings.ReplaceAll(p.name, " ", "-")
				query := "/events?client_id=me&topic=other&topic=" + topic
				zipped := e2etest.Subscribe(t, p.url(query), p.via, acceptsGzip, e2etest.KeepRaw())
				plain := e2etest.Subscribe(t, p.url(query), p.via, e2etest.Header("Accept-Encoding", "identity"), e2etest.KeepRaw())
				wantGzip(t, zipped.Response.Header, true)
				wantGzip(t, plain.Response.Header, false)
				if a, b := zipped.Connected(t), plain.Connected(t); a.ID != b.ID || a.ClientID != b.ClientID {
					t.Errorf("the streams begin with %+v and %+v", a, b)
				}
				send := func(path, data string) {
					publish(t, s.url(path), data)
					a, b := zipped.Expect(t, data), plain.Expect(t, data) // before there is more
					if a.ID != b.ID || a.Name != b.Name {
						t.Errorf("an event is %+v and %+v", a, b)
					}
				}
				to := "/events?topic=" + topic
				for i := range 5 {
					send(to, fmt.Sprintf(`{"symbol":"BTC","price":%d}`, 60_000+i))
				}
				send("/events?client_id=me", "for you alone")
				send("/events?topic=other&event=e", "elsewhere")
				send("/events?broadcast", "to all")
				send(to+"&ephemeral", "passing")
				send(to, strings.Repeat("0123456789abcdef", 20_000))
				send("/events?client_id=me", strings.Repeat("fedcba9876543210", 20_000))
				eventually(t, patience, "heartbeats", func() bool {
					return strings.Contains(zipped.Raw(), ": heartbeat\n") && strings.Contains(plain.Raw(), ": heartbeat\n")
				})
				send(to, "")
				last := zipped.LastID()
				zipped.Close()
				publish(t, s.url(to), "missed")
				plain.Expect(t, "missed")
				zipped = e2etest.Subscribe(t, p.url(query), p.via, acceptsGzip, e2etest.LastEventID(last))
				if c := zipped.Connected(t); c.Resume != "complete" {
					t.Errorf("it resumes with %+v", c)
				}
				zipped.Expect(t, "missed")
				send(to, "and on")
			})
			s.stop()
		})
	}
}

// wantGzip checks what the headers say of compression.
func wantGzip(t *testing.T, header http.Header, want bool) {
	t.Helper()
	coding, vary := "", false
	if want {
		coding = "gzip"
	}
	for _, name := range header.Values("Vary") {
		vary = vary || name == "Accept-Encoding"
	}
	if got := header.Get("Content-Encoding"); got != coding || vary != want || len(header.Values("Content-Encoding")) > 1 {
		t.Errorf("the answer has Content-Encoding %q and Vary %q", header.Values("Content-Encoding"), header.Values("Vary"))
	}
}

func TestOnlyClientsThatAcceptGzipGetIt(t *testing.T) {
	e2etest.AboutPlainStreams(t)
	s := serve(t, gzipRoute+"\nsse /plain\nsse /off {\ncompress off\n}")
	for _, c := range []struct {
		path, accept string
		want         bool
	}{
		{"/events", "", false},
		{"/events", "gzip", true},
		{"/events", "GZIP;q=0.5", true},
		{"/events", "br, gzip, zstd", true},
		{"/events?format=envelope", "gzip, deflate, br", true},
		{"/events?format=ndjson", "gzip", true},
		{"/events?format=json", "gzip", false},
		{"/events", "gzip;q=0", false},
		{"/events", "gzip; q=0.000, identity", false},
		{"/events", "identity", false},
		{"/events", "br", false},
		{"/plain", "gzip", false},
		{"/off", "gzip", false},
	} {
		accept := e2etest.Header("Accept-Encoding", c.accept)
		head := e2etest.Send(t, http.MethodHead, s.url(c.path), "", accept)
		wantGzip(t, head.Header, c.want)
		if strings.Contains(c.path, "json") { // no event stream
			if answer := e2etest.Send(t, http.MethodHead, s.url(c.path), "", accept); answer.Status != http.StatusOK {
				t.Errorf("HEAD %s is answered %d", c.path, answer.Status)
			}
			continue
		}
		stream := e2etest.Subscribe(t, s.url(c.path), accept)
		wantGzip(t, stream.Response.Header, c.want)
		stream.Connected(t)
	}
	answer := e2etest.Send(t, http.MethodGet, s.url("/events?format=json&topic=a"), "", acceptsGzip)
	wantGzip(t, answer.Header, false)
	refused := e2etest.Send(t, http.MethodGet, s.url("/events?format=xml"), "", acceptsGzip)
	wantGzip(t, refused.Header, false)
	wantRefusal(t, refused, http.StatusBadRequest, "format")
}

func TestCompressedLinesAreReadableOneByOne(t *testing.T) {
	s := serve(t, gzipRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		topic := "lines/" + strings.ReplaceAll(p.name, " ", "-")
		lines := subscribeLines(t, p.client, p.url("/events?format=ndjson&topic="+topic), "Accept-Encoding", "gzip")
		wantGzip(t, lines.header, true)
		lines.next(t)
		for i := range 20 {
			data := fmt.Sprint("message ", i)
			publish(t, s.url("/events?topic="+topic), data)
			lines.expect(t, data)
		}
	})
}

func TestCompressedStreamsHaveATrailerAtEachOrderlyEnd(t *testing.T) {
	for _, direct := range []string{"on", "off"} {
		body := strings.Replace(gzipRoute, "compress gzip", "compress gzip\ndirect_writes "+direct, 1)
		s := serve(t, body+"\n"+strings.Replace(strings.Replace(body, "/events", "/short", 1), "heartbeat", "max_age 300ms\nheartbeat", 1), withTLS)
		var lasting []*e2etest.Stream
		eachProtocol(t, s, func(t *testing.T, p protocol) {
			short := e2etest.Subscribe(t, p.url("/short?topic=a"), p.via, acceptsGzip)
			short.Connected(t)
			publish(t, s.url("/events?topic=a"), "x")
			short.Expect(t, "x")
			if err := short.Ended(patience); err != io.EOF {
				t.Errorf("a stream that is old enough ends by %v", err)
			}
		})
		for _, client := range []*http.Client{e2etest.H1(t), e2etest.H2(t)} {
			for _, url := range []string{s.url("/events?topic=a"), s.secure("/events?topic=a")} {
				if client.Transport.(*http.Transport).Protocols.HTTP2() && strings.HasPrefix(url, "http:") {
					continue
				}
				stream := e2etest.Subscribe(t, url, e2etest.Via(client), acceptsGzip)
				stream.Connected(t)
				lasting = append(lasting, stream)
			}
		}
		publish(t, s.url("/events?topic=a"), "last")
		s.stop()
		for i, stream := range lasting {
			stream.Expect(t, "last")
			if err := stream.Ended(patience); err != io.EOF {
				t.Errorf("when nobody uses the hub any more stream %d ends by %v", i, err)
			}
		}
	}
}

// An expired token and a reload that takes the route away end a stream in good order, too.
func TestCompressedStreamsHaveATrailerBehindAFarewell(t *testing.T) {
	setSecrets(t)
	for _, direct := range []string{"on", "off"} {
		t.Run("direct_writes "+direct, func(t *testing.T) {
			s := serve(t, strings.Replace(jwtRoute, "jwt {", "compress gzip\ndirect_writes "+direct+"\njwt {", 1), withTLS)
			exp := time.Now().Truncate(time.Second).Add(6 * time.Second)
			var expiring, lasting []*e2etest.Stream
			h1, h2, h3 := e2etest.H1(t), e2etest.H2(t), e2etest.H3(t)
			for _, by := range []struct {
				client *http.Client
				url    string
			}{{h1, s.url("/events?topic=a")}, {h1, s.secure("/events?topic=a")}, {h2, s.secure("/events?topic=a")}, {h3, s.secure("/events?topic=a")}} {
				listen := func(until time.Time) *e2etest.Stream {
					token := grantingUntil(until, "alice", list("a"), nil)
					stream := e2etest.Subscribe(t, by.url, e2etest.Via(by.client), acceptsGzip, bearer(token))
					wantGzip(t, stream.Response.Header, true)
					stream.Connected(t)
					return stream
				}
				expiring = append(expiring, listen(exp))
				if by.client != h3 { // a reload ends connections of HTTP/3
					lasting = append(lasting, listen(exp.Add(time.Hour)))
				}
			}
			publish(t, s.url("/events?topic=a"), "before", bearer(publishSecret))
			for i, stream := range expiring {
				stream.Expect(t, "before")
				if event, err := stream.Next(patience); err != nil || event.Name != "expired" {
					t.Errorf("stream %d ends with %q, %v", i, event.Name, err)
				}
				if err := stream.Ended(patience); err != io.EOF {
					t.Errorf("behind that stream %d ends by %v", i, err)
				}
			}
			s.conf = strings.ReplaceAll(s.conf, "compress gzip", "hub other\ncompress gzip")
			s.conf = strings.Replace(s.conf, "persist_config off", "persist_config off\nsse {\nhub other\n}", 1)
			if err := s.load(); err != nil {
				t.Fatal(err)
			}
			for i, stream := range lasting {
				stream.Expect(t, "before")
				if err := stream.Ended(patience); err != io.EOF {
					t.Errorf("when a reload takes its hub away stream %d ends by %v", i, err)
				}
			}
		})
	}
}
