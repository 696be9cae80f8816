package mercure

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// The Caddyfiles of the image work with the variables that recipes set.
func TestTheImagesCaddyfilesAreSetUpByTheirVariables(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Caddyfile", "dev.Caddyfile"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "image", name))
			if err != nil {
				t.Fatal(err)
			}
			s := &site{e2etest.Start(t, string(config), e2etest.Env(
				"SERVER_NAME=http://127.0.0.1:{{port}}",
				"GLOBAL_OPTIONS=skip_install_trust",
				"MERCURE_PUBLISHER_JWT_KEY="+publisherKey, "MERCURE_SUBSCRIBER_JWT_KEY="+subscriberKey,
				"MERCURE_EXTRA_DIRECTIVES=cors_origins https://app.example.com\nheartbeat 5s",
				"CADDY_SERVER_EXTRA_DIRECTIVES=respond /extra 418",
			)), t}
			if answer := s.get(s.URL("/healthz")); answer.Status != http.StatusOK {
				t.Errorf("/healthz is answered %d", answer.Status)
			}
			if answer := s.get(s.URL("/extra")); answer.Status != http.StatusTeapot {
				t.Errorf("/extra is answered %d", answer.Status)
			}
			if answer := s.get(s.URL("/other")); answer.Status != http.StatusNotFound {
				t.Errorf("another path is answered %d", answer.Status)
			}
			token := subscribing("*")
			stream := s.subscribe([]string{"a"}, e2etest.Header("Accept-Encoding", "gzip"), bearer(token))
			e2etest.Subscribe(t, s.hub("topic", "a", "authorization", token)).Close()
			s.publish("topic", "a", "private", "", "data", "1")
			wantTexts(t, stream, "1")
			e2etest.Await(t, "the request is in the log", func() bool { return strings.Contains(s.Log(), "REDACTED") })
			if strings.Contains(s.Log(), token) {
				t.Error("the log has the token")
			}
			anybody := s.get(s.hub())
			if want := map[string]int{"Caddyfile": 401, "dev.Caddyfile": 400}[name]; anybody.Status != want {
				t.Errorf("without a token: %d, want %d", anybody.Status, want)
			}
		})
	}
}
