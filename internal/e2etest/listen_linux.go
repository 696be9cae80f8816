package e2etest

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// AwaitOneListener waits until a port has no more than one listening socket. At a reload Caddy opens the new one
// before it closes the old one, a little after the reload has been answered; whoever connects meanwhile may be cut
// off, or be answered by the old config.
func AwaitOneListener(port int) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n, err := listeners(port)
		if n <= 1 || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("port %d has %d listening sockets", port, n)
		}
	}
}

func listeners(port int) (n int, err error) {
	const listening = "0A"
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			return 0, err
		}
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line) // of proc_net_tcp(5)
			if len(fields) > 3 && fields[3] == listening && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				n++
			}
		}
	}
	return n, nil
}
