package hub

import (
	"cmp"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// availability is whether a hub's log is in reach and takes messages, as far as its broker knows.
type availability struct {
	reach    atomic.Int32
	refusing atomic.Bool // it takes no messages, even if it is in reach

	found atomic.Bool // whether the hub has had a log at all

	mu       sync.Mutex // held while the above change, and BrokerChanged is told; goes before Hub.mu
	toldDown bool       // what BrokerChanged was told last
	away     error      // why the log is out of reach; nil if it is not, or nothing was tried yet
	refusal  error      // why the log takes no messages; nil if it does
	up       bool       // what LogUp was at since
	since    time.Time  // when LogUp changed last, or the log was replaced
}

// LogState is whether a log is in reach and takes messages, and since when.
type LogState struct {
	Up    bool
	Since time.Time
	Err   error // why it is not up; nil if it is
}

// errUntried is why a log is not up at the beginning.
var errUntried = errors.New("the log has not been reached yet")

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

// LogState returns what is known of the log without asking it.
func (h *Hub) LogState() LogState {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	state := LogState{Up: h.LogUp(), Since: h.log.since}
	if !state.Up {
		state.Err = cmp.Or(h.log.away, h.log.refusal, errUntried)
	}
	return state
}

// HasHadLog reports whether the hub has ever had a log. What becomes of the log later changes nothing.
func (h *Hub) HasHadLog() bool { return h.log.found.Load() }

// LogFound notes that the log is in reach. A broker calls it when its log can be used, and again after LogLost.
func (h *Hub) LogFound() {
	if h.LogInReach() {
		return
	}
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.reach.Store(inReach)
	h.log.found.Store(true)
	h.log.away = nil
	h.tellAvailabilityLocked(nil)
}

// LogLost notes that the log is out of reach, because of err. Nobody waits any longer for what it may have.
func (h *Hub) LogLost(err error) {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.reach.Store(outOfReach)
	h.log.away = err
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
	h.log.refusal = err
	h.tellAvailabilityLocked(err)
}

// LogReplaced notes that the hub gets another broker, of whose log nothing is known yet.
func (h *Hub) LogReplaced() {
	h.guests.unshare()
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.reach.Store(reachUnknown)
	h.log.refusing.Store(false)
	h.log.away, h.log.refusal = nil, nil
	h.log.up, h.log.since = false, time.Now()
}

// tellAvailabilityLocked notes since when the log is up or not. It tells BrokerChanged that it is up, or that
// it is not because of err, if that is news.
func (h *Hub) tellAvailabilityLocked(err error) {
	up := h.LogUp()
	if h.log.up != up {
		h.log.up, h.log.since = up, time.Now()
	}
	if !up && err == nil || h.log.toldDown == !up {
		return
	}
	h.log.toldDown = !up
	if h.BrokerChanged != nil {
		h.BrokerChanged(up, err)
	}
}
