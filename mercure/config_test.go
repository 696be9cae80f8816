package mercure

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// adapt turns a hub's options into the JSON of its handler.
func adapt(t *testing.T, options string) (*Handler, error) {
	t.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("http:// {\nmercure {\n"+options+"\n}\n}"), nil)
	if err != nil {
		return nil, err
	}
	var tree struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct{ Handle []json.RawMessage }
				}
			}
		}
	}
	if err := json.Unmarshal(config, &tree); err != nil {
		t.Fatal(err)
	}
	h := new(Handler)
	return h, json.Unmarshal(tree.Apps.HTTP.Servers["srv0"].Routes[0].Handle[0], h)
}

func TestOptionsOfACaddyfile(t *testing.T) {
	h, err := adapt(t, keys+`
		cors_origins https://app.example.com https://admin.example.com
		publish_origins *
		cookie_name session
		heartbeat 0s
		name books
		transport redis {
			addresses one:6379 two
			tls
			username alice
			password {env.SECRET}
			stream updates
			max_length 5
		}
		history 10 2h
		max_topics 3
		gap_event on
		queue 5 10KiB
		slow_client disconnect
		publish_max_size 2MiB
		rate 5 7
		max_clients_per_ip 4
		direct_writes off
		compress gzip`)
	if err != nil {
		t.Fatal(err)
	}
	on, off := true, false
	want := &Handler{
		Name: "books", PublisherJWT: &Key{Key: publisherKey}, SubscriberJWT: &Key{subscriberKey, "HS256"},
		CORSOrigins: []string{"https://app.example.com", "https://admin.example.com"}, PublishOrigins: []string{"*"},
		CookieName: "session", Heartbeat: -1, HistoryCount: 10, HistoryAge: caddy.Duration(2 * time.Hour), MaxTopics: 3,
		Transport: &Transport{
			Kind: redisKind, URLs: []string{"rediss://one:6379", "rediss://two:6379"}, Username: "alice", Password: "{env.SECRET}",
			Stream: "updates", MaxLength: 5,
		},
		GapEvent: &on, QueueMessages: 5, QueueBytes: 10 << 10, SlowClient: "disconnect", PublishMaxSize: 2 << 20,
		Rate: 5, Burst: 7, MaxClientsPerIP: 4, DirectWrites: &off, Compress: "gzip",
	}
	got, _ := json.Marshal(h)
	wanted, _ := json.Marshal(want)
	if string(got) != string(wanted) {
		t.Errorf("the options are\n%s, want\n%s", got, wanted)
	}
}

// What recipes of Symfony and API Platform have in their Caddyfiles.
func TestOptionsOfOtherHubsThatMeanNothing(t *testing.T) {
	for _, options := range []string{
		"dispatch_timeout 5s", "write_timeout 600s", "topic_selector_cache 10000 256", "subscriber_list_cache_size 100", "ui", "demo",
		"demo /assets", "protocol_version_compatibility 8", "transport bolt {\nbucket_name updates\ncleanup_frequency 0.3\n}",
		"transport_url bolt:///data/mercure.db?size=5&cleanup_frequency=0.5&bucket_name=x", "transport_url local://local",
	} {
		if _, err := adapt(t, keys+options); err != nil {
			t.Errorf("%s: %v", options, err)
		}
	}
}

func TestOptionsThatAreErrorsSayWhatToDo(t *testing.T) {
	token := signed(publisherKey, `{}`)
	for options, words := range map[string][]string{
		keys + "colour red":                                              {"unknown option", "colour", "publisher_jwt"},
		keys + "protocol_version_compatibility 7":                        {"version 8", "leave the option out"},
		keys + "issuer https://a.example":                                {"issuer", "1.0", "leave it out"},
		keys + "resource_identifier a":                                   {"resource_identifier", "1.0"},
		keys + "public_urls https://a.example":                           {"public_urls", "1.0"},
		keys + "transport postgres":                                      {"postgres", "redis"},
		keys + "transport kafka":                                         {"kafka", "redis"},
		keys + "transport pulsar":                                        {"pulsar", "redis"},
		keys + "transport x":                                             {`"x"`, "bolt, local and redis"},
		keys + "transport redis":                                         {"redis", "url"},
		keys + "transport redis {\naddress a\ngob\n}":                    {"gob", "leave it out"},
		keys + "transport local {\npath a\n}":                            {"path", "bolt"},
		keys + "transport bolt {\nurl redis://a\n}":                      {"redis, not for bolt"},
		keys + "transport_url postgres://a":                              {"postgres", "redis"},
		keys + "transport_url data.db":                                   {"scheme", "bolt:///"},
		keys + "transport local\ntransport_url bolt:///a":                {"exclude"},
		keys + "hub default\nname x":                                     {"hub", "leave out"},
		keys + "cors_origins https://a.example/path":                     {"https://a.example/path", "not an origin"},
		keys + "publish_origins a.example":                               {"a.example", "not an origin"},
		keys + "cors_origins * https://a.example":                        {"stands alone"},
		keys + "heartbeat soon":                                          {"heartbeat", "soon"},
		keys + "cookie_name \"a b\"":                                     {"cookie"},
		keys + "publish_max_size 1GiB":                                   {"64MiB"},
		keys + "slow_client wait":                                        {"catch_up"},
		keys + "anonymous\nanonymous":                                    {"twice"},
		keys + "publisher_jwks_url https://a.example/jwks.json":          {"exclude"},
		"publisher_jwt !ChangeMe!\nanonymous":                            {"publisher_jwt", "10 bytes", "32 or more", "longer secret", "MERCURE_JWT_SECRET"},
		"publisher_jwt " + strings.Repeat("x", 40) + " HS512\nanonymous": {"40 bytes", "64 or more"},
		"publisher_jwt " + token + "\nanonymous":                         {"this is a token, not a key"},
		"publisher_jwt " + strings.Repeat("x", 40) + " HS257\nanonymous": {"algorithm", "HS256"},
		"publisher_jwt " + strings.Repeat("x", 40) + " RS256\nanonymous": {"PEM"},
		"publisher_jwt " + strings.Repeat("x", 40):                       {"subscriber_jwt", "anonymous"},
		"subscriber_jwt " + strings.Repeat("x", 40):                      {"publisher_jwt", "nobody could publish"},
		"anonymous\npublisher_jwks_url http://a.example/jwks.json":       {"plain http"},
		"anonymous\npublisher_jwks_url file://jwks.json":                 {"whole path"},
	} {
		_, err := adapt(t, options)
		if err == nil {
			t.Errorf("%s: is taken", options)
			continue
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q does not tell of %q", options, err, word)
			}
		}
		if strings.Contains(err.Error(), "!ChangeMe!") || strings.Contains(err.Error(), token) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

func TestOldFormsOfTransports(t *testing.T) {
	for text, want := range map[string]Transport{
		"bolt:///data/mercure.db":   {Kind: boltKind, Path: "/data/mercure.db"},
		"bolt://updates.db?size=10": {Kind: boltKind, Path: "updates.db", Size: 10},
		"bolt://updates.db?size=0":  {Kind: boltKind, Path: "updates.db", Size: -1},
		"local://local":             {Kind: localKind},
		"redis://alice:secret@a:6379/2?stream=s&max_length=7": {
			Kind: redisKind, URLs: []string{"redis://alice:secret@a:6379/2"}, Stream: "s", MaxLength: 7,
		},
		"rediss://a:6379": {Kind: redisKind, URLs: []string{"rediss://a:6379"}},
	} {
		got, err := parseTransportURL(text)
		if err != nil || fmt.Sprint(*got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestTransportsAreBrokers(t *testing.T) {
	for _, c := range []struct {
		transport Transport
		want      string
	}{
		{Transport{Kind: localKind}, `{"type":"memory"}`},
		{Transport{Kind: boltKind, Path: "/a.db"}, `{"file":"/a.db","type":"bolt"}`},
		{
			Transport{Kind: redisKind, URLs: []string{"redis://a"}, MaxLength: 5},
			`{"max_len":5,"prefix":"mercure","type":"redis","urls":["redis://a"]}`,
		},
	} {
		if got, err := c.transport.broker(); err != nil || string(got) != c.want {
			t.Errorf("%+v is %s, %v", c.transport, got, err)
		}
	}
	if got, err := new(Transport).broker(); err != nil || !strings.Contains(string(got), "mercure-sse.db") {
		t.Errorf("the default is %s, %v", got, err)
	}
}

// API Platform and Symfony have a site's directives in a route, or an order in the global options.
func TestRule55TheDirectiveHasAnOrder(t *testing.T) {
	for name, caddyfile := range map[string]string{
		"its own":       "http:// {\nreverse_proxy a:80\nencode gzip\nmercure {\n" + keys + "\n}\n}",
		"older configs": "{\norder mercure after encode\n}\nhttp:// {\nreverse_proxy a:80\nencode gzip\nmercure {\n" + keys + "\n}\n}",
		"in a route":    "http:// {\nroute {\nencode gzip\nmercure {\n" + keys + "\n}\nreverse_proxy a:80\n}\n}",
	} {
		config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text := string(config)
		encode, hub, proxy := strings.Index(text, `"encode"`), strings.Index(text, `"sse_mercure"`), strings.Index(text, `"reverse_proxy"`)
		if encode < 0 || encode > hub || hub > proxy {
			t.Errorf("%s: the order is %d, %d, %d", name, encode, hub, proxy)
		}
	}
}

func TestHubsOfOneNameAreOneAndDefinedAlike(t *testing.T) {
	t.Parallel()
	two := func(a, b string) string {
		return fmt.Sprintf("{\nskip_install_trust\n}\nhttp://127.0.0.1:{{port}} {\nmercure {\n%s%s\n}\n}\n"+
			"http://127.0.0.1:{{other}} {\nmercure {\n%s%s\n}\n}", keys, a, keys, b)
	}
	s := &site{e2etest.Start(t, two("anonymous\n", "anonymous\nheartbeat 5s\n")), t} // the default is a file in Caddy's data folder
	stream := e2etest.Subscribe(t, s.Expand("http://127.0.0.1:{{other}}"+Path+"?topic=a"))
	s.publish("topic", "a", "data", "1")
	wantTexts(t, stream, "1")
	for options, words := range map[[2]string][]string{
		{"anonymous\ntransport local\n", "anonymous\n"}: {"defines it otherwise", "another name"},
	} {
		err := s.Reload(two(options[0], options[1]))
		for _, word := range words {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%v does not tell of %q", err, word)
			}
		}
	}
	if err := s.Reload(two("anonymous\ntransport local\n", "anonymous\nname other\ntransport local\n")); err != nil {
		t.Errorf("of two names: %v", err)
	}
}

func TestKeysThatAreNotSetAreErrors(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory, e2etest.Env("TEST_EMPTY=", "TEST_TOKEN="+publishing("*")))
	for options, words := range map[string][]string{
		"publisher_jwt {env.TEST_EMPTY}":   {"publisher_jwt", "{env.TEST_EMPTY} is empty or not set"},
		"publisher_jwt {env.TEST_MISSING}": {"{env.TEST_MISSING} is empty or not set"},
		"publisher_jwt {env.TEST_TOKEN}":   {"this is a token, not a key"},
	} {
		err := s.Reload(strings.Replace(siteWith("", inMemory), `publisher_jwt "`+publisherKey+`"`, options, 1))
		for _, word := range words {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v does not tell of %q", options, err, word)
			}
		}
	}
}

func TestRule53And54HealthAndMetrics(t *testing.T) {
	t.Parallel()
	s := &site{e2etest.Start(t, siteWith("metrics", inMemory+"name books\n")), t}
	for path, want := range map[string]string{
		"/mercure/health/ready": "200 ok", "/mercure/health/live": "200 ok", "/mercure/health/books/ready": "200 ok",
		"/mercure/health/books/live": "200 ok", "/mercure/health/other/ready": "404 unknown hub",
	} {
		answer := s.get(s.AdminURL(path))
		var body struct {
			Status string `json:"status"`
		}
		answer.Decode(t, &body)
		if got := fmt.Sprint(answer.Status, " ", body.Status); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	s.subscribe([]string{"a"}).Close()
	stream := s.subscribe([]string{"a"})
	s.publish("topic", "a", "data", "1")
	wantTexts(t, stream, "1")
	e2etest.Await(t, "the first has left", func() bool {
		text := s.get(s.AdminURL("/metrics")).Body
		for _, line := range []string{
			"\nmercure_subscribers_connected 1\n", "\nmercure_subscribers_total 2\n", "\nmercure_updates_total 1\n",
			"\ncaddy_sse_clients{hub=\"mercure-books\"} 1\n",
		} {
			if !strings.Contains(text, line) {
				return false
			}
		}
		return true
	})
}

// A hub is not ready while the log that it has never had is out of reach.
func TestRule53AHubWithoutItsLogIsNotReady(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	redis.Freeze()
	s := serve(t, "anonymous\ntransport redis {\nurl "+redis.URL()+"\n}\n")
	if answer := s.get(s.AdminURL("/mercure/health/ready")); answer.Status != 503 || !strings.Contains(answer.Body, "unavailable") {
		t.Errorf("%d: %s", answer.Status, answer.Body)
	}
	redis.Thaw()
	e2etest.Await(t, "the hub is ready", func() bool { return s.get(s.AdminURL("/mercure/health/ready")).Status == 200 })
}
