package hub

import (
	"sync"
	"sync/atomic"
)

// availability is whether a hub's log is in reach and takes messages, as far as its broker knows.
type availability struct {
	reach    atomic.Int32
	refusing atomic.Bool // it takes no messages, even if it is in reach

	mu       sync.Mutex // held while the above change, and BrokerChanged is told; goes before Hub.mu
	toldDown bool       // what BrokerChanged was told last
}

const (
	reachUnknown int32 = iota // nothing was tried yet
	inReach
	outOfReach
)

// LogUp reports whether the log is in reach and takes messages, as far as is known without asking it.
func (h *Hub) LogUp() bool { return h.LogInReach() && !h.log.refusing.Load() }

// LogInReach reports whether the log is known to be in reach.
func (h *Hub) LogInReach() bool { return h.log.reach.Load() == inReach }

// LogAway reports whether the log is known to be out of reach.
func (h *Hub) LogAway() bool { return h.log.reach.Load() == outOfReach }

// LogFound notes that the log is in reach. A broker calls it when its log can be used, and again after LogLost.
func (h *Hub) LogFound() {
	if h.LogInReach() {
		return
	}
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.reach.Store(inReach)
	h.tellAvailabilityLocked(nil)
}

// LogLost notes that the log is out of reach, because of err. Nobody waits any longer for what it may have.
func (h *Hub) LogLost(err error) {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.reach.Store(outOfReach)
	h.stopAwaiting()
	h.tellAvailabilityLocked(err)
}

// LogRefuses notes that the log takes no messages, because of err; or that it takes them again, if err is nil.
func (h *Hub) LogRefuses(err error) {
	if err == nil && !h.log.refusing.Load() {
		return
	}
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.refusing.Store(err != nil)
	h.tellAvailabilityLocked(err)
}

// LogReplaced notes that the hub gets another broker, of whose log nothing is known yet.
func (h *Hub) LogReplaced() {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.reach.Store(reachUnknown)
	h.log.refusing.Store(false)
}

// tellAvailabilityLocked tells BrokerChanged that the log is up, or that it is not because of err, if that is news.
func (h *Hub) tellAvailabilityLocked(err error) {
	up := h.LogUp()
	if !up && err == nil || h.log.toldDown == !up {
		return
	}
	h.log.toldDown = !up
	if h.BrokerChanged != nil {
		h.BrokerChanged(up, err)
	}
}
