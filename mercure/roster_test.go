package mercure

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/memlog"
)

// shakyLog is a log in memory that refuses what comes while it is down, and can be made to hold it.
type shakyLog struct {
	*memlog.Log
	mu   sync.Mutex
	down bool
}

func (l *shakyLog) Publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		return 0, broker.ErrUnavailable
	}
	return l.Log.Publish(ctx, batch)
}

func (l *shakyLog) set(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

// shaky is a broker whose log is given.
type shaky struct{ log *shakyLog }

func (shaky) Identity() string                  { return "shaky" }
func (s shaky) Open(string) (broker.Log, error) { return s.log, nil }

// rosterOver returns the roster of a hub over a log. The returned function ends both.
func rosterOver(t *testing.T, log *shakyLog) (r *roster, end func()) {
	t.Helper()
	h := live.Acquire(t.Name())
	settings := &live.Settings{
		Limits: hub.Limits{History: hub.HistoryLimits{Count: 100, Age: time.Hour, Bytes: 1 << 20}},
		Module: shaky{log}, Logger: zap.NewNop(), Emit: func(string, map[string]any) {},
	}
	if err := h.Offer(settings); err != nil {
		t.Fatal(err)
	}
	r = newRoster(h)
	r.open()
	return r, func() {
		r.end()
		h.Withdraw(settings)
		if err := live.Release(t.Name()); err != nil {
			t.Error(err)
		}
	}
}

func clientOf(t *testing.T, id, topic string) *hub.Client {
	t.Helper()
	selectors, err := hub.ParseSelectors(topic)
	if err != nil {
		t.Fatal(err)
	}
	return &hub.Client{Subscriber: hub.Subscriber{ClientID: id, Selectors: selectors}}
}

// When the last route goes, the last clients may still be leaving. Under -race.
func TestAClientLeavesWhileTheRosterEnds(t *testing.T) {
	log := &shakyLog{Log: memlog.Open()}
	first, end := rosterOver(t, log)
	defer end()
	for range 200 {
		r := newRoster(first.hub)
		r.open()
		r.add(clientOf(t, "1", "a"))
		r.running.Wait() // it is told
		log.set(true)
		var leaving sync.WaitGroup
		leaving.Go(func() { r.remove("1") })
		runtime.Gosched()
		r.end()
		leaving.Wait()
		log.set(false)
	}
}

// While the log takes nothing, who has come and gone without a word is not told, and not listed either.
func TestOnlyWhoIsToldIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &shakyLog{Log: memlog.Open(), down: true}
		r, end := rosterOver(t, log)
		h := r.hub
		listed := func() (topics []string) {
			all, _, err := r.list(t.Context(), func(string, string) bool { return true })
			if err != nil {
				t.Error(err)
			}
			for _, s := range all {
				topics = append(topics, s.Topic)
			}
			return topics
		}
		r.add(clientOf(t, "1", "first")) // it is being told, and the log takes nothing
		synctest.Wait()
		r.add(clientOf(t, "2", "passing"))
		r.add(clientOf(t, "3", "third"))
		r.remove("2")
		r.remove("2")
		r.remove("nobody")
		if got := listed(); !slices.Equal(got, []string{"first"}) {
			t.Errorf("listed are %v", got)
		}
		log.set(false)
		time.Sleep(2 * retryTelling)
		synctest.Wait()
		if got := listed(); !slices.Equal(got, []string{"first", "third"}) {
			t.Errorf("listed are %v", got)
		}
		if published := h.Core.Stats().Published; published != 2 {
			t.Errorf("%d changes were told", published)
		}
		r.remove("1")
		synctest.Wait()
		if published := h.Core.Stats().Published; published != 3 {
			t.Errorf("%d changes were told", published)
		}
		log.set(true)
		r.add(clientOf(t, "4", "late"))
		synctest.Wait()
		end() // it waits for nothing
	})
}
