package live

import (
	"math"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// Allow takes n messages from a publisher's rate, or says when to come back. A rate of 0 is no limit. More
// messages than the burst would be too many at any time.
func (h *Hub) Allow(publisher string, perSecond float64, burst, n int) *problem.Problem {
	if perSecond <= 0 {
		return nil
	}
	if n > burst {
		return problem.New(http.StatusRequestEntityTooLarge,
			"%d messages at once are more than the rate ever allows; send %d or fewer in an array", n, burst)
	}
	limiter := h.rates.limiter(rateKey{publisher, perSecond, burst})
	now := time.Now()
	if limiter.AllowN(now, n) { // a refusal takes nothing from what others may send, or this one later
		return nil
	}
	p := problem.New(http.StatusTooManyRequests,
		"you publish faster than %g messages a second; wait and go on more slowly", perSecond)
	p.RetryAfter = int(min(max(1, math.Ceil((float64(n)-limiter.TokensAt(now))/perSecond)), math.MaxInt32))
	return p
}

// rates keeps publishers to their rates. It outlives configs: a reload pardons nobody. The zero value is
// ready.
type rates struct {
	mu       sync.Mutex // guards limiters
	limiters map[rateKey]*rate.Limiter
}

type rateKey struct {
	publisher string
	perSecond float64
	burst     int
}

// maxLimiters is how many publishers are remembered before those who have been silent are forgotten.
const maxLimiters = 10_000

func (r *rates) limiter(key rateKey) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limiters == nil {
		r.limiters = make(map[rateKey]*rate.Limiter)
	}
	limiter := r.limiters[key]
	if limiter == nil {
		if len(r.limiters) >= maxLimiters {
			r.forgetSilentLocked()
		}
		limiter = rate.NewLimiter(rate.Limit(key.perSecond), key.burst)
		r.limiters[key] = limiter
	}
	return limiter
}

// forgetSilentLocked forgets publishers whose limiter is like a new one. mu is held.
func (r *rates) forgetSilentLocked() {
	for key, limiter := range r.limiters {
		if limiter.Tokens() >= float64(key.burst) {
			delete(r.limiters, key)
		}
	}
}
