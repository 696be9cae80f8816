package hub

import (
	"container/heap"
	"time"
)

// aging is a heap of the logs whose messages have a maximum age: the one is first that is to be looked at first. What
// is due is no later than when the log's oldest message is too old.
type aging []*addressLog

func (a aging) Len() int           { return len(a) }
func (a aging) Less(i, j int) bool { return a[i].due < a[j].due }

func (a aging) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].agingSlot, a[j].agingSlot = i, j
}

func (a *aging) Push(l any) {
	l.(*addressLog).agingSlot = len(*a)
	*a = append(*a, l.(*addressLog))
}

func (a *aging) Pop() any {
	last := len(*a) - 1
	l := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	return l
}

// age notes when to look for messages of a log that are too old, if they ever are.
func (h *history) age(l *addressLog) {
	age := h.retention(l).Age
	if age == 0 {
		h.ageNot(l)
		return
	}
	h.lookAt(l, l.frames[0].time+int64(age))
}

// lookAt has a log looked at, at some time or later.
func (h *history) lookAt(l *addressLog, due int64) {
	if l.due == due {
		return
	}
	pending := l.due != 0
	if l.due = due; pending {
		heap.Fix(&h.aging, l.agingSlot)
	} else {
		heap.Push(&h.aging, l)
	}
}

// ageNot lets a log be, as far as age goes.
func (h *history) ageNot(l *addressLog) {
	if l.due != 0 {
		heap.Remove(&h.aging, l.agingSlot)
		l.due = 0
	}
}

// trimOld drops what is too old, of all logs. It reports whether that is done.
func (h *history) trimOld(now time.Time) (done bool) {
	for steps := maxStep; steps > 0; steps-- {
		if len(h.aging) == 0 || h.aging[0].due >= now.UnixNano() {
			return true
		}
		l := h.aging[0]
		steps -= h.trim(l, now)
		if len(l.frames) == 0 {
			continue
		}
		if h.age(l); l.due < now.UnixNano() && l.frames[0].seq >= h.pin { // until the pin is gone
			h.lookAt(l, now.Add(sweepInterval).UnixNano())
		}
	}
	return false
}
