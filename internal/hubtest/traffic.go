package hubtest

import (
	"math/rand/v2"
	"sync"
	"time"
)

// ReturnsSoon reports whether f returns within a time that is long for a computer. It is for what
// must not block; the test that f should block instead belongs into a synctest bubble.
func ReturnsSoon(f func()) bool {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
		return true
	case <-time.After(20 * time.Second):
		return false
	}
}

// Traffic is goroutines that use a hub at the same time.
type Traffic struct{ sync.WaitGroup }

// GoLoop calls f so often, with dice of its own.
func (w *Traffic) GoLoop(times int, f func(*rand.Rand)) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	w.Go(func() {
		for range times {
			f(random)
		}
	})
}
