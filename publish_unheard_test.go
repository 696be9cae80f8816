package sse

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// stage is who listens in a test, and when it is told otherwise.
type stage struct {
	mu      sync.Mutex // guards all below
	clients int
	err     error
}

func (s *stage) set(clients int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients, s.err = clients, err
}

func (s *stage) count(context.Context, []hub.Address) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients, s.err
}

func TestBodyEndsOnceNobodyHasListenedForSoLong(t *testing.T) {
	to := hub.Topics("a")
	came := func(receivers int, repeated bool) []*broker.Publication {
		return []*broker.Publication{{
			Message: &hub.Message{To: to}, Receipt: broker.Receipt{Receivers: receivers}, Repeated: repeated,
		}}
	}
	for name, test := range map[string]struct {
		to   []hub.Address
		play func(*silence, *stage)
		want time.Duration // when it is over, at the earliest; 0 is never
	}{
		"nobody comes": {to, func(*silence, *stage) {}, 30 * time.Second},
		"somebody leaves": {to, func(_ *silence, s *stage) {
			s.set(1, nil)
			time.Sleep(10 * time.Minute)
			s.set(0, nil)
		}, 10*time.Minute + 30*time.Second},
		"somebody comes back": {to, func(_ *silence, s *stage) {
			time.Sleep(29 * time.Second)
			s.set(2, nil)
			time.Sleep(2 * time.Second)
			s.set(0, nil)
		}, 61 * time.Second},
		"a message reaches somebody between two looks": {to, func(x *silence, _ *stage) {
			time.Sleep(20*time.Second + time.Millisecond)
			x.note(came(1, false))
		}, 50 * time.Second},
		"what was published before reaches nobody now": {to, func(x *silence, _ *stage) {
			time.Sleep(20*time.Second + time.Millisecond)
			x.note(came(1, true))
		}, 30 * time.Second},
		"who listens can't be told": {to, func(_ *silence, s *stage) {
			time.Sleep(20 * time.Second)
			s.set(0, errors.New("away"))
		}, 0},
		"it can be told again": {to, func(_ *silence, s *stage) {
			s.set(0, errors.New("away"))
			time.Sleep(time.Minute)
			s.set(0, nil)
		}, 90 * time.Second},
		"the body has not named a target": {nil, func(*silence, *stage) {}, 0},
		"the body names a target": {nil, func(x *silence, _ *stage) {
			time.Sleep(time.Minute)
			x.note(came(0, false))
		}, 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, s := time.Now(), new(stage)
				x := &silence{limit: 30 * time.Second, count: s.count, to: test.to}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				go test.play(x, s)
				over := x.watch(ctx)
				after := time.Since(began)
				if over != (test.want > 0) || over && (after < test.want || after > test.want+2*time.Second) {
					t.Errorf("over %t after %v; want after %v", over, after, test.want)
				}
			})
		})
	}
}
