package grafana_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

// samples are what some scrapes have, a minute apart, by series.
type samples struct {
	values map[string][]string
	starts []string // when the process of each scrape began, in seconds since the first scrape
}

// scraped adds a scrape. young says that the process has begun within this minute.
func (s *samples) scrape(t *testing.T, server *e2etest.Server, young bool) {
	t.Helper()
	answer := e2etest.Send(t, http.MethodGet, server.AdminURL("/metrics"), "")
	if !regexp.MustCompile(`(?m)^process_start_time_seconds `).MatchString(answer.Body) {
		t.Fatal("the scrape does not tell when the process began")
	}
	nth := len(s.starts)
	for _, m := range regexp.MustCompile(`(?m)^(caddy_sse_[a-z_]+\{.*\}) (\S+)$`).FindAllStringSubmatch(answer.Body, -1) {
		series := strings.TrimSuffix(m[1], "}") + `,instance="a",job="caddy"}`
		for len(s.values[series]) < nth {
			s.values[series] = append(s.values[series], "_") // it was not there
		}
		s.values[series] = append(s.values[series], m[2])
	}
	start := "-100000"
	if nth > 0 {
		start = s.starts[nth-1]
	}
	if young {
		start = fmt.Sprint(60*nth - 5)
	}
	s.starts = append(s.starts, start)
}

// firing returns which alerts fire after the last scrape, and for what, as Prometheus finds by the rules.
func (s *samples) firing(t *testing.T, want ...string) {
	t.Helper()
	promtool := e2etest.Need(t, "promtool")
	rules, err := filepath.Abs("caddy-sse.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var test strings.Builder
	fmt.Fprintf(&test, "rule_files: [%q]\nevaluation_interval: 30s\ntests:\n- interval: 1m\n  input_series:\n", filepath.ToSlash(rules))
	input := func(series string, values []string) {
		last := values[len(values)-1] // and so it stays
		fmt.Fprintf(&test, "  - series: '%s'\n    values: '%s %s %s'\n", series, strings.Join(values, " "), last, last)
	}
	for series, values := range s.values {
		input(series, values)
	}
	input(`process_start_time_seconds{instance="a",job="caddy"}`, s.starts)
	fmt.Fprintf(&test, "  promql_expr_test:\n  - expr: 'count by (alertname, hub, reason, status) (ALERTS{alertstate=\"firing\"})'\n"+
		"    eval_time: %dm\n    exp_samples:\n", len(s.starts)+1)
	for _, labels := range want {
		fmt.Fprintf(&test, "    - labels: '{%s}'\n      value: 1\n", labels)
	}
	file := filepath.Join(t.TempDir(), "test.yml")
	if err := os.WriteFile(file, []byte(test.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPrometheusTakesTheRules(t *testing.T) {
	out, err := exec.Command(e2etest.Need(t, "promtool"), "check", "rules", "caddy-sse.rules.yml").CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("SUCCESS: %d rules found", len(alerts(t)))) {
		t.Errorf("%v: %s", err, out)
	}
}

// example starts one of the other examples.
func example(t *testing.T, caddyfile string, options ...e2etest.ServerOption) *e2etest.Server {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", caddyfile))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(content), ":8080", ":{{port}}")
	options = append([]e2etest.ServerOption{e2etest.WorkDir(e2etest.RepoRoot(t))}, options...)
	return e2etest.Start(t, text, options...)
}

// The quickstart keeps its log in memory, so who comes back after a restart may have missed something. The
// second restart counts as many gaps as the first.
func TestAlertFiresWhenTheQuickstartIsRestarted(t *testing.T) {
	server := example(t, "quickstart/Caddyfile")
	var s samples
	s.values = map[string][]string{}
	id := e2etest.Subscribe(t, server.URL("/events?topic=news")).Connected(t).ID
	s.scrape(t, server, false)
	s.firing(t)
	for range 2 {
		server.Restart()
		stream := e2etest.Subscribe(t, server.URL("/events?topic=news"), e2etest.LastEventID(id))
		id = stream.Connected(t).ID
		for range 8 { // what was told before is no news any more
			s.scrape(t, server, len(s.starts)%8 == 1)
			if len(s.starts)%8 == 2 {
				s.firing(t, `alertname="SSEMessagesMissed",hub="default",reason="unknown_id"`)
			}
		}
		s.firing(t)
	}
}

// The cluster's Redis is emptied, which its page is told, and then stopped.
func TestAlertsFireWhenTheClustersRedisFails(t *testing.T) {
	redis := e2etest.RedisServer(t)
	server := example(t, "cluster/instance.caddyfile", e2etest.Env("REDIS_URL="+redis.URL(), "PORT={{port}}"))
	s := samples{values: map[string][]string{}}
	events := server.URL("/events?topic=cluster")
	stream := e2etest.Subscribe(t, events)
	stream.Connected(t)
	e2etest.Publish(t, events, "one")
	stream.Expect(t, "one")
	s.scrape(t, server, false)
	s.firing(t)
	if _, err := redis.Do(patience, "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	if event, err := stream.Next(patience); err != nil || event.Name != "gap" {
		t.Fatalf("the client is told %+v, %v", event, err)
	}
	s.scrape(t, server, false)
	lost := `alertname="SSEMessagesMissed",hub="default",reason="log_lost"`
	s.firing(t, lost)

	redis.Stop()
	e2etest.Await(t, "publishing is refused", func() bool {
		return e2etest.Send(t, http.MethodPost, events, "two").Status == http.StatusServiceUnavailable
	})
	s.scrape(t, server, false)
	values := s.values[`caddy_sse_broker_up{hub="default",instance="a",job="caddy"}`]
	if !slices.Equal(values, []string{"1", "1", "0"}) {
		t.Errorf("broker_up was %v", values)
	}
	s.firing(t, lost, `alertname="SSEBrokerDown",hub="default"`, `alertname="SSEPublishRefused",hub="default",status="503"`)
}
