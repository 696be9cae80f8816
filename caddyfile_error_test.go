package sse

import (
	"crypto/rand"
	"crypto/rsa"
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
		broker bolt              | bolt | one file | /var/lib/caddy/sse.db
		broker bolt ""           | bolt | one file | /var/lib/caddy/sse.db
		broker bolt a b          | bolt | one file | /var/lib/caddy/sse.db
		broker redis             | redis | URL | redis://localhost:6379
		broker redis ""          | redis | URL 1 | redis://user:password@host:6379/0
		broker redis http://x    | redis | URL 1 | redis://user:password@host:6379/0
		broker redis notaurl     | redis | URL 1 | redis://user:password@host:6379/0
		broker redis redis://localhost:1/x | redis | URL 1 | redis://user:password@host:6379/0
		broker redis {env.X} redis://a:b   | redis | URL 2 | redis://user:password@host:6379/0
		broker redis redis://u:1#2@a       | redis | URL 1 | %23
		broker redis redis://a rediss://b  | redis | URL 2 | scheme | URL 1
		broker redis redis://a redis://u@b | redis | URL 2 | user | URL 1
		broker redis redis://:x@a redis://b redis://:x@c         | redis | URL 2 | password | URL 1
		broker redis {env.X} redis://u:x@a redis://u:x@b/0 redis://u:x@c/1 | redis | URL 4 | database | URL 2
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
		heartbeat 30s            | "heartbeat" does not belong here | sse /events { ... }
		hartbeat 30s             | unknown option "hartbeat" | broker, drain_spread, history, history_bytes
		drain_spread 1us         | drain_spread | less than a millisecond | 30s
		history 10 5ns           | history | less than a millisecond
		max_clients 1; max_clients 2 | "max_clients" | twice
		conflate on              | "conflate" does not belong here | topic <pattern> { ... }
		topic                    | topic | empty | <pattern> { ... }
		topic a b                | topic | <pattern> { ... }
		topic a/**/b             | topic | "a/**/b" | only as the last segment
		topic ""                 | topic | empty | 1 to 256 bytes
		topic room/{query.room}  | topic | placeholder | as they are
		topic a                  | topic | say what holds for a | history | conflate | presence`

	wrongTopicOptions = `
		history                  | history | <messages> [<age>] | latest [<age>] | off
		history 0                | history | "0" | 1 or more | latest | off
		history newest           | history | "newest" | number of messages | latest | off
		history 10 x             | history | "x" | age of more than 0 | 1h
		history latest x         | history | "x" | age of more than 0 | 1h
		history latest 0         | history | "0" | age of more than 0 | 1h
		history latest 5ns       | history | less than a millisecond
		history latest 1h 5      | history | <messages> [<age>] | latest [<age>] | off
		history off 5            | history | "off" | latest
		conflate                 | conflate | on | <interval> | off
		conflate on off          | conflate | on | <interval> | off
		conflate on 1s           | conflate | on | <interval> | off
		conflate yes             | conflate | "yes" | on | off | 200ms
		conflate 200             | conflate | "200" | on | off | 200ms
		conflate 0               | conflate | between 1ms and 24h
		conflate -1s             | conflate | between 1ms and 24h
		conflate 2d              | conflate | between 1ms and 24h
		presence                 | presence | on | off
		presence yes             | presence | "yes" | on | off
		presence on; presence on | "presence" | twice
		history_bytes 1MiB       | "history_bytes" does not belong here | the block around this one
		histroy latest           | unknown option "histroy" | conflate, history, presence`

	wrongGlobalOptions = wrongHubOptions + `
		hub                      | hub | <name>
		hub a b                  | hub | <name>
		hub ""                   | hub | "" | 1 or more characters
		hub a/b                  | hub | "a/b" | none of spaces, /, { and }
		hub "a b"                | hub | "a b" | none of spaces, /, { and }
		hub a{b                  | hub | "a{b" | none of spaces, /, { and }
		hub a}b                  | hub | "a}b" | none of spaces, /, { and }
		hub ..                   | hub | ".." | name
		hub default              | "default" | already
		hub a; hub a             | "a" | already`

	wrongRouteOptions = `
		hub                      | hub | <name>
		hub a b                  | hub | <name>
		hub ""                   | hub | "" | 1 or more characters
		hub a/b                  | hub | "a/b" | none of spaces, /, { and }
		hub none                 | "none" | not defined | { sse { hub none } }
		topics                   | topics | <topics...>
		topics a b/**/c          | topics | "b/**/c" | only as the last segment
		topics ""                | topics | empty | 1 to 256 bytes
		topics a/*/{query.x}     | topics | wildcard | placeholder
		topics room/{room}       | topics | {room} | {query.room}
		client_id {id}           | client_id | {id} | {query.id}
		user {name}              | user | {name} | {query.name}
		client_id                | client_id | <value>
		client_id a b            | client_id | <value>
		client_id ""             | client_id | 1 to 128 | A-Za-z0-9._~-
		client_id bad!id         | client_id | 1 to 128 | A-Za-z0-9._~-
		user                     | user | <value>
		user ""                  | user | 1 to 256
		user a b                 | user | <value>
		heartbeat                | heartbeat | <duration> | off
		heartbeat 0              | heartbeat | "0" | 30s | off
		heartbeat -1s            | heartbeat | "-1s" | more than 0 | 30s | off
		heartbeat x              | heartbeat | "x" | 30s | off
		heartbeat 1s 2s          | heartbeat | <duration> | off
		retry                    | retry | <duration>
		retry off                | retry | "off" | 30s
		retry -1s                | retry | "-1s" | more than 0 | 30s
		retry 0                  | retry | "0" | more than 0 | 30s
		retry 99ms               | retry | 99ms | 100ms and 1h
		retry 61m                | retry | 1h1m0s | 100ms and 1h
		heartbeat 500us          | heartbeat | "500us" | less than a millisecond | 30s
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
		since                    | since | empty | now | all | latest | -<messages> | <duration> | <time>
		since now then           | since | now | all | latest
		since yesterday          | since | "yesterday" | now, all, latest | -50 | 10m | 2026-11-30T08:00:00Z
		since 1796026266000      | since | not in seconds
		since {query.from}       | since | query.from | latest
		slow_client              | slow_client | catch_up | disconnect | drop_oldest
		slow_client wait         | slow_client | "wait" | catch_up | disconnect and drop_oldest
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
		cors_origins https://a.b https://*.b | cors_origins | "https://*.b" | no wildcard | https://app.example.com
		cors_origins tauri://a:80 | cors_origins | "tauri://a:80" | https://app.example.com
		cors_origins file://a    | cors_origins | "file://a" | https://app.example.com
		cors_origins https://a.b:0443 | cors_origins | "https://a.b:0443" | https://app.example.com
		cors_origins https://a.b: | cors_origins | "https://a.b:" | https://app.example.com
		cors_origins https://a.b:70000 | cors_origins | "https://a.b:70000" | https://app.example.com
		cors_origins https://A.b | cors_origins | "https://A.b" | https://app.example.com
		cors_origins https://u@a.b | cors_origins | "https://u@a.b" | https://app.example.com
		cors_origins https://bücher.example | cors_origins | https://app.example.com
		cors_origins ftp://a.b   | cors_origins | "ftp://a.b" | https://app.example.com
		direct_writes            | direct_writes | on | off
		direct_writes maybe      | direct_writes | "maybe" | on | off
		compress                 | compress | gzip | off
		compress on              | compress | "on" | gzip and off
		publish x                | publish | { ... }
		history 10               | "history" does not belong here | the global options | { sse { ... } }
		broker memory            | "broker" does not belong here | the global options | { sse { ... } }
		token secret             | "token" does not belong here | publish { ... }
		key HS256 secret         | "key" does not belong here | jwt { ... }
		histroy 10               | unknown option "histroy" | client_id, compress, connected_event, cors_origins
		heartbeet 30s            | unknown option "heartbeet" | heartbeat
		retry 1s; retry 2s       | "retry" | twice`

	wrongPublishOptions = `
		token                    | token | empty | {$NAME} | <tokens...>
		token {$SSE_TEST_UNSET}  | token | empty | {$NAME} | <tokens...>
		cors_origins *           | "cors_origins" does not belong here | the block around this one
		token ""                 | token | empty
		token good ""            | token | empty
		token "a b"              | token | spaces
		token "a	b"              | token | spaces or control characters
		open x                   | open
		topics                   | topics | <topics...>
		topics a/**/b            | topics | "a/**/b" | only as the last segment
		topics room/{query.room} | topics | placeholder | query.room}
		targets                  | targets | client | user | broadcast
		targets everybody        | targets | "everybody" | client | user | broadcast
		broadcast                | broadcast | on | off
		broadcast yes            | broadcast | "yes" | on | off
		max_size                 | max_size | <size>
		max_size 0               | max_size | "0" | 1MiB
		max_size x               | max_size | "x" | 1MiB
		token x; max_size 257MiB | max_size | 256MiB at most
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

	wrongJWTOptions = `
		key                      | key | <algorithm> <secret or public key> [<key ID>]
		key HS256                | key | <algorithm> <secret or public key> [<key ID>]
		key HS256 {$SSE_TEST_UNSET} | key | {$NAME} | <algorithm> <secret or public key> [<key ID>]
		key RS256 /etc/keys/a.pem | key | RS256 | PEM | {file./etc/keys/a.pem}
		key ES256 ./a.pem        | key | ES256 | PEM | {file../a.pem}
		key HS256 /run/secrets/a | key | HS256 | 32 or more | {file./path/of/the/file}
		key FOO x                | key | "FOO" | HS256 | EdDSA
		key HS256 ""             | key | HS256 | empty
		key HS256 short          | key | HS256 | 5 bytes | 32 or more
		key HS512 0123456789abcdef0123456789abcdef | key | HS512 | 32 bytes | 64 or more
		key RS256 notpem         | key | RS256 | PEM | BEGIN PUBLIC KEY
		jwks                     | jwks | <address>
		jwks ""                  | jwks | https
		jwks http://x.example/   | jwks | loopback | https
		jwks ftp://x             | jwks | https
		jwks notaurl             | jwks | https
		issuer ""                | issuer | empty
		audience ""              | audience | empty
		cookie ""                | cookie | "" | session
		cookie "a=b"             | cookie | "a=b" | session
		cookie "a b"             | cookie | "a b" | session
		query ""                 | query | empty
		query topic              | query | "topic" | token
		query client_id          | query | "client_id" | token
		query user               | query | "user" | token
		query last_event_id      | query | "last_event_id" | token
		query event              | query | "event" | token
		query retry              | query | "retry" | token
		query ephemeral          | query | "ephemeral" | token
		query broadcast          | query | "broadcast" | token
		public a/**/b            | public | "a/**/b" | only as the last segment`

	wrongRedisOptions = `
		prefix ""                | prefix | empty
		password ""              | password | empty
		max_len 0                | max_len | "0" | 1 or more
		timeout 0                | timeout | "0" | more than 0
		timeout 5us              | timeout | "5us" | less than a millisecond
		tls_ca f                 | tls_ca | rediss://
		tls_server_name a        | tls_server_name | rediss://
		tls_insecure_skip_verify | tls_insecure_skip_verify | rediss://
		tls_cert f               | tls_cert | tls_key
		tls_key f                | tls_key | tls_cert
		tls_key f; tls_cert f    | tls_cert | rediss://
		hosts a                  | unknown option "hosts" | master_name`
)

// The error of a wrong option names its line, what is wrong, and what is accepted.
func TestAWrongOptionIsAnErrorThatHelps(t *testing.T) {
	for _, block := range []struct{ name, before, wrong, after string }{
		{"global", "{\n#\nsse {\n", wrongGlobalOptions, "\n}\n}"},
		{"hub", "{\nsse {\nhub x {\n", wrongHubOptions, "\n}\n}\n}"},
		{"topic", "{\nsse {\ntopic a {\n", wrongTopicOptions, "\n}\n}\n}"},
		{"route", ":8080 {\n#\nsse /events {\n", wrongRouteOptions, "\n}\n}"},
		{"publish", ":8080 {\nsse /events {\npublish {\n", wrongPublishOptions, "\n}\n}\n}"},
		{"jwt", ":8080 {\nsse /events {\njwt {\n", wrongJWTOptions, "\n}\n}\n}"},
		{"redis", "{\nsse {\nbroker redis redis://localhost {\n", wrongRedisOptions, "\n}\n}\n}"},
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

func TestATopicHasOneBlock(t *testing.T) {
	_, _, err := adapt("{\nsse {\ntopic a {\npresence on\n}\ntopic a {\n}\n}\n}")
	wantHelp(t, "two blocks", err, `"a" is there twice`, "one block", "Caddyfile:6")
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

func TestAKeyOfAnotherKindThanItsAlgorithmsIsAnErrorThatHelps(t *testing.T) {
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(publicPEM(t, &rs.PublicKey))
	for _, algorithm := range []string{"ES256", "EdDSA"} {
		_, _, err := adapt(":8080 {\nsse {\njwt {\nkey " + algorithm + " \"" + key + "\"\n}\n}\n}")
		wantHelp(t, algorithm, err, "key", algorithm, "rsa.PublicKey", "Caddyfile:4")
	}
	if _, _, err := adapt(":8080 {\nsse {\njwt {\nkey RS256 \"" + key + "\"\n}\n}\n}"); err != nil {
		t.Error(err)
	}
}

// Of a wrong combination the error names the line of an option that makes it so, or of the block that
// lacks one.
func TestAWrongCombinationIsAnErrorThatHelps(t *testing.T) {
	for _, test := range []struct{ text, where, words string }{
		{":8080 {\n#\nsse {\npublish {\n}\n}\n}", "Caddyfile:4", "publish token jwt open"},
		{":8080 {\n#\nsse {\npublish\n}\n}", "Caddyfile:4", "publish token jwt open"},
		{":8080 {\n#\nsse {\npublish {\nopen\ntoken x\n}\n}\n}", "Caddyfile:5", "publish open token exclude"},
		{":8080 {\n#\nsse {\npublish {\nopen\ntargets user\n}\n}\n}", "Caddyfile:6", "publish targets topics"},
		{":8080 {\n#\nsse {\ntopics a\npublish {\nopen\nbroadcast on\n}\n}\n}", "Caddyfile:7", "publish broadcast targets"},
		{":8080 {\n#\nsse {\ntopics a\npublish {\nopen\nbroadcast off\ntargets broadcast\n}\n}\n}", "Caddyfile:8", "broadcast contradict"},
		{":8080 {\n#\nsse {\ncors_origins * https://a.example\n}\n}", "Caddyfile:4", "cors_origins * alone"},
		{":8080 {\n#\nsse {\ncors_origins *\nretry 2s\ncors_origins https://a.example\n}\n}", "Caddyfile:6", "cors_origins * alone"},
		{":8080 {\n#\nsse {\nretry 2s\njwt\n}\n}", "Caddyfile:5", "jwt key jwks"},
		{":8080 {\n#\nsse {\njwt {\nissuer a\n}\n}\n}", "Caddyfile:4", "jwt key jwks"},
		{":8080 {\nsse /events x\n}", "Caddyfile:2", `sse "x" matcher block`},
		{":8080 {\nsse_health well\n}", "Caddyfile:2", `sse_health "well" ready live`},
		{":8080 {\nsse_health \"\"\n}", "Caddyfile:2", `sse_health "" ready live`},
		{":8080 {\nsse_health ready live\n}", "Caddyfile:2", `sse_health "live" one word`},
		{":8080 {\nsse_health {\nready\n}\n}", "Caddyfile:3", `sse_health "ready" no block`},
		{"{\nsse x\n}", "Caddyfile:2", `sse "x" block`},
		{":8080 {\nsse {\n#\nretry 10ms\n}\n}", "Caddyfile:4", "retry 100ms 1h"},
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
		":8080 {\nsse {\npublish {\ntoken \"s3cret s3cret\"\n}\n}\n}",
		":8080 {\nsse {\njwt {\nkey HS256 s3cret\n}\n}\n}",
		":8080 {\nsse {\njwt {\nkey RS256 s3cret\n}\n}\n}",
		":8080 {\nsse {\njwt {\nkey s3cret-key HS256\n}\n}\n}",
		":8080 {\nsse {\njwt {\nkey HS256 /s3cret\n}\n}\n}",
		":8080 {\nsse {\njwt {\nkey s3cret\n}\n}\n}",
		":8080 {\nsse {\npublish {\nopen\ntoken a{s3cret}b\n}\n}\n}",
		"{\nsse {\nbroker redis redis://:s3cret@localhost:x\n}\n}",
		"{\nsse {\nbroker redis redis://:1234#s3cret@localhost\n}\n}",
		"{\nsse {\nbroker redis redis://a redis://:s3cret@b\n}\n}",
		"{\nsse {\nbroker redis redis://localhost {\npassword a s3cret\n}\n}\n}",
		"{\nsse {\nbroker redis redis://localhost {\npassword s3cret s3cret\n}\n}\n}",
	} {
		if _, _, err := adapt(text); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s gives %v", text, err)
		}
	}
}

// A value that comes of a placeholder is checked when the config is loaded. That error names the option.
func TestWhatPlaceholdersStandForIsCheckedOnLoad(t *testing.T) {
	for name, value := range map[string]string{"EMPTY": "", "SHORT": "short", "BLANK": "a b", "HTTP": "http://x", "PLAIN": "redis://localhost"} {
		t.Setenv("SSE_TEST_"+name, value)
	}
	for _, test := range []struct{ text, words string }{
		{":8080 {\nsse {\npublish {\ntoken {env.SSE_TEST_EMPTY}\n}\n}\n}", "publish token {env.SSE_TEST_EMPTY} empty"},
		{":8080 {\nsse {\npublish {\ntoken {env.SSE_TEST_BLANK}\n}\n}\n}", "publish token {env.SSE_TEST_BLANK} spaces"},
		{":8080 {\nsse {\njwt {\nkey HS256 {env.SSE_TEST_SHORT}\n}\n}\n}", "jwt key HS256 32"},
		{":8080 {\nsse {\njwt {\nkey RS256 {env.SSE_TEST_SHORT}\n}\n}\n}", "jwt key RS256 PEM"},
		{":8080 {\nsse {\njwt {\njwks {env.SSE_TEST_HTTP}\n}\n}\n}", "jwt jwks https loopback"},
		{":8080 {\nsse {\njwt {\njwks {env.SSE_TEST_UNSET}\n}\n}\n}", "jwt jwks https"},
		{":8080 {\nsse {\njwt {\njwks https://x\nissuer {env.SSE_TEST_UNSET}\n}\n}\n}", "jwt issuer {env.SSE_TEST_UNSET} empty"},
		{":8080 {\nsse {\njwt {\njwks https://x\naudience {env.SSE_TEST_EMPTY}\n}\n}\n}", "jwt audience {env.SSE_TEST_EMPTY} empty"},
		{"{\nsse {\nbroker bolt {env.SSE_TEST_EMPTY}\n}\n}\n:8080 {\nsse\n}", "broker bolt file {env.SSE_TEST_EMPTY} empty"},
		{"{\nsse {\nbroker redis {env.SSE_TEST_HTTP}\n}\n}\n:8080 {\nsse\n}", "broker redis URL 1"},
		{"{\nsse {\nbroker redis {env.SSE_TEST_PLAIN} rediss://a\n}\n}\n:8080 {\nsse\n}", "broker redis URL 2 scheme"},
		{"{\nsse {\nbroker redis {env.SSE_TEST_PLAIN} {\ntls_ca f\n}\n}\n}\n:8080 {\nsse\n}", "broker redis tls_ca rediss://"},
		{"{\nsse {\nbroker redis redis://a {\npassword {env.SSE_TEST_EMPTY}\n}\n}\n}\n:8080 {\nsse\n}", "redis password {env.SSE_TEST_EMPTY} empty"},
	} {
		wantHelp(t, test.text, validated(t, test.text), strings.Fields(test.words)...)
	}
}

// Values that no option should mind.
func TestUnusualValuesAreAccepted(t *testing.T) {
	for _, options := range []string{
		"client_id {query.client_id}", "client_id a.b_c~d-e", "client_id fixed-{path}", "user böb@example.com", "user {header.Remote-User}",
		"cors_origins https://a.b:8443 http://localhost:3000 http://[::1]:8080 http://a.b:443 https://a.b:80 https://xn--bcher-kva.example", "cors_origins *",
		"cors_origins https://a.b:443 http://a.b:80 capacitor://localhost ionic://localhost tauri://localhost chrome-extension://abcdefghijklmnop",
		"topics a/{my.room} {query.topic} {path.1}", "retry 100ms", "retry 1h",
		"publish {\ntoken a=b+c/d {env.X} \"a{b\" \"{env.X} \" ü\n}",
		"jwt {\njwks http://127.0.0.1:1/keys\ncookie __Host-token\nquery access_token\n}",
		"jwt {\njwks {env.X}\nkey RS256 {file./a}\nkey HS256 {env.X}\n}",
	} {
		if _, _, err := adapt(":8080 {\nsse {\n" + options + "\n}\n}"); err != nil {
			t.Errorf("%s\n%v", options, err)
		}
	}
	for _, options := range []string{
		"broker redis rediss://a:1 rediss://b:2 {\ntls_ca f\ntls_cert c\ntls_key k\n}", "broker redis {env.X} {\ntls_ca f\n}",
		"broker redis unix:///run/redis.sock", "broker bolt {env.X}", "hub chat-1.x_y~ü", "hub a:b",
	} {
		if _, _, err := adapt("{\nsse {\n" + options + "\n}\n}"); err != nil {
			t.Errorf("%s\n%v", options, err)
		}
	}
}
