//go:build holdtimes && linux

package hub

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lock is a mutex that notes for how long its holders are at work, by the function that took it. It counts the
// processor time of the holder's thread, so that what else runs on the machine does not matter.
type lock struct {
	mu    sync.Mutex
	began time.Duration
}

func (l *lock) Lock() {
	l.mu.Lock()
	runtime.LockOSThread()
	l.began = threadTime()
}

func (l *lock) Unlock() {
	held := threadTime() - l.began
	l.mu.Unlock()
	runtime.UnlockOSThread()
	holds.note(held)
}

func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}

// holds is what all locks of the process have noted.
var holds holdTimes

type holdTimes struct {
	mu     sync.Mutex // guards byName
	byName map[string][]time.Duration
}

func (t *holdTimes) note(held time.Duration) {
	name := holder()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byName == nil {
		t.byName = make(map[string][]time.Duration)
	}
	t.byName[name] = append(t.byName[name], held)
}

// holder returns the name of the function that unlocks, or on whose behalf that is done.
func holder() string {
	var callers [8]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(4, callers[:])])
	for {
		f, more := frames.Next()
		name := f.Function[strings.LastIndexByte(f.Function, '.')+1:]
		if name != "pauseLocked" || !more {
			return name
		}
	}
}

// take returns what was noted since it was called last: for each function the number of holds, the time that all
// but one in a thousand kept to, and the longest.
func (t *holdTimes) take() map[string]holdTime {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]holdTime, len(t.byName))
	for name, times := range t.byName {
		slices.Sort(times)
		all[name] = holdTime{
			len(times), times[len(times)/2], times[len(times)*999/1000], times[len(times)-1],
		}
	}
	t.byName = nil
	return all
}

type holdTime struct {
	n                       int
	median, mostOften, most time.Duration
}
