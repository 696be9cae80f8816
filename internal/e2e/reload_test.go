package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestAFailedReloadChangesNothing(t *testing.T) {
	t.Parallel()
	const good = `
{
	sse {
		history 100
		max_clients 30
		hub other {
			history 100
		}
	}
}
http://127.0.0.1:{{port}} {
	sse /events {
		publish {
			open
		}
	}
	sse /other {
		hub other
		publish {
			open
		}
	}
}
`
	// Other settings for everything, and something wrong.
	changed := strings.NewReplacer("history 100", "history 1", "max_clients 30", "max_clients 1\ndrain_spread 1ms",
		"open", "open\ntopics nothing", "sse /other", "sse /renamed").Replace(good)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bad := map[string]string{
		"an unknown option":              strings.Replace(changed, "topics nothing", "topics nothing\nno_such_option", 1),
		"a token that is not set":        strings.Replace(changed, "open\n", "token {env.SSE_TEST_IS_NOT_SET}\n", 1),
		"a hub that is not defined":      strings.Replace(changed, "hub other\n\t\tpublish", "hub another\n\t\tpublish", 1),
		"a port that is taken":           changed + fmt.Sprintf("http://%s {\n\tsse /events\n}\n", taken.Addr()),
		"a hub nobody uses, port taken":  strings.Replace(changed, "hub other\n\t\tpublish", "publish", 1) + fmt.Sprintf("http://%s {\n}\n", taken.Addr()),
		"another broker, and port taken": strings.Replace(changed, "sse {", "sse {\nbroker bolt {{dir}}/hub.db", 1) + fmt.Sprintf("http://%s {\n}\n", taken.Addr()),
		"a broken certificate":           changed + "https://localhost:{{tls}} {\n\ttls {{dir}}/none.pem {{dir}}/none.pem\n}\n",
		"another module's bad option":    strings.Replace(changed, "http://127", "http://127.0.0.1:{{second}} {\n\treverse_proxy {\n\t\tlb_policy nonsense\n\t}\n}\nhttp://127", 1),
	}
	server := e2etest.Start(t, good)
	urls := []string{server.URL("/events?topic=load"), server.URL("/other?topic=load")}
	fleets := []*fleet{newFleet(t), newFleet(t)}
	ids := make([]string, 2)
	for i, url := range urls {
		fleets[i].dial(t, url, 20)
		ids[i] = e2etest.Subscribe(t, url).Connected(t).ID
	}
	published := int64(0)
	publish := func() {
		t.Helper()
		for range 5 {
			for _, url := range urls {
				e2etest.Publish(t, url, numbered(0, published, 0))
			}
			published++
		}
		for _, f := range fleets {
			f.await(t, published)
		}
	}
	publish()
	for name, config := range bad {
		for range 3 { // Caddy starts a config's apps in any order
			err := server.Reload(config)
			if err == nil {
				t.Fatalf("%s: the config was accepted", name)
			}
			if strings.Contains(name, "port") != strings.Contains(err.Error(), "address already in use") {
				t.Errorf("%s: %v", name, err)
			}
		}
		publish() // everybody is there, and so are both routes
		for i, url := range urls {
			stream := e2etest.Subscribe(t, url, e2etest.LastEventID(ids[i])) // max_clients has not changed either
			if got := stream.Connected(t).Resume; got != "complete" {
				t.Errorf("%s: resume is %q; want complete", name, got)
			}
			for n := range published {
				stream.Expect(t, numbered(0, n, 0))
			}
			stream.Close()
		}
	}
	if err := server.Reload(changed); err != nil { // and with nothing wrong it is accepted
		t.Fatal(err)
	}
	stream := e2etest.Subscribe(t, server.URL("/renamed?topic=load"), e2etest.LastEventID(ids[1]))
	if got := stream.Connected(t).Resume; got != "gap" {
		t.Errorf("with a history of 1, resume is %q; want gap", got)
	}
	fleets[0].check(t)
}

// trap is an address that counts who comes.
type trap struct {
	net.Listener
	came atomic.Int64
}

func newTrap(t *testing.T) *trap {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &trap{Listener: listener}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			tr.came.Add(1)
			_ = conn.Close()
		}
	}()
	return tr
}

func TestValidateAndAdaptTouchNothingThatRunsAndNoNetwork(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Setenv("SSE_TEST_SECRET", "do-not-print-me")
	trap := newTrap(t)
	server := e2etest.Start(t, openSite)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=a"))
	stream.Connected(t)
	// The running server's port, its hub, a Redis and a JWKS that count who asks.
	config := fmt.Sprintf(`
{
	sse {
		broker redis redis://%[1]s
		history 3
	}
}
http://127.0.0.1:{{port}} {
	sse /events {
		publish {
			token {env.SSE_TEST_SECRET}
		}
		jwt {
			jwks http://%[1]s/jwks.json
		}
	}
}
`, trap.Addr())
	file := server.WriteFile("other.caddyfile", config)
	for _, command := range []string{"validate", "adapt"} {
		out, err := e2etest.Caddy(t, command, "--adapter", "caddyfile", "--config", file)
		if err != nil {
			t.Errorf("caddy %s: %v\n%s", command, err, out)
		}
		if strings.Contains(out, "do-not-print-me") {
			t.Errorf("caddy %s prints the token", command)
		}
	}
	if out, err := e2etest.Caddy(t, "adapt", "--validate", "--adapter", "caddyfile", "--config", file); err != nil {
		t.Errorf("caddy adapt --validate: %v\n%s", err, out)
	}
	if n := trap.came.Load(); n > 0 {
		t.Errorf("%d connections were made", n)
	}
	e2etest.Publish(t, server.URL("/events?topic=a"), "still here")
	stream.Expect(t, "still here")
}

func TestValidateRefusesATokenThatIsNotSet(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	file := filepath.Join(t.TempDir(), "Caddyfile")
	for _, token := range []string{"{env.SSE_TEST_IS_NOT_SET}", "{file." + file + ".missing}", `""`} {
		config := "http://127.0.0.1:{$PORT:8080} {\n\tsse /events {\n\t\tpublish {\n\t\t\ttoken " + token + "\n\t\t}\n\t}\n}\n"
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := e2etest.Caddy(t, "validate", "--adapter", "caddyfile", "--config", file)
		if err == nil {
			t.Errorf("token %s was accepted", token)
		}
		if !strings.Contains(out, "token") {
			t.Errorf("token %s: the error does not say that it is about a token: %s", token, out)
		}
	}
}
