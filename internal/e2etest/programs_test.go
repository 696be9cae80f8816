package e2etest_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// recorder is a test that may skip or fail without the real one doing so. What
// it starts ends with end.
type recorder struct {
	testing.TB
	skipped, failed bool
	cleanups        []func()
}

func (r *recorder) Skip(...any)           { r.skipped = true }
func (r *recorder) Failed() bool          { return false } // logs are not for the reader
func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Fatalf(string, ...any) { r.failed = true; panic(r) }
func (r *recorder) Cleanup(f func())      { r.cleanups = append(r.cleanups, f) }

func (r *recorder) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

func need(t *testing.T, programs ...string) (path string, r *recorder) {
	r = &recorder{TB: t}
	defer func() {
		if cause := recover(); cause != nil && cause != r {
			panic(cause)
		}
	}()
	return e2etest.Need(r, programs...), r
}

func TestNeedFindsTheFirstProgramThereIs(t *testing.T) {
	path, r := need(t, "no-such-program", "go")
	if r.skipped || r.failed || !strings.HasPrefix(filepath.Base(path), "go") {
		t.Errorf("path %q, skipped %t, failed %t", path, r.skipped, r.failed)
	}
}

func TestNeedFailsWhenAllIsRequired(t *testing.T) {
	t.Setenv("SSE_TEST_REQUIRE_ALL", "1")
	if _, r := need(t, "no-such-program"); r.skipped || !r.failed {
		t.Errorf("skipped %t, failed %t", r.skipped, r.failed)
	}
}

func ask(t *testing.T, redis *e2etest.Redis, command ...string) string {
	t.Helper()
	answer, err := redis.Do(10*time.Second, command...)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return answer
}

func TestRedisKeepsPortAndDataOverKillAndRestart(t *testing.T) {
	redis := e2etest.RedisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	if got := ask(t, redis, "SET", "key", "value"); got != "OK" {
		t.Fatalf("SET: %q", got)
	}
	address := redis.Addr()
	redis.Kill()
	if _, err := redis.Do(time.Second, "PING"); err == nil {
		t.Error("a killed Redis answers")
	}
	redis.Restart()
	if redis.Addr() != address {
		t.Errorf("address %s became %s", address, redis.Addr())
	}
	if got := ask(t, redis, "GET", "key"); got != "value" {
		t.Errorf("after the kill the value is %q", got)
	}
	redis.Restart()
	if got := ask(t, redis, "GET", "key"); got != "value" {
		t.Errorf("after the restart the value is %q", got)
	}
	if got := strings.Count(redis.Log(), "Ready to accept connections"); got != 3 {
		t.Errorf("the log tells of %d starts, want 3:\n%s", got, redis.Log())
	}
}

func TestFrozenRedisAnswersOnlyAfterThaw(t *testing.T) {
	redis := e2etest.RedisServer(t)
	redis.Freeze()
	if answer, err := redis.Do(200*time.Millisecond, "PING"); err == nil {
		t.Errorf("a frozen Redis answers %q", answer)
	}
	redis.Thaw()
	if answer := ask(t, redis, "PING"); answer != "PONG" {
		t.Errorf("answer %q", answer)
	}
}

func TestFrozenRedisEndsWithItsTest(t *testing.T) {
	e2etest.Need(t, "redis-server")
	var redis *e2etest.Redis
	t.Run("inner", func(t *testing.T) {
		redis = e2etest.RedisServer(t)
		redis.Freeze()
	})
	if _, err := redis.Do(200*time.Millisecond, "PING"); err == nil || os.IsTimeout(err) {
		t.Errorf("want a refused connection: %v", err)
	}
}

func TestChromiumRunsAPage(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(`<title>waiting</title><script>
				new EventSource("/events").onmessage = e => { document.title = e.data; console.log("got", e.data) }
			</script>`))
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte("data: hello\n\n"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer page.Close()
	ctx := e2etest.Chromium(t)
	err := chromedp.Do(ctx, chromedp.Navigate(page.URL))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](`document.title === "hello"`)); err != nil {
		t.Error(err)
	}
	shots := t.TempDir()
	t.Setenv("SSE_TEST_SCREENSHOTS", shots)
	e2etest.Screenshot(ctx, t, "page")
	if png, err := os.ReadFile(filepath.Join(shots, "page.png")); err != nil || !strings.HasPrefix(string(png), "\x89PNG") {
		t.Errorf("screenshot: %.20q, %v", png, err)
	}
}

func TestFreePortCanBeListenedOn(t *testing.T) {
	port := e2etest.FreePort(t)
	if port < 11_000 || port >= 31_000 {
		t.Errorf("port %d may be taken by outgoing connections", port)
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
}
