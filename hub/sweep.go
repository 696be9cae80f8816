package hub

import (
	"runtime"
	"time"
)

// sweepInterval is how often silent topics and forgotten owners are looked through.
const sweepInterval = time.Minute

// Apply makes other limits hold. Clients beyond a lowered MaxClients stay. What is kept beyond the limits is dropped
// in steps: by the time Apply returns the addresses that anybody looks at keep no more than they may.
func (h *Hub) Apply(limits Limits) {
	h.mu.Lock()
	changed := h.limits.History != limits.History
	h.limits = limits
	h.history.limits = limits.History
	h.mu.Unlock()
	if changed {
		h.trimAll()
	}
}

// trimAll trims every log to the limits, in steps.
func (h *Hub) trimAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	history := h.history
	for at := len(history.all) - 1; at >= 0 && h.history == history; {
		at = min(at, len(history.all)-1) // what has moved there from behind was looked at
		now := time.Now()
		for range maxStep / 4 {
			if at < 0 {
				break
			}
			if l := history.all[at]; len(l.frames) > history.limits.Count || history.limits.Age > 0 {
				history.trim(l, now)
			}
			at--
		}
		h.pauseLocked()
	}
	for h.history == history && !history.trimBytes() {
		h.pauseLocked()
	}
}

// pauseLocked lets others have the lock.
func (h *Hub) pauseLocked() {
	h.mu.Unlock()
	runtime.Gosched()
	h.mu.Lock()
}

// sweep ages silent topics, and forgets bars and owners whose time is over.
func (h *Hub) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for h.ended == nil {
		if old, expired := h.history.trimOld(now), h.forgetExpiredLocked(now); old && expired {
			h.sweepAt.Reset(sweepInterval)
			return
		}
		h.pauseLocked()
	}
}
