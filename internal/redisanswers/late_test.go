package redisanswers

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// gated tells the others when it is let, and counts how often it reads.
type gated struct {
	answers.Shared
	held  atomic.Bool
	calls chan struct{} // gets something for each call that is held
	let   chan struct{} // gets something for each that may go on
	reads atomic.Int64
}

func (g *gated) Append(
	ctx context.Context, id string, b *answers.Batch, r *answers.Record, keep time.Duration,
) (bool, error) {
	if g.held.Load() {
		g.calls <- struct{}{}
		<-g.let
		ctx = context.WithoutCancel(ctx)
	}
	return g.Shared.Append(ctx, id, b, r, keep)
}

// letAll lets calls go on until there is an answer, and returns that.
func (g *gated) letAll(t *testing.T, answered chan string) string {
	t.Helper()
	g.held.Store(false)
	for {
		select {
		case <-g.calls:
			g.let <- struct{}{}
		case got := <-answered:
			return got
		case <-time.After(soon):
			t.Fatal("it is not answered")
		}
	}
}

func (g *gated) Read(ctx context.Context, id string, after uint64) ([]answers.Batch, *answers.Record, error) {
	defer g.reads.Add(1)
	return g.Shared.Read(ctx, id, after)
}

// awaitReads waits until all of a read, that began from now on, is done.
func (g *gated) awaitReads(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for until := g.reads.Load() + 3; g.reads.Load() < until; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody reads")
		}
	}
}

// What an owner says may have been on its way while it gave out more, as while Redis was away. A reader who has had that
// and comes back elsewhere is not told that there is no such number.
func TestANumberIsNotDeniedByWhatWasOnItsWay(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	owner, other := newInstance(t, server), newInstance(t, server)
	writes := &gated{Shared: Open("default", owner.options), calls: make(chan struct{}), let: make(chan struct{})}
	owner.Share(writes)
	reads := &gated{Shared: Open("default", other.options)}
	other.Share(reads)

	a := owner.answer()
	mirror := other.find(a.ID)
	got, _ := read(t, mirror, 0, event(1))
	want(t, got, event(1))
	writes.held.Store(true)
	say(t, a, "data: 2\n\n")
	<-writes.calls // it tells of two
	say(t, a, "data: 3\n\n")
	answered := make(chan string, 1)
	go func() {
		got, _ := read(t, mirror, 3, event(4))
		answered <- got
	}()
	reads.awaitReads(t)
	writes.let <- struct{}{}
	reads.awaitReads(t)
	select {
	case got := <-answered:
		t.Fatalf("it is answered %q", got)
	default:
	}
	say(t, a, "data: 4\n\n")
	want(t, writes.letAll(t, answered), event(4))
	go func() {
		got, _ := read(t, mirror, 9, "")
		answered <- got
	}()
	want(t, writes.letAll(t, answered), answers.ErrNeverGiven.Error())
}

// failing can't tell the others for some calls, as while Redis is away.
type failing struct {
	answers.Shared
	left atomic.Int64
}

func (f *failing) Append(
	ctx context.Context, id string, b *answers.Batch, r *answers.Record, keep time.Duration,
) (bool, error) {
	if f.left.Add(-1) >= 0 {
		return false, errors.New("Redis is away")
	}
	return f.Shared.Append(ctx, id, b, r, keep)
}

// An answer is not unknown because its owner could not tell the others yet.
func TestAnAnswerThatCouldNotBeToldYetIsFound(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	owner, other := newInstance(t, server), newInstance(t, server)
	writes := &failing{Shared: Open("default", owner.options)}
	writes.left.Store(4) // more than half a second
	owner.Share(writes)
	a := owner.answer()
	got, _ := read(t, other.find(a.ID), 0, event(1))
	want(t, got, event(1))
}
