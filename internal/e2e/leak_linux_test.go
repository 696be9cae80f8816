package e2e

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// openFiles returns how many file descriptors a process has.
func openFiles(t testing.TB, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

func TestClientsAndReloadsLeaveNothingBehind(t *testing.T) {
	server := e2etest.Start(t, version(0, ""), awaitTLS)
	plain, secure := server.URL("/events?topic=load"), server.Expand("https://localhost:{{tls}}/events?topic=load")
	visit := func(h1, h2, h3 int) {
		f := newFleet(t)
		defer f.disband()
		f.dial(t, plain, h1)
		for name, visitors := range map[string]struct {
			client *http.Client
			n      int
		}{"h2": {e2etest.H2(t), h2}, "h3": {e2etest.H3(t), h3}} {
			defer visitors.client.CloseIdleConnections()
			f.via(t, visitors.client, secure, visitors.n, name)
		}
		e2etest.Publish(t, plain, numbered(0, 0, 100))
		f.await(t, 1)
	}
	count := func() (goroutines, files int) {
		t.Helper()
		goroutines, err := server.Goroutines()
		if err != nil {
			t.Fatal(err)
		}
		return goroutines, openFiles(t, server.PID())
	}
	visit(20, 20, 20) // whatever is made once
	reloadTo(t, server, 1, "")
	goroutines, files := count()
	for range 200 { // as few as they get, once what is left of the visit has been tidied up
		time.Sleep(10 * time.Millisecond)
		g, f := count()
		goroutines, files = min(goroutines, g), min(files, f)
	}
	visit(400, 70, 30)
	for i := range 20 {
		reloadTo(t, server, i+2, "")
		if i%5 == 0 {
			visit(10, 5, 5)
		}
	}
	const slack = 5 // the runtime's and Caddy's own comings and goings
	e2etest.Await(t, fmt.Sprintf("%d goroutines and %d files as before", goroutines, files), func() bool {
		g, f := count()
		return g <= goroutines+slack && f <= files+slack
	})
}
