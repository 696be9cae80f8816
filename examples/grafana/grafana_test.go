package grafana_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

var (
	// selector is a metric in a query, with what its labels must be.
	selector = regexp.MustCompile(`\b(caddy_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(=~|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\bby \(([a-z_, ]+)\)`)
	legend   = regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
	sample   = regexp.MustCompile(`(?m)^(caddy_[a-z_]+)\{(.*)\} \S+$`)
)

// scraped holds the values of each label of each metric.
type scraped map[string]map[string][]string

func TestEveryQueryAsksForWhatAScrapeHas(t *testing.T) {
	has := scrape(t)
	histogram := "caddy_sse_delivery_seconds" // is scraped as _bucket, _count and _sum
	has[histogram] = has[histogram+"_bucket"]
	queries, legends := dashboardQueries(t)
	if len(queries) < 15 {
		t.Fatalf("the dashboard has %d queries only", len(queries))
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range alerts(t) {
		if !strings.Contains(string(readme), "\n| `"+rule.Alert+"` |") {
			t.Errorf("the README does not tell of the alert %s", rule.Alert)
		}
		queries = append(queries, rule.Expr)
		legends = append(legends, "")
	}
	for metric := range has {
		if strings.HasPrefix(metric, "caddy_sse_") && !strings.HasPrefix(metric, histogram+"_") && !strings.Contains(string(readme), "\n| `"+metric+"` |") {
			t.Errorf("the README does not tell of %s", metric)
		}
	}
	asked := map[string]bool{histogram: true} // by its parts
	for i, query := range queries {
		selectors := selector.FindAllStringSubmatch(query, -1)
		if len(selectors) == 0 {
			t.Errorf("%s: asks for nothing of ours", query)
		}
		for _, s := range selectors {
			asked[s[1]] = true
			labels := has[s[1]]
			if labels == nil {
				t.Errorf("%s: no scrape has %s", query, s[1])
				continue
			}
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				name, operator, value := m[1], m[2], m[3]
				if labels[name] == nil || operator == "=" && !slices.Contains(labels[name], value) {
					t.Errorf("%s: no %s has %s", query, s[1], m[0])
				}
			}
			for _, g := range append(grouping.FindAllStringSubmatch(query, -1), legend.FindAllStringSubmatch(legends[i], -1)...) {
				for name := range strings.SplitSeq(g[1], ",") {
					if name = strings.TrimSpace(name); labels[name] == nil {
						t.Errorf("%s: %s has no label %s", query, s[1], name)
					}
				}
			}
		}
	}
	for _, metric := range slices.Sorted(maps.Keys(has)) {
		if strings.HasPrefix(metric, "caddy_sse_") && !asked[metric] {
			t.Errorf("no query asks for %s", metric)
		}
	}
}

// scrape reads the metrics of a server with a client, a broker that has a file, and one that is elsewhere.
func scrape(t *testing.T) scraped {
	server := e2etest.Start(t, `
{
	sse {
		broker bolt {{dir}}/sse.db
		hub joined {
			broker redis `+e2etest.RedisServer(t).URL()+`
		}
	}
}
http://127.0.0.1:{{port}} {
	sse /events
	sse /joined {
		hub joined
	}
}
`)
	e2etest.Subscribe(t, server.URL("/events?topic=news")).Connected(t)
	answer := e2etest.Send(t, http.MethodGet, server.AdminURL("/metrics"), "")
	has := scraped{}
	for _, s := range sample.FindAllStringSubmatch(answer.Body, -1) {
		if has[s[1]] == nil {
			has[s[1]] = map[string][]string{"instance": {"added by Prometheus"}, "job": {"as well"}}
		}
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			has[s[1]][m[1]] = append(has[s[1]][m[1]], m[3])
		}
	}
	return has
}

// dashboardQueries returns the queries of all panels and variables, and the legend of each.
func dashboardQueries(t *testing.T) (queries, legends []string) {
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Type, Definition string }
		}
	}
	content, err := os.ReadFile("caddy-sse.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, panel := range dashboard.Panels {
		if ids[panel.ID] || len(panel.Targets) == 0 {
			t.Errorf("the panel %q has no ID of its own, or no query", panel.Title)
		}
		ids[panel.ID] = true
		for _, target := range panel.Targets {
			queries = append(queries, target.Expr)
			legends = append(legends, target.LegendFormat)
		}
	}
	for _, variable := range dashboard.Templating.List {
		if variable.Type == "query" {
			queries = append(queries, variable.Definition)
			legends = append(legends, "")
		}
	}
	return queries, legends
}

// alerts returns the alerting rules.
func alerts(t *testing.T) (rules []alert) {
	t.Helper()
	content, err := os.ReadFile("caddy-sse.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	if len(rules) < 5 {
		t.Fatalf("there are %d rules only", len(rules))
	}
	return rules
}

type alert struct{ Alert, Expr string }
