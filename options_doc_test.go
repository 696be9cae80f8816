package sse

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/option"
)

// optionTables are the blocks of options that docs/options.md has a table for, by the heading above it.
func optionTables() map[string]map[string]option.Option {
	hub := new(HubConfig).caddyfileOptions()
	hub["hub"] = option.Option{Takes: "<name> { ... }"}
	return map[string]map[string]option.Option{
		"Hubs":                 hub,
		"Some topics":          new(TopicConfig).caddyfileOptions(),
		"Routes":               new(Handler).caddyfileOptions(nil),
		"Publishing":           new(PublishConfig).caddyfileOptions(),
		"JSON Web Tokens":      new(JWTConfig).caddyfileOptions(),
		"The broker bolt":      new(BoltBroker).caddyfileOptions(),
		"The broker redis":     new(RedisBroker).caddyfileOptions(),
		"Answers of upstreams": new(Resume).caddyfileOptions(),
	}
}

func TestDocsNameEveryOptionAndWhatItTakes(t *testing.T) {
	tables := documentedOptions(t)
	for heading, options := range optionTables() {
		documented := tables[heading]
		for name, o := range options {
			switch takes, ok := documented[name]; {
			case !ok:
				t.Errorf("docs/options.md, %s: %s is missing; it takes %s", heading, name, o.Takes)
			case takes != o.Takes:
				t.Errorf("docs/options.md, %s: %s takes %q, not %q", heading, name, o.Takes, takes)
			}
		}
		for name := range documented {
			if _, ok := options[name]; !ok {
				t.Errorf("docs/options.md, %s: there is no option %s", heading, name)
			}
		}
	}
	for _, heading := range slices.Sorted(maps.Keys(tables)) {
		if optionTables()[heading] == nil {
			t.Errorf("docs/options.md: nothing checks the table of %s", heading)
		}
	}
}

// documentedOptions reads the tables of docs/options.md: what each option takes, by heading and name.
func documentedOptions(t *testing.T) map[string]map[string]string {
	t.Helper()
	page, err := os.ReadFile("docs/options.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("^\\| `([a-z_]+)` \\| (?:`(.+?)`)? *\\|")
	tables := make(map[string]map[string]string)
	heading := ""
	for line := range strings.Lines(string(page)) {
		if text, ok := strings.CutPrefix(line, "## "); ok {
			heading = strings.TrimSpace(text)
		}
		if cells := row.FindStringSubmatch(line); cells != nil {
			if tables[heading] == nil {
				tables[heading] = make(map[string]string)
			}
			tables[heading][cells[1]] = strings.ReplaceAll(cells[2], `\|`, "|")
		}
	}
	return tables
}
