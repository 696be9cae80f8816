package live

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestEventsAreEmittedInOrderAndAHandlerHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e emitter
		var got []int
		release := make(chan struct{})
		began := time.Now()
		e.add(func() { <-release })
		for i := range 5 {
			e.add(func() {
				if i == 2 {
					panic("a handler of somebody else's")
				}
				got = append(got, i)
				if i == 3 {
					e.add(func() { got = append(got, 100) }) // as a handler that publishes or reloads
				}
			})
		}
		if time.Since(began) > 0 {
			t.Error("whoever has something to tell was held up")
		}
		close(release)
		synctest.Wait()
		hubtest.Want(t, got, 0, 1, 3, 4, 100)
	})
}

func TestEventsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e emitter
		release, emitted := make(chan struct{}), 0
		e.add(func() { <-release })
		synctest.Wait() // it is being emitted
		room := 0
		for range maxEvents + 10 {
			if e.add(func() { emitted++ }) {
				room++
			}
		}
		if room != maxEvents {
			t.Errorf("%d events wait", room)
		}
		close(release)
		e.wait(time.Minute)
		if emitted != maxEvents {
			t.Errorf("%d were emitted", emitted)
		}
	})
}
