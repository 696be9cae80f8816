package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// brokerSite is openSite with a broker.
func brokerSite(broker string) string {
	return fmt.Sprintf("{\n\tsse {\n\t\tbroker %s\n\t}\n}\n", broker) + openSite
}

// awaitBroker returns when the hub has its log: clients may come sooner, who are told a gap then.
func awaitBroker(t *testing.T, server *e2etest.Server) {
	t.Helper()
	e2etest.Await(t, "the broker to be up", func() bool {
		answer, err := e2etest.Do(t.Context(), http.MethodGet, server.AdminURL("/sse/health"), "")
		return err == nil && answer.Status == http.StatusOK
	})
}

// visit publishes a message and returns its ID, which somebody may come back with.
func visit(t *testing.T, server *e2etest.Server) (id string) {
	t.Helper()
	awaitBroker(t, server)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news"))
	stream.Connected(t)
	e2etest.Publish(t, server.URL("/events?topic=news"), "hello")
	stream.Expect(t, "hello")
	stream.Close()
	return stream.LastID()
}

// wantResume checks what somebody is told who comes back with an ID.
func wantResume(t *testing.T, server *e2etest.Server, when, id, want string) {
	t.Helper()
	awaitBroker(t, server)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news"), e2etest.LastEventID(id))
	if got := stream.Connected(t).Resume; got != want {
		t.Errorf("%s: an ID is told %q, want %q", when, got, want)
	}
	stream.Close()
}

// Whoever was there before has missed what another broker brought meanwhile.
func TestAHubThatReturnsToALogOverRestartsSaysGap(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	for name, lasting := range map[string]func(t *testing.T) (broker, another string){
		"bolt": func(*testing.T) (string, string) { return "bolt {{dir}}/log.db", "bolt {{dir}}/another.db" },
		"redis": func(t *testing.T) (string, string) {
			return "redis " + e2etest.RedisServer(t).URL(), "redis " + e2etest.RedisServer(t).URL()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker, another := lasting(t)
			server := e2etest.Start(t, brokerSite("memory"))
			visit(t, server)
			server.RestartWith(brokerSite(broker)) // its first start, which is no return
			before := visit(t, server)
			wantResume(t, server, "at once", before, "complete")
			server.Restart()
			wantResume(t, server, "after a restart", before, "complete")
			server.Kill()
			server.Restart()
			wantResume(t, server, "after a crash", before, "complete")

			server.RestartWith(brokerSite("memory"))
			wantResume(t, server, "in memory", before, "gap")
			visit(t, server)
			server.Restart()
			server.RestartWith(brokerSite(broker))
			wantResume(t, server, "after a return", before, "gap")
			after := visit(t, server)
			wantResume(t, server, "after a return, a new ID", after, "complete")
			server.Restart()
			wantResume(t, server, "a restart after the return", before, "gap")
			wantResume(t, server, "a restart after the return, a new ID", after, "complete")

			if err := server.Reload(brokerSite(another)); err != nil {
				t.Fatal(err)
			}
			visit(t, server)
			server.Kill()
			server.RestartWith(brokerSite(broker))
			wantResume(t, server, "after a return from another log", after, "gap")
		})
	}
}

// Other instances that stay with the log have missed nothing, even with the same home.
func TestAnInstanceThatLeavesALogDoesNotLeaveItForOthers(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	redis := brokerSite("redis " + e2etest.RedisServer(t).URL())
	home := e2etest.Env("XDG_DATA_HOME=" + t.TempDir())
	one, two := e2etest.Start(t, redis, home), e2etest.Start(t, redis, home)
	before := visit(t, one)
	if err := one.Reload(brokerSite("memory")); err != nil {
		t.Fatal(err)
	}
	two.Restart()
	wantResume(t, two, "on the instance that has stayed", before, "complete")
	if err := one.Reload(redis); err != nil {
		t.Fatal(err)
	}
	wantResume(t, one, "on the instance that has returned", before, "gap")
	wantResume(t, two, "on the instance that has stayed", before, "complete")
	if log := two.Log(); !strings.Contains(log, "another process has locked it") {
		t.Error("nobody is told of an instance that keeps no record")
	}
	if log := one.Log(); strings.Contains(log, "can't note which log it follows") {
		t.Error("the first instance keeps no record either")
	}
}
