package e2etest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// FreePort returns a TCP and UDP port that nobody listens on now, another one each time.
//
// It lies below the ranges from which systems take ports for outgoing
// connections. Otherwise one of the thousands that a test opens could take it
// while a server is being restarted.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 11_000 + rand.IntN(20_000)
		if _, given := givenPorts.LoadOrStore(port, true); !given && portIsFree(port) {
			return port
		}
	}
	t.Fatal("found no free port in 100 tries")
	return 0
}

var givenPorts sync.Map // of this process

func portIsFree(port int) bool {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	_ = udp.Close()
	return true
}
