package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// load is publishers that publish numbered messages back to back, each over a
// connection of its own.
type load struct {
	url  string
	size int                      // of a message, in bytes
	next [publishers]atomic.Int64 // by publisher, how many messages were answered with 200

	stopped atomic.Bool
	posting sync.WaitGroup
	errs    chan error
}

func newLoad(url string, size int) *load {
	return &load{url: url, size: size, errs: make(chan error, publishers)}
}

// startLoad is newLoad with n publishers that begin now.
func startLoad(t testing.TB, url string, n, size int) *load {
	l := newLoad(url, size)
	l.start(t, n)
	return l
}

// start lets n publishers go on from where they were.
func (l *load) start(t testing.TB, n int) {
	l.stopped.Store(false)
	for p := range n {
		client := e2etest.H1(t)
		l.posting.Go(func() {
			for !l.stopped.Load() {
				if err := l.publish(client, p); err != nil {
					l.errs <- err
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		l.stopped.Store(true)
		l.posting.Wait()
	})
}

// publish publishes the next message of publisher p. A request that was cut is
// repeated with its Idempotency-Key; any answer but 200 is an error.
func (l *load) publish(client *http.Client, p int) error {
	n := l.next[p].Load()
	key := e2etest.Header("Idempotency-Key", fmt.Sprintf("%d-%d", p, n))
	for deadline := time.Now().Add(patience); ; {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		answer, err := e2etest.Do(ctx, http.MethodPost, l.url, numbered(p, n, l.size), e2etest.Via(client), key)
		cancel()
		switch {
		case err == nil && answer.Status == http.StatusOK:
			l.next[p].Store(n + 1)
			return nil
		case err == nil:
			return fmt.Errorf("publishing number %d: %d: %s", n, answer.Status, answer.Body)
		case time.Now().After(deadline):
			return fmt.Errorf("publishing number %d: %w", n, err)
		}
	}
}

// published returns how many messages have been answered so far.
func (l *load) published() (n int64) {
	for p := range l.next {
		n += l.next[p].Load()
	}
	return n
}

// awaitMore waits until n more messages have been answered.
func (l *load) awaitMore(t testing.TB, n int64) {
	t.Helper()
	from := l.published()
	e2etest.Await(t, fmt.Sprintf("%d more messages", n), func() bool {
		l.check(t)
		return l.published() >= from+n
	})
}

func (l *load) check(t testing.TB) {
	t.Helper()
	select {
	case err := <-l.errs:
		t.Fatal(err)
	default:
	}
}

// stop ends the publishers and returns how many messages have been published.
func (l *load) stop(t testing.TB) int64 {
	t.Helper()
	l.stopped.Store(true)
	l.posting.Wait()
	l.check(t)
	return l.published()
}

// numbered is the data of publisher p's message n, from 0, made size bytes long.
func numbered(p int, n int64, size int) string {
	text := fmt.Sprintf("%d %d ", p, n)
	return text + strings.Repeat("x", max(0, size-len(text)))
}
