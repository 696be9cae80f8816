package e2etest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// AwaitOneListener waits until a port has one listening socket. At a reload Caddy opens the new one before it
// closes the old one, a little after the reload has been answered; whoever connects meanwhile may be cut off.
func AwaitOneListener(t testing.TB, port int) {
	t.Helper()
	for deadline := time.Now().Add(patience); listeners(t, port) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("port %d has %d listening sockets", port, listeners(t, port))
		}
	}
}

func listeners(t testing.TB, port int) (n int) {
	t.Helper()
	const listening = "0A"
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line) // of proc_net_tcp(5)
			if len(fields) > 3 && fields[3] == listening && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				n++
			}
		}
	}
	return n
}
