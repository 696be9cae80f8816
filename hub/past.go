package hub

import (
	"math"
	"slices"
)

// Past is which logs a hub has followed. A hub that returns to a log which it has left can't know what its clients
// missed meanwhile, so an ID from before the return proves nothing.
type Past struct {
	// Epoch is the log that the hub follows, or followed last; empty if there was none, or one that is Transient.
	Epoch string `json:"epoch,omitempty"`
	// Since is how far the log had come when the hub returned to it: IDs up to there are from before. It is nil if
	// the hub has never left the log.
	Since *Position `json:"since,omitempty"`
	// Left are the logs that the hub has left, the newest last; at most maxLeft.
	Left []string `json:"left,omitempty"`
	// More says that more logs were left than that: any may be one.
	More bool `json:"more,omitempty"`
}

// maxLeft is how many logs are remembered that a hub has left.
const maxLeft = 64

// past is what a hub knows of its Past. It is guarded by Hub.mu.
type past struct {
	Past
	returning bool       // the log that is followed was left before; Announce ends its restoring
	changed   bool       // since note was called
	note      func(Past) // keeps it for the next process; nil if nobody does
}

// Recall gives a hub, before it follows a log, the past of the hub of that name in processes before. note is called
// with each new past before Announce returns, one call at a time, and keeps it for processes to come.
func (h *Hub) Recall(p Past, note func(Past)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.past = past{Past: p, note: note}
}

// follow notes that a log is followed from now on.
func (p *past) follow(o Origin) {
	if o.Epoch == p.Epoch {
		return
	}
	if p.Epoch != "" {
		p.leave(p.Epoch)
	}
	if o.Transient {
		o.Epoch = ""
	}
	p.changed = p.changed || o.Epoch != p.Epoch
	p.Epoch, p.Since = o.Epoch, nil
	if p.returning = o.Epoch != "" && (p.More || slices.Contains(p.Left, o.Epoch)); p.returning {
		p.Since = &Position{math.MaxUint64, math.MaxUint64} // until Announce
	}
}

func (p *past) leave(epoch string) {
	p.Left = append(slices.Clone(p.Left), epoch)
	if len(p.Left) > maxLeft {
		p.Left, p.More = p.Left[1:], true
	}
}

// restored notes how far the log had come by the return.
func (p *past) restored(last Position) {
	if p.returning {
		epoch := p.Epoch
		p.Left = slices.DeleteFunc(slices.Clone(p.Left), func(left string) bool { return left == epoch })
		p.Since, p.returning = &last, false
	}
}

// proves reports whether an ID of the log that is followed is not from before a return.
func (p *past) proves(id Position) bool { return p.Since == nil || id.After(*p.Since) }

// noteLocked returns what keeps the past, if that has changed. It is called without Hub.mu.
func (p *past) noteLocked() (note func()) {
	if !p.changed || p.note == nil {
		return func() {}
	}
	p.changed = false
	now, keep := p.Past, p.note
	return func() { keep(now) }
}
