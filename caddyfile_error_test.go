package sse

import (
	"strconv"
	"strings"
	"testing"
)

// Each line is what stands in a block, where "; " is a line's end, and the words that its error must have beside the line number:
// what is wrong and what is accepted.
const (
	wrongHubOptions = `
		broker                   | broker | memory | bolt | redis
		broker none              | broker | "none" | memory | bolt | redis
		broker memory x          | memory | "x"
		history                  | history | <messages> [<age>] | off
		history 0                | history | "0" | 1 or more | off
		history x                | history | "x" | 1 or more | off
		history -5               | history | "-5" | 1 or more | off
		history 10 x             | history | "x" | age | 1h
		history 10 0             | history | "0" | age | 1h
		history 10 -1h           | history | "-1h" | age of more than 0 | 1h
		history 10 1h 5          | history | <messages> [<age>] | off
		history off 5            | history | off
		history_bytes            | history_bytes | <size>
		history_bytes x          | history_bytes | "x" | 1MiB
		history_bytes 0          | history_bytes | "0" | more than 0 | 1MiB
		history_bytes -1         | history_bytes | "-1" | 1MiB
		history_bytes 1 2        | history_bytes | <size>
		history_bytes 99999PB    | history_bytes | "99999PB" | 1MiB
		max_clients              | max_clients | <number>
		max_clients x            | max_clients | "x" | 0 or more
		max_clients -1           | max_clients | "-1" | 0 or more
		max_clients 1.5          | max_clients | "1.5" | whole number
		max_clients 1 2          | max_clients | <number>
		drain_spread             | drain_spread | <duration>
		drain_spread x           | drain_spread | "x" | 30s
		drain_spread -1s         | drain_spread | "-1s" | 0 or more | 30s
		drain_spread 5           | drain_spread | "5" | 30s
		heartbeat 30s            | unknown option "heartbeat" | broker, drain_spread, history, history_bytes
		max_clients 1; max_clients 2 | "max_clients" | twice`

	wrongGlobalOptions = wrongHubOptions + `
		hub                      | hub | <name>
		hub a b                  | hub | <name>
		hub ""                   | hub | name
		hub default              | "default" | already
		hub a; hub a             | "a" | already`

	wrongRouteOptions = `
		hub                      | hub | <name>
		hub a b                  | hub | <name>
		hub none                 | "none" | not defined | { sse { hub none } }
		topics                   | topics | <topics...>
		topics a b/**/c          | topics | "b/**/c" | only as the last segment
		topics ""                | topics | empty | 1 to 256 bytes
		topics a/*/{query.x}     | topics | wildcard | placeholder
		client_id                | client_id | <value>
		client_id a b            | client_id | <value>
		user                     | user | <value>
		user a b                 | user | <value>
		heartbeat                | heartbeat | <duration> | off
		heartbeat 0              | heartbeat | "0" | 30s | off
		heartbeat -1s            | heartbeat | "-1s" | more than 0 | 30s | off
		heartbeat x              | heartbeat | "x" | 30s | off
		heartbeat 1s 2s          | heartbeat | <duration> | off
		retry                    | retry | <duration>
		retry off                | retry | "off" | 30s
		retry -1s                | retry | "-1s" | 0 or more | 30s
		idle_timeout             | idle_timeout | <duration> | off
		idle_timeout 0           | idle_timeout | "0" | 30s | off
		max_age                  | max_age | <duration> | off
		max_age x                | max_age | "x" | 30s | off
		queue                    | queue | <messages> [<size>]
		queue 0                  | queue | "0" | 1 or more
		queue x                  | queue | "x" | 1 or more
		queue 1MiB               | queue | "1MiB" | 1 or more
		queue 10 x               | queue | "x" | 1MiB
		queue 10 0               | queue | "0" | 1MiB
		queue 10 1MiB 2          | queue | <messages> [<size>]
		slow_client              | slow_client | disconnect | drop_oldest
		slow_client wait         | slow_client | "wait" | disconnect | drop_oldest
		write_timeout            | write_timeout | <duration>
		write_timeout 0          | write_timeout | "0" | more than 0 | 30s
		write_timeout off        | write_timeout | "off" | 30s
		max_clients_per_ip       | max_clients_per_ip | <number>
		max_clients_per_ip -1    | max_clients_per_ip | "-1" | 0 or more
		max_topics               | max_topics | <number>
		max_topics 0             | max_topics | "0" | 1 or more
		connected_event          | connected_event | on | off
		connected_event yes      | connected_event | "yes" | on | off
		cors_origins             | cors_origins | <origins...>
		cors_origins a.example   | cors_origins | "a.example" | https://app.example.com
		cors_origins https://a/b | cors_origins | "https://a/b" | https://app.example.com
		direct_writes            | direct_writes | on | off
		direct_writes maybe      | direct_writes | "maybe" | on | off
		publish x                | publish | { ... }
		history 10               | unknown option "history" | client_id, connected_event, cors_origins
		heartbeet 30s            | unknown option "heartbeet" | heartbeat
		retry 1s; retry 2s       | "retry" | twice`

	wrongPublishOptions = `
		token                    | token | <tokens...>
		open x                   | open
		topics                   | topics | <topics...>
		topics a/**/b            | topics | "a/**/b" | only as the last segment
		targets                  | targets | client | user | broadcast
		targets everybody        | targets | "everybody" | client | user | broadcast
		broadcast                | broadcast | on | off
		broadcast yes            | broadcast | "yes" | on | off
		max_size                 | max_size | <size>
		max_size 0               | max_size | "0" | 1MiB
		max_size x               | max_size | "x" | 1MiB
		rate                     | rate | <messages per second> [<burst>]
		rate 0                   | rate | "0" | more than 0
		rate -1                  | rate | "-1" | more than 0
		rate x                   | rate | "x" | more than 0
		rate NaN                 | rate | "NaN" | more than 0
		rate +Inf                | rate | "+Inf" | more than 0
		rate 1 0                 | rate | burst | "0" | 1 or more
		rate 1 x                 | rate | burst | "x" | 1 or more
		rate 1 2 3               | rate | <messages per second> [<burst>]
		tokens a                 | unknown option "tokens" | token`
)

// The error of a wrong option names its line, what is wrong, and what is accepted.
func TestAWrongOptionIsAnErrorThatHelps(t *testing.T) {
	for _, block := range []struct{ name, before, wrong, after string }{
		{"global", "{\n#\nsse {\n", wrongGlobalOptions, "\n}\n}"},
		{"hub", "{\nsse {\nhub x {\n", wrongHubOptions, "\n}\n}\n}"},
		{"route", ":8080 {\n#\nsse /events {\n", wrongRouteOptions, "\n}\n}"},
		{"publish", ":8080 {\nsse /events {\npublish {\n", wrongPublishOptions, "\n}\n}\n}"},
	} {
		t.Run(block.name, func(t *testing.T) {
			for line := range strings.Lines(strings.TrimSpace(block.wrong)) {
				text, words, _ := strings.Cut(strings.TrimSpace(line), "|")
				text = strings.ReplaceAll(strings.TrimSpace(text), "; ", "\n")
				_, _, err := adapt(block.before + text + block.after)
				where := "Caddyfile:" + strconv.Itoa(4+strings.Count(text, "\n"))
				wantHelp(t, text, err, append(strings.Split(words, "|"), where)...)
			}
		})
	}
}

func wantHelp(t *testing.T, text string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: there is no error", text)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), strings.TrimSpace(word)) {
			t.Errorf("%s: the error does not say %q: %v", text, strings.TrimSpace(word), err)
		}
	}
}

// Of a wrong combination the error names the line of the whole.
func TestAWrongCombinationIsAnErrorThatHelps(t *testing.T) {
	for _, test := range []struct{ text, where, words string }{
		{":8080 {\n#\nsse {\npublish {\n}\n}\n}", "Caddyfile:3", "publish token jwt open"},
		{":8080 {\n#\nsse {\npublish\n}\n}", "Caddyfile:3", "publish token jwt open"},
		{":8080 {\n#\nsse {\npublish {\nopen\ntoken x\n}\n}\n}", "Caddyfile:3", "publish open token exclude"},
		{":8080 {\n#\nsse {\npublish {\nopen\ntargets user\n}\n}\n}", "Caddyfile:3", "publish targets topics"},
		{":8080 {\n#\nsse {\ntopics a\npublish {\nopen\nbroadcast on\n}\n}\n}", "Caddyfile:3", "publish broadcast targets"},
		{":8080 {\n#\nsse {\ntopics a\npublish {\nopen\nbroadcast off\ntargets broadcast\n}\n}\n}", "Caddyfile:3", "broadcast contradict"},
		{":8080 {\n#\nsse {\ncors_origins * https://a.example\n}\n}", "Caddyfile:3", "cors_origins * alone"},
		{":8080 {\nsse /events x\n}", "Caddyfile:2", `sse "x" matcher block`},
		{"{\nsse x\n}", "Caddyfile:2", `sse "x" block`},
		{"{\nsse\nsse\n}", "Caddyfile:3", "sse twice"},
		{"{\nsse {\nhub a\n}\n}\n:8080 {\nsse {\nhub b\n}\n}", "Caddyfile:8", `"b" defined`},
	} {
		_, _, err := adapt(test.text)
		wantHelp(t, test.text, err, append(strings.Fields(test.words), test.where)...)
	}
}

// Right combinations do not depend on the order of their lines.
func TestTheOrderOfOptionsIsFree(t *testing.T) {
	for _, text := range []string{
		":8080 {\nsse {\npublish {\ntargets user\nopen\ntopics a\n}\n}\n}",
		":8080 {\nsse {\npublish {\ntargets broadcast\nbroadcast on\nopen\n}\ntopics a\n}\n}",
		":8080 {\nsse {\npublish {\n}\njwt {\nkey HS256 0123456789abcdef0123456789abcdef\n}\n}\n}",
	} {
		if _, _, err := adapt(text); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

func TestErrorsShowNoSecret(t *testing.T) {
	for _, text := range []string{
		":8080 {\nsse {\npublish {\nopen\ntoken s3cret\n}\n}\n}",
		":8080 {\nsse {\npublish {\ntoken s3cret {\n}\n}\n}\n}",
		"{\nsse {\nbroker redis redis://localhost {\npassword a s3cret\n}\n}\n}",
		"{\nsse {\nbroker redis redis://localhost {\npassword s3cret s3cret\n}\n}\n}",
	} {
		if _, _, err := adapt(text); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s gives %v", text, err)
		}
	}
}
