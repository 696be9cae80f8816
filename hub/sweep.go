package hub

import (
	"reflect"
	"runtime"
	"time"
)

// sweepInterval is how often silent topics and forgotten owners are looked through.
const sweepInterval = time.Minute

// Apply makes other limits hold. Clients beyond a lowered MaxClients stay. What is kept beyond the limits is dropped
// in steps: by the time Apply returns the addresses that anybody looks at keep no more than they may.
func (h *Hub) Apply(limits Limits) {
	h.mu.Lock()
	changed := h.limits.History != limits.History || !reflect.DeepEqual(h.limits.Policies, limits.Policies)
	presenceChanged := !samePresence(h.limits.Policies, limits.Policies)
	h.limits = limits
	if changed {
		h.policies.Store(newPolicies(limits.Policies))
		h.history.setLimits(limits.History, h.policies.Load())
	}
	if changed {
		h.leaveAllLocked() // it was held by other rules
	}
	h.mu.Unlock()
	if changed {
		h.trimAll()
	}
	if presenceChanged {
		h.applyPresence()
	}
}

// trimAll has every log follow the limits and its policy, and trims it to them, in steps.
func (h *Hub) trimAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	history := h.history
	for at := history.all.n - 1; at >= 0 && h.history == history; {
		at = min(at, history.all.n-1) // what has moved there from behind was looked at
		now := time.Now()
		for steps := maxStep; steps > 0 && at >= 0; steps -= 4 { // to find a log takes longer than to drop a message
			l := *history.all.at(at)
			history.setPolicy(l)
			dropped := history.trim(l, now)
			if steps -= dropped; dropped < maxStep { // else there may be more
				at--
			}
			at = min(at, history.all.n-1)
		}
		h.pauseLocked()
	}
	for h.history == history && !history.trimBytes() {
		h.pauseLocked()
	}
}

// pauses let others have the lock now and then, during a long walk through what it guards. A walk through a map sees
// all that is there from its begin to its end.
type pauses struct {
	hub   *Hub
	steps int
}

func (h *Hub) pausesLocked() *pauses { return &pauses{hub: h} }

// step counts a step of the walk.
func (p *pauses) step() {
	if p.steps++; p.steps%maxStep == 0 {
		p.hub.pauseLocked()
	}
}

// pauseLocked lets others have the lock.
func (h *Hub) pauseLocked() {
	h.mu.Unlock()
	runtime.Gosched()
	h.mu.Lock()
}

// sweep ages silent topics, drops what was kept for clients that caught up, and forgets bars and owners whose time is
// over.
func (h *Hub) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for h.ended == nil {
		done := h.history.trimOld(now)
		done = h.history.trimOverdue(now) && done
		done = h.history.trimBytes() && done
		if done = h.forgetExpiredLocked(now) && done; done {
			h.sweepAt.Reset(sweepInterval)
			return
		}
		h.pauseLocked()
	}
}
