// Package recipes_test runs the programs of the recipes.
package recipes_test

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) { e2etest.Main(m) }

var secrets = []string{"SSE_JWT_SECRET=0123456789abcdef0123456789abcdef", "SSE_PUBLISH_TOKEN=publisher"}

func TestSignedInUsersGetTheirNotifications(t *testing.T) {
	for recipe, c := range map[string]struct {
		language, file string
		command        []string // the program and its arguments, to which the file is added
	}{
		"laravel.md": {"php", "app.php", []string{"php", "-S", "127.0.0.1:PORT"}},
		"python.md":  {"python", "app.py", []string{"python3"}},
		"rails.md":   {"ruby", "app.rb", []string{"ruby"}},
		"node.md":    {"js", "app.mjs", []string{"node"}},
		"go.md":      {"go", "app.go", []string{"go", "build", "-o", "app"}},
	} {
		t.Run(recipe, func(t *testing.T) {
			t.Parallel()
			program := e2etest.Need(t, c.command[0])
			server := e2etest.Start(t, site(t, "README.md"), e2etest.Env(secrets...))
			file := server.WriteFile(c.file, firstBlock(t, recipe, c.language))
			args := append(c.command[1:len(c.command):len(c.command)], file)
			if c.language == "go" { // `go run` would leave a child of its own behind
				build := exec.Command(program, args...)
				build.Dir = filepath.Dir(file)
				if out, err := build.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", build, err, out)
				}
				program, args = filepath.Join(filepath.Dir(file), "app"), nil
			}
			run(t, server, program, args)

			alice, bob := signIn(t, server, "alice"), signIn(t, server, "bob")
			hers := e2etest.Subscribe(t, server.URL("/events"), cookies(alice))
			hers.Connected(t)
			his := e2etest.Subscribe(t, server.URL("/events"), cookies(bob))
			his.Connected(t)
			notify := func(user, text string) {
				t.Helper()
				answer := e2etest.Send(t, http.MethodPost, server.URL("/notify"), "user="+user+"&text="+text, form)
				if answer.Status >= 300 {
					t.Fatalf("notifying %s: answered %d: %s", user, answer.Status, answer.Body)
				}
			}
			notify("alice", "paid")
			notify("bob", "late")
			expect(t, hers, "paid")
			expect(t, his, "late") // and not what was Alice's

			// Renewing takes a session, and gives a token that is as good.
			if status := e2etest.Send(t, http.MethodPost, server.URL("/renew"), "").Status; status != http.StatusUnauthorized {
				t.Errorf("nobody's token is renewed: answered %d", status)
			}
			renewed := e2etest.Send(t, http.MethodPost, server.URL("/renew"), "", cookies(alice))
			again := e2etest.Subscribe(t, server.URL("/events"), cookies(renewed), e2etest.LastEventID(hers.LastID()))
			if resume := again.Connected(t).Resume; resume != "complete" {
				t.Errorf("with a new token she is told %q", resume)
			}
			if e2etest.Send(t, http.MethodGet, server.URL("/events"), "").Status != http.StatusUnauthorized {
				t.Error("somebody who is not signed in may listen")
			}
		})
	}
}

func TestBackendDecidesWhoListens(t *testing.T) {
	t.Parallel()
	python := e2etest.Need(t, "python3")
	server := e2etest.Start(t, site(t, "backend-decides.md"), e2etest.Env(secrets...))
	run(t, server, python, []string{server.WriteFile("app.py", firstBlock(t, "backend-decides.md", "python"))})
	if status := e2etest.Send(t, http.MethodGet, server.URL("/events"), "").Status; status != http.StatusUnauthorized {
		t.Errorf("without a session it is answered %d", status)
	}
	forged := e2etest.Header("X-Sse-User", "bob")
	stream := e2etest.Subscribe(t, server.URL("/events?topic=orders/bob"), e2etest.Header("Cookie", "user=alice"), forged)
	if topics := strings.Join(stream.Connected(t).Topics, " "); topics != "news orders/alice" {
		t.Errorf("she listens to %s", topics)
	}
	bearer := e2etest.Header("Authorization", "Bearer publisher")
	e2etest.Publish(t, server.URL("/publish?topic=orders/bob"), "his", bearer)
	e2etest.Publish(t, server.URL("/publish?topic=orders/alice"), "hers", bearer)
	e2etest.Publish(t, server.URL("/publish?user=alice"), "to her", bearer)
	stream.Expect(t, "hers")
	stream.Expect(t, "to her")
}

// site is the Caddyfile of a recipe, on free ports.
func site(t *testing.T, recipe string) string {
	t.Helper()
	return strings.NewReplacer("http://localhost:8080", "http://127.0.0.1:{{port}}", "localhost:3000", "127.0.0.1:{{app}}").
		Replace(firstBlock(t, recipe, "caddyfile"))
}

func firstBlock(t *testing.T, recipe, language string) string {
	t.Helper()
	page, err := os.ReadFile(recipe)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatalf("%s has no block of %s", recipe, language)
	}
	return string(block[1])
}

// run starts the program of a recipe, and waits until Caddy reaches it. It ends with the test.
func run(t *testing.T, server *e2etest.Server, program string, args []string) {
	t.Helper()
	port := server.Expand("{{app}}")
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "PORT", port)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), append(secrets, "PORT="+port, "SSE_URL="+server.URL("/events"))...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", cmd, &said)
		}
	})
	e2etest.Await(t, "the program to listen", func() bool {
		answer, err := e2etest.Do(t.Context(), http.MethodGet, server.URL("/"), "")
		return err == nil && answer.Status != http.StatusBadGateway
	})
}

var form = e2etest.Header("Content-Type", "application/x-www-form-urlencoded")

func signIn(t *testing.T, server *e2etest.Server, user string) e2etest.Answer {
	t.Helper()
	answer := e2etest.Send(t, http.MethodPost, server.URL("/login"), "user="+user, form)
	if answer.Status >= 300 {
		t.Fatalf("signing in: answered %d: %s", answer.Status, answer.Body)
	}
	return answer
}

// cookies sends what an answer has set.
func cookies(answer e2etest.Answer) e2etest.Option {
	var pairs []string
	for _, cookie := range (&http.Response{Header: answer.Header}).Cookies() {
		pairs = append(pairs, cookie.Name+"="+cookie.Value)
	}
	return e2etest.Header("Cookie", strings.Join(pairs, "; "))
}

func expect(t *testing.T, stream *e2etest.Stream, text string) {
	t.Helper()
	event, err := stream.Next(patience)
	if err != nil || event.Name != "notice" || !bytes.Contains(event.Data, []byte(text)) {
		t.Errorf("got %+v, %v; want the notice %q", event, err, text)
	}
}
