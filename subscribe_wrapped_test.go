package sse_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// keeper is the directive keep_response: it keeps a response to itself until its end, as foreign modules do that know
// nothing of Caddy's recorder. "keep_response mutely" has no flush either, and hides what it wraps.
type keeper struct{ Mutely bool }

func (keeper) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.sse_test_keep_response", New: func() caddy.Module { return new(keeper) }}
}

func (k keeper) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	kept := &keptResponse{ResponseWriter: w}
	var given http.ResponseWriter = kept
	if k.Mutely {
		given = mute{kept}
	}
	if err := next.ServeHTTP(given, r); err != nil {
		return err
	}
	w.WriteHeader(kept.status)
	_, err := w.Write(kept.body.Bytes())
	return err
}

type mute struct{ http.ResponseWriter }

type keptResponse struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (k *keptResponse) WriteHeader(status int)      { k.status = status }
func (k *keptResponse) Write(p []byte) (int, error) { return k.body.Write(p) }
func (k *keptResponse) Flush()                      {}
func (k *keptResponse) Unwrap() http.ResponseWriter { return k.ResponseWriter }

func init() {
	caddy.RegisterModule(keeper{})
	httpcaddyfile.RegisterHandlerDirective("keep_response", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return keeper{Mutely: h.Next() && h.NextArg()}, nil
	})
}

func TestAWrapperThatHoldsStreamsBackIsNamedAndGETIs500(t *testing.T) {
	for name, c := range map[string]struct {
		wrapper string
		head    int
		names   string // in the log; empty if streams pass
	}{
		"nothing":                        {"", 200, ""},
		"encode":                         {"encode", 200, ""},
		"intercept that matches nothing": {"intercept {\n@none status 599\nhandle_response @none {\nrespond x\n}\n}", 200, ""},
		"templates of HTML":              {"templates", 200, ""},
		"intercept of all":               {"intercept {\nhandle_response {\nheader X-Seen yes\n}\n}", 200, "intercept"},
		"intercept of event streams": {
			"intercept {\n@sse header Content-Type text/event-stream*\nhandle_response @sse {\nheader X-Seen yes\n}\n}", 200, "intercept",
		},
		"intercept with another status": {"intercept {\n@ok status 200\nreplace_status @ok 201\n}", 201, "intercept"},
		"templates of event streams":    {"templates {\nmime text/event-stream\n}", 200, "templates"},
		"a module that keeps it":        {"keep_response", 200, "caddy-sse_test"},
		"a module that keeps it mutely": {"keep_response mutely", 200, "caddy-sse_test"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "log")
			logged := globals("log routes {\noutput file " + file + " {\nroll_disabled\n}\ninclude http.handlers.sse\n}")
			s := serve(t, "log\nroute {\n"+c.wrapper+"\nsse /events {\npublish {\nopen\n}\n}\n}", withTLS, logged)
			eachProtocol(t, s, func(t *testing.T, p protocol) {
				head := e2etest.Send(t, http.MethodHead, p.url("/events"), "", p.via)
				if head.Status != c.head {
					t.Errorf("HEAD is answered %d; want %d", head.Status, c.head)
				}
				if c.names == "" {
					stream := e2etest.Subscribe(t, p.url("/events?topic=a"), p.via)
					stream.Connected(t)
					publish(t, s.url("/events?topic=a"), "hello")
					stream.Expect(t, "hello")
					stream.Close()
					return
				}
				answer := e2etest.Send(t, http.MethodGet, p.url("/events?topic=a"), "", p.via)
				if answer.Status != http.StatusInternalServerError || strings.Contains(answer.Body, "connected") ||
					strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
					t.Errorf("GET is answered %d %v %q", answer.Status, answer.Header, answer.Body)
				}
			})
			if c.names == "" {
				return
			}
			log, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(log, []byte(c.names+" holds the response back")) {
				t.Errorf("the log does not name %s:\n%s", c.names, log)
			}
		})
	}
}
