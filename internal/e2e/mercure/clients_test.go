// Package mercure tests the directive mercure from outside: the real binary, and clients of others as they come.
package mercure

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

// patience bounds each wait; it is long because tests load the machine.
const patience = 60 * time.Second

const (
	secret = "a secret that all tokens of these tests are signed with"
	path   = "/.well-known/mercure"
)

// start runs a site with a hub.
func start(t *testing.T) *e2etest.Server {
	t.Helper()
	return e2etest.Start(t, fmt.Sprintf(`
http://127.0.0.1:{{port}} {
	mercure {
		publisher_jwt "%[1]s"
		subscriber_jwt "%[1]s"
		transport local
		heartbeat 50ms
	}
}`, secret))
}

// token returns a token that grants everything.
func token() string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256"}`)) + "." + encode([]byte(`{"mercure":{"publish":["*"],"subscribe":["*"]}}`))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}

// publish publishes an update. Every third is private, every second has an ID of ours.
func publish(t *testing.T, s *e2etest.Server, n int, data string) {
	t.Helper()
	form := url.Values{"topic": {"https://example.com/books/1"}, "data": {data}}
	if n%3 == 0 {
		form.Set("private", "on")
	}
	if n%2 == 0 {
		form.Set("id", fmt.Sprintf("https://example.com/updates/%d?é", n))
	}
	e2etest.Publish(t, s.URL(path), form.Encode(), e2etest.Header("Authorization", "Bearer "+token()),
		e2etest.Header("Content-Type", "application/x-www-form-urlencoded"))
}

// Clients that are cut in the middle, twice, get every update once, and nothing else.
func TestClientsOfOthersAreCutTwice(t *testing.T) {
	t.Parallel()
	node := e2etest.Need(t, "node")
	dir := t.TempDir()
	e2etest.CopyWithPackages(t, "clients", dir)
	for _, program := range []string{"polyfill", "fetch-event-source", "eventsource"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			line := e2etest.NewProxy(t, s.Expand("127.0.0.1:{{port}}"))
			line.CutBetweenEvents(3_000, 4_000) // one of them notes an ID before the event is there
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, node, filepath.Join(dir, program+".mjs"),
				"http://"+line.Addr()+path+"?topic="+url.QueryEscape("https://example.com/books/{id}"), token())
			var out bytes.Buffer
			var complaints e2etest.Written
			cmd.Stdout, cmd.Stderr = &out, &complaints
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			e2etest.Await(t, "it is connected", func() bool { return strings.Contains(complaints.String(), "open") })
			var want strings.Builder
			for i := range 200 {
				text := fmt.Sprintf(`{"update":%d}`, i)
				publish(t, s, i, text)
				want.WriteString(text + "\n")
			}
			publish(t, s, 1, "end")
			want.WriteString("end\n")
			if err := cmd.Wait(); err != nil {
				t.Fatalf("it ended with %v: %s", err, complaints.String())
			}
			got, wanted := strings.Split(out.String(), "\n"), strings.Split(want.String(), "\n")
			if i := firstDifference(got, wanted); i >= 0 {
				t.Errorf("it got %d lines, of which from %d on: %q", len(got), i, got[i:min(len(got), i+5)])
			}
			if line.Accepted() < 3 {
				t.Errorf("it had %d connections: it was not cut twice", line.Accepted())
			}
		})
	}
}

// firstDifference returns where two lists begin to differ; -1 if they don't.
func firstDifference(a, b []string) int {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return -1
}

// A page of plain PHP publishes as symfony/mercure does.
func TestPHPPublishes(t *testing.T) {
	t.Parallel()
	php := e2etest.Need(t, "php")
	s := start(t)
	stream := e2etest.Subscribe(t, s.URL(path)+"?topic="+url.QueryEscape("https://example.com/shelves/{id}"),
		e2etest.Header("Authorization", "Bearer "+token()))
	id, err := exec.Command(php, filepath.Join("clients", "publish.php"), s.URL(path), secret).Output()
	if err != nil {
		t.Fatalf("it ended with %v: %s", err, id)
	}
	event := stream.Expect(t, `{"status":"\u00e9"}`)
	if event.ID != string(id) || event.Name != "book" || event.Retry != 1000 || !strings.HasPrefix(event.ID, "urn:uuid:") {
		t.Errorf("it was told %q, and the event is %+v", id, event)
	}
}
