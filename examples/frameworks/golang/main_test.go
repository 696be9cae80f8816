package main

import (
	"math"
	"testing"
	"time"
)

// However long a server is away, the wait stays half a minute, or what the server asked for.
func TestWaitsNeverOverflow(t *testing.T) {
	for retry, about := range map[time.Duration]time.Duration{
		within(0, time.Millisecond):              30 * time.Second,
		within(1000, time.Millisecond):           30 * time.Second,
		within(math.MaxUint64, time.Millisecond): time.Hour,
	} {
		for _, tries := range []int{9, 63, 64, math.MaxInt} {
			at := position{retry: retry, tries: tries}
			if wait := at.wait(); wait < about*3/4 || wait > about*5/4+1 {
				t.Errorf("after %d tries and a retry of %v it waits %v", tries, retry, wait)
			}
		}
	}
	if got := retryAfter("99999999999999999999"); got != time.Hour {
		t.Errorf("an endless Retry-After means %v", got)
	}
}
