package sse

import (
	"strings"
	"testing"
)

// Mistakes as a newcomer makes them, and words of the error: what is wrong, and what to write instead.
func TestMistakesInAConfigAreAnsweredWithWhatToChange(t *testing.T) {
	route := func(options string) string { return ":8080 {\nsse /events {\n" + options + "\n}\n}" }
	for _, mistake := range []struct{ config, words string }{
		{route("history 1000 1h"), `"history" | global options | { sse { ... } }`},
		{route("broker redis redis://localhost"), `"broker" | global options | { sse { ... } }`},
		{"{\nsse {\nheartbeat 10s\n}\n}\n" + route(""), `"heartbeat" | sse directive of a site`},
		{route("token secret"), `"token" | publish { ... }`},
		{route("publish {\ntoken {$SSE_TEST_UNSET}\n}"), "token | empty | {$NAME}"},
		{route("publish {\ntoken \"{$SSE_TEST_UNSET}\"\n}"), "token | empty"},
		{route("publish"), "publish | token | jwt | open"},
		{route("publish {\ntopics room/{query.room}\nopen\n}"), "room/{http.request.uri.query.room} | placeholder | topics of the route"},
		{route("topics room/{room}"), "{room} | Caddy | {query.room}"},
		{route("topics rooms/**/new"), "rooms/**/new | last segment"},
		{route("retry 5"), `"5" | 30s`},
		{route("retry 10ms"), "retry | 100ms and 1h"},
		{route("heartbeat 30"), `"30" | 30s`},
		{route("cors_origins *.example.com"), "*.example.com | https://app.example.com | no wildcard"},
		{route("cors_origins https://app.example.com/"), "https://app.example.com/ | nothing behind it"},
		{route("jwt {\nkey RS256 /etc/keys/pub.pem\n}"), "RS256 | {file./etc/keys/pub.pem}"},
		{route("jwt {\nkey HS256 secret\n}"), "6 bytes | 32 or more"},
		{route("jwt {\nkey secret\n}"), "key <algorithm> <secret or public key>"},
		{route("jwt {\nissuer https://id.example\n}"), "key | jwks"},
		{route("hub chat"), `"chat" | define it | { sse { hub chat } }`},
		{"{\nsse {\nhistory forever\n}\n}\n" + route(""), "history | number of messages | off"},
		{"{\nsse {\nbroker bolt\n}\n}\n" + route(""), "one file | /var/lib/caddy/sse.db"},
	} {
		_, _, err := adapt(mistake.config)
		wantHelp(t, mistake.config, err, append(strings.Split(mistake.words, "|"), "Caddyfile:")...)
	}
}

// In JSON, a duration that is a number is one of nanoseconds.
func TestNanosecondsByMistakeAreAnError(t *testing.T) {
	for name, handler := range map[string]string{
		"heartbeat":     `{"handler":"sse","heartbeat":30}`,
		"retry":         `{"handler":"sse","retry":2000}`,
		"idle_timeout":  `{"handler":"sse","idle_timeout":60}`,
		"max_age":       `{"handler":"sse","max_age":3600}`,
		"write_timeout": `{"handler":"sse","write_timeout":999999}`,
	} {
		err := loadRoute(t, handler, `{}`)
		wantHelp(t, handler, err, name, "less than a millisecond", "nanoseconds", `"30s"`)
	}
	for name, hub := range map[string]string{
		"history_age": `{"history_age":3600}`, "drain_spread": `{"drain_spread":5}`,
		"timeout": `{"broker":{"type":"redis","urls":["redis://localhost"],"timeout":2}}`,
	} {
		wantHelp(t, hub, loadRoute(t, `{"handler":"sse"}`, hub), name, "less than a millisecond", "nanoseconds", `"30s"`)
	}
	for _, handler := range []string{`{"handler":"sse","retry":-1}`, `{"handler":"sse","retry":"50ms"}`, `{"handler":"sse","retry":"2h"}`} {
		wantHelp(t, handler, loadRoute(t, handler, `{}`), "retry", "100ms and 1h")
	}
	wantHelp(t, "a topic", loadRoute(t, `{"handler":"sse","topics":["room/{room}"]}`, `{}`), "{room}", "{query.room}")
}

// loadRoute validates a handler and the hub "default" that are given as JSON, and returns the error.
func loadRoute(t *testing.T, handler, hub string) error {
	t.Helper()
	return validatedJSON(t, `{"apps":{"http":{"servers":{"a":{"listen":["127.0.0.1:0"],"routes":[{"handle":[`+handler+
		`]}]}}},"sse":{"hubs":{"default":`+hub+`}}}}`)
}
