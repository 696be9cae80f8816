package e2etest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// FreePort returns a TCP and UDP port that nobody listens on now, another one each time. Test processes that
// run side by side never get the same, even while nobody listens.
//
// It lies below the ranges from which systems take ports for outgoing
// connections. Otherwise one of the thousands that a test opens could take it
// while a server is being restarted.
func FreePort(t testing.TB) int {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range 1000 {
		if ports.next == ports.end && !ports.claimLocked() {
			continue
		}
		port := ports.next
		ports.next++
		if portIsFree(port) {
			return port
		}
	}
	t.Fatal("found no free port in 1000 tries")
	return 0
}

// ports are those of this process. They come in blocks; whoever listens on the first port of a block has it.
var ports portBlock

type portBlock struct {
	mu        sync.Mutex // guards the rest
	next, end int        // what is left of the block
	claims    []net.Listener
}

const (
	firstPort  = 11_000
	blockSize  = 100
	portBlocks = 200
)

// claimLocked tries to take a block, for as long as this process lives.
func (b *portBlock) claimLocked() bool {
	first := firstPort + blockSize*rand.IntN(portBlocks)
	claim, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first))
	if err != nil {
		return false
	}
	b.claims = append(b.claims, claim)
	b.next, b.end = first+1, first+blockSize
	return true
}

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
