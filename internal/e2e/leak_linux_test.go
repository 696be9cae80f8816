package e2e

import (
	"fmt"
	"net/http"
	"os"
	"testing"

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

func TestNothingIsLeftOfClientsThatCameAndWentAndOfReloads(t *testing.T) {
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
	// goroutines and files without a client, once as few as they get.
	rest := func(atMost [2]int) (now [2]int) {
		t.Helper()
		waitFor(t, fmt.Sprintf("no more than %v goroutines and files", atMost), func() bool {
			goroutines, err := server.Goroutines()
			if err != nil {
				return false
			}
			now = [2]int{goroutines, openFiles(t, server.PID())}
			return now[0] <= atMost[0] && now[1] <= atMost[1]
		})
		return now
	}
	visit(20, 20, 20) // whatever is made once
	reloadTo(t, server, 1, "")
	anything := [2]int{1 << 20, 1 << 20}
	before := rest(anything)
	for { // the reload and the visitors still have something to tidy up
		settled := rest(anything)
		if settled == before {
			break
		}
		before = settled
	}
	visit(400, 70, 30)
	for i := range 20 {
		reloadTo(t, server, i+2, "")
		if i%5 == 0 {
			visit(10, 5, 5)
		}
	}
	const slack = 5 // the runtime's and Caddy's own comings and goings
	after := rest([2]int{before[0] + slack, before[1] + slack})
	t.Logf("goroutines and files: %v before, %v after", before, after)
}
