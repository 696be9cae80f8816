package hub

import (
	"math"
	"sync"
	"time"
)

// moment is a time as a hub counts it: since a little before it was made. The zero moment is never.
type moment time.Duration

// after returns the moment that much later, or the last that there is.
func (m moment) after(d time.Duration) moment { return m + min(moment(d), math.MaxInt64-m) }

func (m moment) since(earlier moment) time.Duration { return time.Duration(m - earlier) }

// due reports whether m has come.
func (m moment) due(now moment) bool { return m != 0 && now >= m }

// epochTime tells moments.
type epochTime struct {
	began time.Time

	mu   sync.Mutex // guards wall
	wall time.Time  // when it began by the clock on the wall; looked up again when that was set
}

func newEpochTime() *epochTime { return &epochTime{began: time.Now().Add(-1)} }

func (k *epochTime) now() moment { return moment(time.Since(k.began)) }

func (k *epochTime) moment(t time.Time) moment { return moment(t.Sub(k.began)) }

// fromWall converts a wall-clock time. Later clock adjustments are not followed. The zero time gives the zero
// moment: never.
func (k *epochTime) fromWall(t time.Time) moment {
	if t.IsZero() {
		return 0
	}
	return k.now().after(time.Until(t))
}

// time returns when a moment was by the clock on the wall: the same each time, unless that was set by more than a second.
func (k *epochTime) time(m moment) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	began := time.Now().Round(0).Add(-time.Duration(k.now()))
	if began.Sub(k.wall).Abs() > time.Second {
		k.wall = began
	}
	return k.wall.Add(time.Duration(m)).Round(time.Millisecond)
}
