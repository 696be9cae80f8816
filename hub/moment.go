package hub

import (
	"math"
	"time"
)

// moment is a time as a hub counts it: since a little before it was made. The zero moment is never.
type moment time.Duration

// after returns the moment that much later, or the last that there is.
func (m moment) after(d time.Duration) moment { return m + min(moment(d), math.MaxInt64-m) }

func (m moment) since(earlier moment) time.Duration { return time.Duration(m - earlier) }

// due reports whether m has come.
func (m moment) due(now moment) bool { return m != 0 && now >= m }
