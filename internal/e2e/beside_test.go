package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestServerTimeoutsAndCompressionDoNotReachStreams(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	server := e2etest.Start(t, tlsSite(siteOptions{
		global: "servers {\ntimeouts {\nread_body 2s\nread_header 2s\nwrite 2s\nidle 2s\n}\n}",
		route:  "heartbeat 500ms",
		site:   "encode gzip zstd\nroot {{dir}}\nfile_server",
	}), awaitTLS)
	page := strings.Repeat("<p>some text that compresses well</p>\n", 1000)
	server.WriteFile("page.html", page)
	plain, secure := server.URL("/events?topic=a"), server.Expand("https://localhost:{{tls}}/events?topic=a")
	acceptsAll := e2etest.Header("Accept-Encoding", "gzip, zstd, br")

	streams := map[string]*e2etest.Stream{}
	for name, subscribe := range map[string]func(options ...e2etest.Option) *e2etest.Stream{
		"h1":          func(o ...e2etest.Option) *e2etest.Stream { return e2etest.Subscribe(t, plain, o...) },
		"h1 over TLS": func(o ...e2etest.Option) *e2etest.Stream { return e2etest.Subscribe(t, secure, o...) },
		"h2": func(o ...e2etest.Option) *e2etest.Stream {
			return e2etest.Subscribe(t, secure, append(o, e2etest.Via(e2etest.H2(t)))...)
		},
		"h3": func(o ...e2etest.Option) *e2etest.Stream {
			return e2etest.Subscribe(t, secure, append(o, e2etest.Via(e2etest.H3(t)))...)
		},
	} {
		stream := subscribe(acceptsAll, e2etest.KeepRaw())
		streams[name] = stream
		if got := stream.Response.Header.Get("Content-Encoding"); got != "" {
			t.Errorf("%s: Content-Encoding is %q", name, got)
		}
		if got := stream.Response.Header.Get("Cache-Control"); !strings.Contains(got, "no-transform") {
			t.Errorf("%s: Cache-Control is %q", name, got)
		}
		stream.Connected(t)
	}
	begin := time.Now()
	for i := range 3 {
		for name, stream := range streams {
			// Silent for longer than the timeout, but for heartbeats; then a message.
			e2etest.Await(t, "heartbeats to "+name, func() bool { return strings.Count(stream.Raw(), ": heartbeat") >= 6*(i+1) })
		}
		text := fmt.Sprintf("message %d", i)
		e2etest.Publish(t, plain, text)
		for _, stream := range streams {
			stream.Expect(t, text)
		}
	}
	if lived := time.Since(begin); lived < 3*timeout {
		t.Errorf("the streams have lived for only %v", lived)
	}

	answer := e2etest.Send(t, http.MethodGet, server.URL("/page.html"), "", e2etest.Header("Accept-Encoding", "gzip"))
	if got := answer.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("a file's Content-Encoding is %q", got)
	}
	unzip, err := gzip.NewReader(strings.NewReader(answer.Body))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(unzip); err != nil || string(text) != page {
		t.Errorf("a compressed file came as %d bytes: %v", len(text), err)
	}
}

func TestPublisherMayTakeLongerThanTheServersTimeouts(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, tlsSite(siteOptions{
		global: "servers {\ntimeouts {\nread_header 2s\nwrite 2s\nidle 2s\n}\n}",
	}), awaitTLS)
	url := server.Expand("https://localhost:{{tls}}/events?topic=a")
	stream := e2etest.Subscribe(t, url)
	stream.Connected(t)
	for name, client := range map[string]*http.Client{"h1": e2etest.H1(t), "h2": e2etest.H2(t)} {
		reader, writer := io.Pipe()
		type result struct {
			answer e2etest.Answer
			err    error
		}
		done := make(chan result, 1)
		go func() {
			answer, err := postBody(t, client, url, "application/x-ndjson", reader)
			done <- result{answer, err}
		}()
		const lines = 12
		for i := range lines {
			fmt.Fprintf(writer, "%s %d\n", name, i)
			stream.Expect(t, fmt.Sprintf("%s %d", name, i)) // published as it arrives
			time.Sleep(400 * time.Millisecond)              // a slow publisher, on purpose
		}
		_ = writer.Close()
		got := <-done
		if got.err != nil || got.answer.Status != http.StatusOK || !strings.Contains(got.answer.Body, `"published":12`) {
			t.Errorf("%s: %v %d %s", name, got.err, got.answer.Status, got.answer.Body)
		}
	}
}

func TestItStandsBesideFilesAndProxiesWithoutARoute(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "upstream %s %s", r.Method, r.URL.Path)
	}))
	defer upstream.Close()
	// The directives stand in an order that only Caddy's own ordering makes right.
	for name, site := range map[string]string{
		"a path of its own": `
			file_server
			respond /hello "hello"
			reverse_proxy /api/* {{upstream}}
			sse /events {
				publish {
					open
				}
			}
			root {{dir}}`,
		"everything else goes to the proxy": `
			reverse_proxy {{upstream}}
			sse /events {
				publish {
					open
				}
			}`,
		"everything else is answered": `
			respond "answered" 200
			sse /events {
				publish {
					open
				}
			}`,
		"in a handle": `
			handle /events {
				sse {
					publish {
						open
					}
				}
			}
			handle {
				reverse_proxy {{upstream}}
			}`,
		"under a path that is stripped": `
			handle_path /push/* {
				sse /events {
					publish {
						open
					}
				}
			}
			file_server`,
	} {
		t.Run(name, func(t *testing.T) {
			events := "/events"
			if strings.Contains(site, "/push/") {
				events = "/push/events"
			}
			server := e2etest.Start(t, "http://127.0.0.1:{{port}} {\n"+site+"\n}\n", e2etest.Var("upstream", upstream.URL))
			server.WriteFile("index.html", "the page")
			stream := e2etest.Subscribe(t, server.URL(events+"?topic=a"))
			stream.Connected(t)
			e2etest.Publish(t, server.URL(events+"?topic=a"), "hello")
			stream.Expect(t, "hello")
			got := e2etest.Send(t, http.MethodPut, server.URL(events), "")
			if got.Status != http.StatusMethodNotAllowed || got.Header.Get("Allow") == "" {
				t.Errorf("PUT: %d, Allow %q", got.Status, got.Header.Get("Allow"))
			}
			others := map[string]map[string]string{
				"a path of its own":                 {"/": "the page", "/hello": "hello", "/api/x": "upstream GET /api/x"},
				"everything else goes to the proxy": {"/": "upstream GET /", "/events/": "upstream GET /events/"},
				"everything else is answered":       {"/": "answered"},
				"in a handle":                       {"/x": "upstream GET /x"},
				"under a path that is stripped":     {"/": "the page"},
			}
			for path, want := range others[name] {
				if got := e2etest.Send(t, http.MethodGet, server.URL(path), ""); got.Body != want {
					t.Errorf("GET %s: %d %q; want %q", path, got.Status, got.Body, want)
				}
			}
		})
	}
}
