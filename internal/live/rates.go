package live

import (
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/problem"
	"golang.org/x/time/rate"
)

// limiters keeps publishers to their rates. It outlives configs, so that a reload pardons nobody.
type limiters struct {
	limitersMu sync.Mutex // guards the map
	byRate     map[rateKey]*rate.Limiter
}

type rateKey struct {
	who   string // a publisher's name
	rate  float64
	burst int
}

// maxLimiters is when publishers who have been silent are looked for and forgotten.
const maxLimiters = 10_000

// Allow takes n messages from a publisher's rate, or says when to come back; a rate of 0 is none. For more than the burst no
// time would be right.
func (l *limiters) Allow(who string, perSecond float64, burst, n int) *problem.Problem {
	if perSecond <= 0 {
		return nil
	}
	if n > burst {
		return problem.New(http.StatusRequestEntityTooLarge, "%d messages at once are more than the rate ever allows; send %d or fewer in an array", n, burst)
	}
	limiter := l.limiter(rateKey{who, perSecond, burst})
	now := time.Now()
	if limiter.AllowN(now, n) { // what is refused takes nothing from what others may, or the same one later
		return nil
	}
	p := problem.New(http.StatusTooManyRequests, "you publish faster than %g messages a second; wait and go on more slowly", perSecond)
	p.RetryAfter = int(min(max(1, math.Ceil((float64(n)-limiter.TokensAt(now))/perSecond)), math.MaxInt32))
	return p
}

func (l *limiters) limiter(key rateKey) *rate.Limiter {
	l.limitersMu.Lock()
	defer l.limitersMu.Unlock()
	if l.byRate == nil {
		l.byRate = make(map[rateKey]*rate.Limiter)
	}
	limiter := l.byRate[key]
	if limiter == nil {
		if len(l.byRate) >= maxLimiters {
			l.forgetSilentLocked()
		}
		limiter = rate.NewLimiter(rate.Limit(key.rate), key.burst)
		l.byRate[key] = limiter
	}
	return limiter
}

func (l *limiters) forgetSilentLocked() {
	for key, limiter := range l.byRate {
		if limiter.Tokens() >= float64(key.burst) {
			delete(l.byRate, key)
		}
	}
}
