package sse

import (
	"bytes"
	"encoding/json"
	"flag"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
)

var update = flag.Bool("update", false, "write what Caddyfiles are adapted to into testdata/adapt")

// adapt turns a Caddyfile into JSON, as `caddy adapt` does.
func adapt(text string) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
}

// Each file of testdata/adapt holds a Caddyfile, a line of dashes, and the JSON it stands for.
func TestCaddyfilesStandForTheirJSON(t *testing.T) {
	t.Setenv("SSE_TEST_SECRET", "s3cret") // which no config may show
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are %d files to test with: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, want, _ := strings.Cut(strings.ReplaceAll(string(content), "\r\n", "\n"), "----------\n")
			got, warnings, err := adapt(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				if !strings.Contains(w.Message, "not formatted") {
					t.Errorf("adapting warns: %v", w)
				}
			}
			var indented bytes.Buffer
			if err := json.Indent(&indented, got, "", "\t"); err != nil {
				t.Fatal(err)
			}
			indented.WriteByte('\n')
			if *update {
				if err := os.WriteFile(file, []byte(text+"----------\n"+indented.String()), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if indented.String() != want {
				t.Errorf("got\n%s\nwant\n%s", indented.String(), want)
			}
			if strings.Contains(indented.String(), "s3cret") {
				t.Error("the JSON shows a secret")
			}
			validate(t, text, "SSE_TEST_SECRET", "file.")
		})
	}
}

// validate does what `caddy validate` does, unless the Caddyfile has a word of these: then it needs what
// is not there.
func validate(t *testing.T, text string, unless ...string) {
	t.Helper()
	for _, word := range unless {
		if strings.Contains(text, word) {
			return
		}
	}
	if err := validated(t, text); err != nil {
		t.Errorf("the config does not load: %v", err)
	}
}

// validated does what `caddy validate` does of a Caddyfile. No hub may be left of it.
func validated(t *testing.T, text string) error {
	t.Helper()
	raw, _, err := adapt(text)
	if err != nil {
		return err
	}
	return validatedJSON(t, string(raw))
}

func validatedJSON(t *testing.T, raw string) error {
	t.Helper()
	config := new(caddy.Config)
	if err := json.Unmarshal([]byte(raw), config); err != nil {
		t.Fatal(err)
	}
	err := caddy.Validate(config)
	for _, left := range live.All() {
		t.Errorf("hub %v is left of a config that was only looked at", left.Name)
	}
	return err
}

func TestValidatingTouchesNeitherNetworkNorFiles(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	called := make(chan struct{})
	go func() {
		defer close(called)
		if conn, err := listener.Accept(); err == nil {
			conn.Close()
			t.Error("validating a config calls Redis")
		}
	}()
	file := filepath.Join(t.TempDir(), "sse.db")
	if err := validated(t, `{
		sse {
			broker redis redis://`+listener.Addr().String()+`
			hub files {
				broker bolt `+file+`
			}
		}
	}
	http://`+listener.Addr().String()+` {
		sse /one
		sse /two {
			hub files
		}
	}`); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("validating a config makes files: %v", err)
	}
	listener.Close()
	<-called
}

func TestATokenThatIsEmptyOrNotSetIsAnError(t *testing.T) {
	t.Setenv("SSE_TEST_EMPTY", "")
	t.Setenv("SSE_TEST_SET", "secret")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for token, accepted := range map[string]bool{
		"secret":                      true,
		"{env.SSE_TEST_SET}":          true,
		"a-{env.SSE_TEST_SET}":        true,
		"{env.SSE_TEST_EMPTY}":        false,
		"{env.SSE_TEST_UNSET}":        false,
		"a-{env.SSE_TEST_UNSET}":      false,
		`""`:                          false,
		"{file." + empty + "}":        false,
		"{file." + empty + ".absent}": false,
		"{no.such.placeholder}":       false,
	} {
		err := validated(t, ":8080 {\n sse {\n publish {\n token good "+token+"\n}\n}\n}")
		switch {
		case accepted && err != nil:
			t.Errorf("token %s is refused: %v", token, err)
		case !accepted && (err == nil || !strings.Contains(err.Error(), "token")):
			t.Errorf("token %s gives %v", token, err)
		case !accepted && strings.HasPrefix(token, "{env") && !strings.Contains(err.Error(), token):
			t.Errorf("the error for token %s does not name it: %v", token, err)
		}
	}
}

func TestWrongValuesInJSONAreErrors(t *testing.T) {
	for handler, why := range map[string]string{
		`{"since": "-5m"}`:                                                "not in the past",
		`{"compress": "br"}`:                                              "gzip and off",
		`{"slow_client": "wait"}`:                                         "drop_oldest",
		`{"queue_messages": -1}`:                                          "queue",
		`{"queue_bytes": -1}`:                                             "queue",
		`{"max_topics": -1}`:                                              "max_topics",
		`{"max_clients_per_ip": -1}`:                                      "max_clients_per_ip",
		`{"idle_timeout": -1}`:                                            "idle_timeout",
		`{"max_age": -1}`:                                                 "max_age",
		`{"write_timeout": -1}`:                                           "write_timeout",
		`{"topics": ["a/**/b"]}`:                                          "**",
		`{"topics": [""]}`:                                                "topic",
		`{"topics": ["a/*/{path}"]}`:                                      "placeholder",
		`{"cors_origins": ["example.com"]}`:                               "example.com",
		`{"cors_origins": ["*", "https://a.example"]}`:                    "alone",
		`{"cors_origins": ["https://*.example"]}`:                         "wildcard",
		`{"client_id": "bad!id"}`:                                         "client_id",
		`{"user": "a\u0000b"}`:                                            "user",
		`{"jwt": {"jwks": "ftp://x"}}`:                                    "jwks",
		`{"jwt": {"jwks": "https://x", "cookie": "a=b"}}`:                 "cookie",
		`{"jwt": {"jwks": "https://x", "query": "topic"}}`:                "query",
		`{"publish": {"tokens": ["a b"]}}`:                                "spaces",
		`{"publish": {}}`:                                                 "token",
		`{"publish": {"open": true, "tokens": ["a"]}}`:                    "exclude",
		`{"publish": {"open": true, "topics": ["a/**/b"]}}`:               "**",
		`{"publish": {"open": true, "targets": ["user"]}}`:                "restricted",
		`{"publish": {"open": true, "max_size": -1}}`:                     "max_size",
		`{"publish": {"open": true, "rate": -1}}`:                         "rate",
		`{"publish": {"open": true, "burst": -1}}`:                        "rate",
		`{"topics": ["a"], "publish": {"open": true, "targets": ["x"]}}`:  "broadcast",
		`{"topics": ["a"], "publish": {"open": true, "broadcast": true}}`: "broadcast",
		`{"topics": ["a"], "publish": {"tokens": ["a"], "broadcast": false, "targets": ["broadcast"]}}`: "contradict",
		`{"hub": "none"}`:     "not defined",
		`{"heartbaet": "1s"}`: "heartbaet",
	} {
		config := `{"apps": {"http": {"servers": {"s": {"listen": [":8080"], "routes": [{"handle": [` +
			strings.Replace(handler, "{", `{"handler": "sse", `, 1) + `]}]}}}}}`
		if err := validatedJSON(t, strings.Replace(config, `"sse", }`, `"sse"}`, 1)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s gives %v; want an error that says %q", handler, err, why)
		}
	}
	for hub, why := range map[string]string{
		`"x": {"history_bytes": -1}`:                     "history_bytes",
		`"x": {"history_age": -1}`:                       "history_age",
		`"x": {"max_clients": -1}`:                       "max_clients",
		`"x": {"broker": {"type": "none"}}`:              "none",
		`"x": {"broker": {"type": "memory", "size": 1}}`: "size",
		`"x": {"histroy_count": 1}`:                      "histroy_count",
		`"": {}`:                                         "name",
		`"a/b": {}`:                                      "name",
		`"x": {"broker": {"type": "redis", "urls": ["redis://a"], "tls_ca": "f"}}`:  "tls_ca",
		`"x": {"broker": {"type": "redis", "urls": ["redis://a"], "tls_key": "f"}}`: "tls_cert",
		`"x": {"broker": {"type": "redis", "urls": ["http://a"]}}`:                  "URL 1",
		`"x": {"topics": [null]}`:                                                          "null",
		`"x": {"topics": [{"presence": true}]}`:                                            "empty",
		`"x": {"topics": [{"pattern": "a/**/b"}]}`:                                         "**",
		`"x": {"topics": [{"pattern": "a"}, {"pattern": "a"}]}`:                            "twice",
		`"x": {"topics": [{"pattern": "a", "history_age": "1h"}]}`:                         "history_count",
		`"x": {"topics": [{"pattern": "a", "history_count": -1, "history_age": "1h"}]}`:    "history_count",
		`"x": {"topics": [{"pattern": "a", "history_count": 5, "history_latest": true}]}`:  "exclude",
		`"x": {"topics": [{"pattern": "a", "history_latest": true, "history_age": -1}]}`:   "history_age",
		`"x": {"topics": [{"pattern": "a", "history_latest": true, "history_age": 3600}]}`: "nanoseconds",
		`"x": {"topics": [{"pattern": "a", "latest": true}]}`:                              "latest",
		`"x": {"broker": {"type": "bolt"}}`:                                                "file",
	} {
		if err := validatedJSON(t, `{"apps": {"sse": {"hubs": {`+hub+`}}}}`); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s gives %v; want an error that says %q", hub, err, why)
		}
	}
}

func TestHubThatIsNullInJSONHasTheDefaults(t *testing.T) {
	if err := validatedJSON(t, `{"apps": {"sse": {"hubs": {"default": null, "x": null}}}}`); err != nil {
		t.Error(err)
	}
}

// provisioned returns the route of a Caddyfile as it will serve, and the limits of its hub.
func provisioned(t *testing.T, route, global string) (*Handler, hub.Limits) {
	t.Helper()
	handler, app := new(Handler), new(App)
	if err := handler.UnmarshalCaddyfile(caddyfile.NewTestDispenser(route)); err != nil {
		t.Fatal(err)
	}
	if err := app.UnmarshalCaddyfile(caddyfile.NewTestDispenser(global)); err != nil {
		t.Fatal(err)
	}
	base, err := caddy.ProvisionContext(&caddy.Config{AppsRaw: caddy.ModuleMap{"sse": caddyconfig.JSON(app, nil)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(base)
	t.Cleanup(cancel)
	module, err := ctx.LoadModuleByID("http.handlers.sse", caddyconfig.JSON(handler, nil))
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := ctx.App("sse")
	if err != nil {
		t.Fatal(err)
	}
	return module.(*Handler), loaded.(*App).Hubs[defaultHub].limits()
}

func TestWhatIsNotConfiguredIsAsDocumented(t *testing.T) {
	h, limits := provisioned(t, "sse", "sse")
	if want := (hub.Limits{History: hub.HistoryLimits{Count: 1000, Age: time.Hour, Bytes: 256 << 20}, MaxClients: 0, DrainSpread: 5 * time.Second}); !reflect.DeepEqual(limits, want) {
		t.Errorf("a hub has %+v; want %+v", limits, want)
	}
	if want := (hub.ClientOptions{
		Queue: 256, QueueBytes: 1 << 20, SlowClient: hub.CatchUp, Retry: 2 * time.Second, Heartbeat: 30 * time.Second,
		WriteTimeout: 10 * time.Second,
	}); *h.subscribing.options != want {
		t.Errorf("a client has %+v; want %+v", h.clientOptions(), want)
	}
	if h.Hub != "default" || h.MaxTopics != 100 || time.Duration(h.WriteTimeout) != 10*time.Second ||
		!*h.ConnectedEvent || h.Publish != nil || h.CORSOrigins != nil || h.JWT != nil || !h.subscribing.topics.fromQuery ||
		h.ClientID != "{http.request.uri.query.client_id}" || h.User != "{http.auth.user.id}" {
		t.Errorf("a route is %+v", h)
	}
	h, _ = provisioned(t, "sse {\n publish {\n open\n}\n}", "sse")
	if p := h.Publish; p.MaxSize != 1<<20 || p.Rate != 0 || p.Broadcast != nil || len(p.Topics)+len(p.Targets) != 0 {
		t.Errorf("publishing is %+v", p)
	}
}

func TestWhatIsOffIsOff(t *testing.T) {
	h, limits := provisioned(t, `sse {
		heartbeat off
		idle_timeout off
		max_age off
		connected_event off
		direct_writes off
	}`, "sse {\n history off\n drain_spread 0\n max_clients 0\n}")
	if want := (hub.Limits{History: hub.HistoryLimits{Count: 0, Age: time.Hour, Bytes: 256 << 20}, MaxClients: 0, DrainSpread: 0}); !reflect.DeepEqual(limits, want) {
		t.Errorf("a hub has %+v; want %+v", limits, want)
	}
	o := *h.subscribing.options
	if o.Heartbeat != 0 || o.IdleTimeout != 0 || o.MaxAge != 0 || *h.ConnectedEvent || *h.DirectWrites {
		t.Errorf("a client has %+v", o)
	}
}

func TestTopicsHaveTheirPolicies(t *testing.T) {
	_, limits := provisioned(t, "sse", `sse {
		history 8 9s
		topic a {
			history 5
		}
		topic b/** {
			history 5 1m
			conflate on
			presence on
		}
		topic c {
			history latest
			conflate on
			presence off
		}
		topic d/* {
			history latest 2h
			conflate off
		}
		topic e {
			conflate 200ms
		}
		topic ** {
			history off
		}
	}`)
	if want := []hub.Policy{
		{Pattern: "a", History: &hub.Retention{Count: 5, Age: 9 * time.Second}},
		{Pattern: "b/**", History: &hub.Retention{Count: 5, Age: time.Minute}, Conflate: true, Presence: true},
		{Pattern: "c", History: &hub.Retention{Latest: true}, Conflate: true},
		{Pattern: "d/*", History: &hub.Retention{Latest: true, Age: 2 * time.Hour}},
		{Pattern: "e", Conflate: true, Interval: 200 * time.Millisecond},
		{Pattern: "**", History: &hub.Retention{Age: 9 * time.Second}},
	}; !reflect.DeepEqual(limits.Policies, want) {
		t.Errorf("the policies are %+v; want %+v", limits.Policies, want)
	}
}

func TestOptionsReachTheirClients(t *testing.T) {
	h, limits := provisioned(t, `sse {
		heartbeat 1s
		retry 1500ms
		idle_timeout 3s
		max_age 1d
		queue 5 6KiB
		slow_client drop_oldest
		max_clients_per_ip 7
		write_timeout 13s
	}`, "sse {\n history 8 9s\n history_bytes 10KB\n max_clients 11\n drain_spread 12s\n}")
	if want := (hub.Limits{History: hub.HistoryLimits{Count: 8, Age: 9 * time.Second, Bytes: 10_000}, MaxClients: 11, DrainSpread: 12 * time.Second}); !reflect.DeepEqual(limits, want) {
		t.Errorf("a hub has %+v; want %+v", limits, want)
	}
	if want := (hub.ClientOptions{
		Queue: 5, QueueBytes: 6 << 10, SlowClient: hub.DropOldest, Retry: 1500 * time.Millisecond, Heartbeat: time.Second,
		IdleTimeout: 3 * time.Second, MaxAge: 24 * time.Hour, MaxPerSource: 7, WriteTimeout: 13 * time.Second,
	}); *h.subscribing.options != want {
		t.Errorf("a client has %+v; want %+v", h.clientOptions(), want)
	}
}
