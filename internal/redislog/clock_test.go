package redislog

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestAgesGoByTheClockOfRedis(t *testing.T) {
	ours := time.Now()
	for _, ahead := range []time.Duration{0, 20 * time.Second, 5 * time.Hour, -5 * time.Hour} {
		c := &clock{wall: func() time.Time { return ours }}
		redis := ours.Add(-ahead)
		c.set(redis)
		at := func(age time.Duration) hub.Position {
			return hub.Position{Major: uint64(redis.Add(-age).UnixMilli())}
		}
		if got := c.age(at(time.Hour)); (got - time.Hour).Abs() > time.Millisecond {
			t.Errorf("with a clock that is %v ahead, what came an hour ago is %v old", ahead, got)
		}
		if got := ours.Sub(c.timeOf(at(time.Hour))); (got - time.Hour).Abs() > clockSlop/2 {
			t.Errorf("with a clock that is %v ahead, what came an hour ago came %v ago", ahead, got)
		}
		for _, future := range []hub.Position{
			at(-time.Hour), {Major: 1 << 60}, {Major: math.MaxInt64}, {Major: math.MaxUint64},
		} {
			if got := ours.Sub(c.timeOf(future)); c.age(future) > time.Millisecond || got < 0 || got > clockSlop/2 {
				t.Errorf("with a clock that is %v ahead, %v is %v old and came %v ago", ahead, future, c.age(future), got)
			}
		}
	}
}

// withClock launches an instance with such a history, whose clock is ahead.
func withClock(t *testing.T, url string, ahead, age time.Duration) *instance {
	t.Helper()
	i := launch(t, newOptions(t, url), func(i *instance) {
		i.ahead = ahead
		i.Apply(hub.Limits{History: hub.HistoryLimits{Count: 1 << 30, Age: age}})
	})
	i.awaitReady()
	i.awaitUp()
	return i
}

func TestInstanceWithAWrongClockTrimsWhatOthersWouldTrim(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			server := e2etest.RedisServer(t)
			client := admin(t, server.URL())
			now := client.Time(t.Context()).Val()
			for _, age := range []time.Duration{3 * time.Hour, 10 * time.Minute} {
				for k := range 200 {
					client.XAdd(t.Context(), &redis.XAddArgs{
						Stream: defaultLog, ID: fmt.Sprintf("%d-%d", now.Add(-age).UnixMilli(), k),
						Values: []string{"topic", "a", "data", "x"},
					})
				}
			}
			i := withClock(t, server.URL(), ahead, time.Hour)
			if err := i.log.trim(t.Context()); err != nil {
				t.Error(err)
			}
			if got := client.XLen(t.Context(), defaultLog).Val(); got < 200 || got >= 300 { // in blocks of about 100
				t.Errorf("%d messages are left; want the 200 of the last hour, and none of the 200 before it", got)
			}
			since, hour := i.log.wantedSince(0), client.Time(t.Context()).Val().Add(-time.Hour)
			if d := time.UnixMilli(int64(since)).Sub(hour); d.Abs() > 10*time.Second {
				t.Errorf("history begins %v from where Redis says", d)
			}
			r := i.subscribe(hubtest.With("a"))
			i.publish("new", hub.Topics("a")...)
			r.want("new")
			if lag := i.log.Lag(); lag > time.Minute {
				t.Errorf("the instance says that it lags %v", lag)
			}
		})
	}
}

func TestEntriesWithIDsOfTheFutureAreTrimmedByMaxLenOnly(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := withClock(t, server.URL(), 0, time.Hour)
	r := i.subscribe(hubtest.With("a"))
	client.XAdd(t.Context(), &redis.XAddArgs{
		Stream: defaultLog, ID: "9999999999999-0", Values: []string{"topic", "a", "data", "from the future"},
	})
	i.publish("now", hub.Topics("a")...)
	if err := i.log.trim(t.Context()); err != nil {
		t.Error(err)
	}
	r.want("from the future", "now")
	if got := client.XLen(t.Context(), defaultLog).Val(); got != 2 {
		t.Errorf("%d messages are left", got)
	}
	short := start(t, server.URL(), func(o *Options) { o.MaxLen = 1 })
	for k := range 300 {
		client.XAdd(t.Context(), xadd("topic", "b", "data", fmt.Sprint(k)))
	}
	if err := short.log.trim(t.Context()); err != nil {
		t.Error(err)
	}
	if got := client.XLen(t.Context(), defaultLog).Val(); got > 200 {
		t.Errorf("%d messages are left of a max_len of 1", got)
	}
}
