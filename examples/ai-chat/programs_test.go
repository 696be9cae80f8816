package aichat_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

// start runs Caddy as the README says, but for the ports and the token.
func start(t *testing.T, options ...e2etest.ServerOption) *e2etest.Server {
	t.Helper()
	caddyfile := read(t, "Caddyfile", "{$PORT:8080}", "127.0.0.1:9092")
	caddyfile = strings.NewReplacer("{$PORT:8080}", "{{port}}", "127.0.0.1:9092", "127.0.0.1:{{backend}}").Replace(caddyfile)
	options = append(options, e2etest.WorkDir(e2etest.RepoRoot(t)), e2etest.Env("PUBLISH_TOKEN=secret"))
	return e2etest.Start(t, caddyfile, options...)
}

// read returns a file of the example, which must contain these.
func read(t *testing.T, name string, must ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "examples", "ai-chat", name))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range must {
		if !bytes.Contains(content, []byte(text)) {
			t.Fatalf("%s does not contain %q", name, text)
		}
	}
	return string(content)
}

// backend is the program that goes with the page.
type backend struct {
	binary  string
	address string
	env     []string
	program *exec.Cmd
}

// startBackend runs it where this Caddy looks for it.
func startBackend(t *testing.T, server *e2etest.Server, env ...string) *backend {
	t.Helper()
	b := &backend{binary: e2etest.Build(t, "./examples/ai-chat/backend"), address: server.Expand("127.0.0.1:{{backend}}")}
	b.env = append([]string{"ADDRESS=" + b.address, "PUBLISH_TOKEN=secret", "PUBLISH_URL=" + server.URL("/publish")}, env...)
	t.Cleanup(b.kill)
	b.start(t)
	return b
}

func (b *backend) start(t *testing.T) {
	t.Helper()
	b.program = exec.Command(b.binary)
	b.program.Env = append(os.Environ(), b.env...)
	b.program.Stderr = os.Stderr
	if err := b.program.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		answer, err := e2etest.Do(t.Context(), http.MethodGet, "http://"+b.address+"/answers/none", "")
		if err == nil && answer.Status == http.StatusNotFound {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the backend does not serve: %v", err)
		}
	}
}

func (b *backend) kill() {
	_ = b.program.Process.Kill()
	_ = b.program.Wait()
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// model stands for one that speaks OpenAI's chat completions. It says what the test says, when the test
// says so.
type model struct {
	env     string
	replies chan *reply
}

// reply is one answer of the model.
type reply struct {
	messages []message
	text     chan string // what it writes; closed, it ends
	ctx      context.Context
}

func startModel(t *testing.T) *model {
	t.Helper()
	m := &model{replies: make(chan *reply, 10)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Model    string    `json:"model"`
			Stream   bool      `json:"stream"`
			Messages []message `json:"messages"`
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Model != "fake" || !asked.Stream {
			t.Errorf("the model was asked %+v: %v", asked, err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		reply := &reply{messages: asked.Messages, text: make(chan string), ctx: r.Context()}
		m.replies <- reply
		for {
			select {
			case text, more := <-reply.text:
				if !more {
					return
				}
				_, _ = io.WriteString(w, text)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	m.env = "MODEL_URL=" + server.URL + "/v1/chat/completions"
	return m
}

// asked waits until the model is asked.
func (m *model) asked(t *testing.T) *reply {
	t.Helper()
	select {
	case reply := <-m.replies:
		return reply
	case <-time.After(patience):
		t.Fatal("the model is not asked")
		return nil
	}
}

func (r *reply) say(t *testing.T, tokens ...string) {
	t.Helper()
	for _, token := range tokens {
		content, _ := json.Marshal(token)
		r.write(t, fmt.Sprintf(`data: {"id":"x","choices":[{"index":0,"delta":{"content":%s}}]}`+"\n\n", content))
	}
}

func (r *reply) end(t *testing.T) {
	t.Helper()
	r.write(t, `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
	close(r.text)
}

func (r *reply) breakOff() {
	close(r.text)
}

func (r *reply) write(t *testing.T, text string) {
	t.Helper()
	select {
	case r.text <- text:
	case <-r.ctx.Done():
		t.Fatal("nobody listens to the model")
	}
}

// gone waits until nobody listens to the model any more.
func (r *reply) gone(t *testing.T) {
	t.Helper()
	select {
	case <-r.ctx.Done():
	case <-time.After(patience):
		t.Fatal("the model has not been stopped")
	}
}
