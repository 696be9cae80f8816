package redislog

import (
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// Any program may add malformed messages, as many and as large as it likes. So warnings about them are few and
// short.
const (
	malformedBurst = 100              // warnings that may come at once
	malformedEvery = 10 * time.Second // then there is one more in that time
	malformedBytes = 300              // of what is said to be wrong
)

// malformedWarnings limits the warnings about malformed messages. Each reader of the log has its own, since
// they run side by side.
type malformedWarnings struct {
	limit   *rate.Limiter
	skipped int // warnings since the last one that was logged
}

func newMalformedWarnings() malformedWarnings {
	return malformedWarnings{limit: rate.NewLimiter(rate.Every(malformedEvery), malformedBurst)}
}

// noteMalformed counts a message of another program that can't be read, and logs it.
func (l *Log) noteMalformed(warnings *malformedWarnings, where string, err error) {
	l.replica.CountMalformed()
	if !warnings.limit.Allow() {
		warnings.skipped++
		return
	}
	l.Logger.Warn("skipping a malformed message in redis", zap.String("at", where),
		zap.String("error", shortened(err.Error())), zap.Int("not_logged", warnings.skipped))
	warnings.skipped = 0
}

// shortened cuts a text that may quote anything.
func shortened(text string) string {
	if len(text) <= malformedBytes {
		return text
	}
	return strings.ToValidUTF8(text[:malformedBytes], "") + "..."
}
