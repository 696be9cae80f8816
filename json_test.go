package sse

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents/eventsconfig"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/token"
)

// Config files of users hold these names and operators' programs read them, so a field has JSON only if it is
// listed here. A field that is exported for other packages alone needs `json:"-"`.
func TestJSONHasExactlyTheseFields(t *testing.T) {
	listed := func(method any) reflect.Type { return reflect.TypeOf(method).Out(0) }
	for _, c := range []struct {
		of   reflect.Type
		want string
	}{
		{reflect.TypeFor[App](), `
			hubs hubs.broker hubs.drain_spread hubs.history_age hubs.history_bytes hubs.history_count hubs.max_clients
			hubs.topics hubs.topics.conflate hubs.topics.conflate_interval hubs.topics.history_age
			hubs.topics.history_count hubs.topics.history_latest hubs.topics.pattern hubs.topics.presence`},
		{reflect.TypeFor[Handler](), `
			client_id compress connected_event cors_origins direct_writes heartbeat hub idle_timeout info
			jwt jwt.audience jwt.cookie jwt.issuer jwt.jwks jwt.keys jwt.keys.algorithm jwt.keys.id jwt.keys.key
			jwt.public jwt.query
			max_age max_clients_per_ip max_topics
			publish publish.broadcast publish.burst publish.max_size publish.open publish.rate publish.targets
			publish.tokens publish.topics
			queue_bytes queue_messages retry since slow_client topics user write_timeout`},
		{reflect.TypeFor[MemoryBroker](), ``},
		{reflect.TypeFor[BoltBroker](), `file sync`},
		{reflect.TypeFor[RedisBroker](), `
			channel master_name max_len password prefix sentinel_password sentinel_username timeout
			tls_ca tls_cert tls_insecure_skip_verify tls_key tls_server_name urls username`},
		{reflect.TypeFor[Admin](), ``},
		{reflect.TypeFor[summary](), `
			answers answers.attached answers.bytes answers.claims_local answers.results answers.resumes answers.states
			broker broker_error broker_file_bytes broker_lag_seconds broker_since clients connections
			delivery delivery.buckets delivery.buckets.count delivery.buckets.le delivery.count delivery.sum_seconds
			disconnects dropped_by_reason gaps gaps_by_reason history_bytes limited messages_conflated
			messages_dropped messages_published messages_sent name policies policies.conflate policies.history policies.presence policies.topic
			publish_refused reconnects refused topics up`},
		{reflect.TypeFor[hub.Presence](), `clients more topic users users.info users.user`},
		{listed((*hub.Hub).ListClients), `client_id queued since topics user`},
		{listed((*hub.Hub).ListTopics), `clients kept presence topic`},
		{listed((*hub.Hub).ListMessages), `bytes data event id key time`},
		{reflect.TypeFor[problem.Problem](), `detail line oldest published status title type`},
		// What a token's grants may say. Its claims are read by a type of their own: see internal/token.
		{reflect.TypeFor[token.Grants](), `publish subscribe`},
	} {
		want := strings.Fields(c.want)
		slices.Sort(want)
		got := slices.Sorted(maps.Keys(jsonFields(c.of, "")))
		if !slices.Equal(got, want) {
			t.Errorf("the JSON of %v has the fields\n%q, want\n%q", c.of, got, want)
		}
	}
}

// jsonFields returns the names that encoding/json knows in a type, those of types within it after a dot.
func jsonFields(of reflect.Type, prefix string) map[string]bool {
	for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice, reflect.Map}, of.Kind()) {
		of = of.Elem()
	}
	names := make(map[string]bool)
	if of.Kind() != reflect.Struct || of.Implements(reflect.TypeFor[json.Marshaler]()) {
		return names
	}
	for field := range of.Fields() {
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && tag == "":
			maps.Copy(names, jsonFields(field.Type, prefix))
		case !field.IsExported() || tag == "-":
		default:
			if tag == "" {
				tag = field.Name
			}
			names[prefix+tag] = true
			maps.Copy(names, jsonFields(field.Type, prefix+tag+"."))
		}
	}
	return names
}

// The Caddyfiles of the examples, adapted by `caddy adapt --pretty`, are in testdata/adapt/examples.
func TestExamplesStandForTheirJSON(t *testing.T) {
	for _, name := range []string{
		"ANNOUNCE_TOKEN", "BIND", "BROKER", "CADDY_ADMIN", "INSTANCE", "INSTANCES", "NOTIFY_TOKEN", "PORT",
		"PUBLISH_TOKEN", "REDIS_URL",
	} {
		unsetenv(t, name)
	}
	tested := make(map[string]bool)
	err := filepath.WalkDir("examples", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() != "Caddyfile" && filepath.Ext(file) != ".caddyfile" {
			return err
		}
		inside, err := filepath.Rel("examples", file)
		if err != nil {
			return err
		}
		name := strings.ReplaceAll(strings.TrimSuffix(filepath.ToSlash(inside), ".caddyfile"), "/", "-")
		golden := filepath.Join("testdata", "adapt", "examples", name+".json")
		tested[golden] = true
		t.Run(name, func(t *testing.T) { wantAdapted(t, file, golden) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	goldens, err := filepath.Glob("testdata/adapt/examples/*.json")
	if err != nil || len(goldens) == 0 {
		t.Fatalf("there are %d files to compare with: %v", len(goldens), err)
	}
	for _, golden := range goldens {
		if !tested[golden] {
			t.Errorf("%s is of no example", golden)
		}
	}
}

func wantAdapted(t *testing.T, file, golden string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")),
		map[string]any{"filename": filepath.ToSlash(file)})
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, got, "", "\t"); err != nil {
		t.Fatal(err)
	}
	indented.WriteByte('\n')
	if *update {
		if err := os.WriteFile(golden, indented.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(string(want), "\r\n", "\n"); indented.String() != want {
		t.Errorf("%s stands for\n%s\nwant\n%s", file, &indented, want)
	}
}

// unsetenv takes a variable out of the environment until the test ends.
func unsetenv(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "") // puts it back
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

// exampleHandler has the place and the JSON of the event handler that the example "events" brings along.
type exampleHandler struct {
	URL string `json:"url"`
}

func init() { caddy.RegisterModule(exampleHandler{}) }

func (exampleHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.post", New: func() caddy.Module { return new(exampleHandler) }}
}

func (h *exampleHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&h.URL) {
		return d.ArgErr()
	}
	return nil
}
