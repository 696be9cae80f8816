package hub

// What follows lets tests outside of the package see what no other code is to see.

const (
	SweepInterval = sweepInterval
	BarTime       = barTime
	MaxShown      = maxShown
	OtherCause    = otherCause
	MaxArrivals   = maxArrivals
	MaxExpiries   = maxExpiries
	MaxLeft       = maxLeft
	MostExcess    = mostExcess
)

// Shrink makes a hub do, and hold, little at once, so that a test comes to what else only long logs come to.
func Shrink(h *Hub, ring uint64, logs, turn int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most = measures{
		ringFrames: ring, ringBytes: int(ring) * 200, logs: logs,
		turnFrames: turn, turnBytes: turn * 200, turnLooks: turn, batch: turn, topUp: 1,
	}
}

// Causes returns the causes that have names of their own.
func Causes() (all []error) {
	for _, cause := range causes {
		all = append(all, cause.err)
	}
	return all
}

// Leftovers is what a hub holds that strangers can make grow, besides clients and messages.
type Leftovers struct {
	Owners, Claims, Bars, Expiries int // of client_ids
	Sources                        int
	Arrivals                       int
	Values                         int // that may give way
	Left                           int
	Listeners                      int // topics, patterns, client_ids and users with clients
	Kept                           int // addresses with messages
	Indexed                        int // topics, patterns, client_ids, users, templates and grants in the shards
	Chosen                         int // IDs that publishers chose
	Appointments, Timers           int
}

// LeftoversOf looks at all of a hub.
func LeftoversOf(h *Hub) (l Leftovers) {
	h.mu.Lock()
	o := &h.owners
	l.Owners, l.Claims, l.Bars, l.Expiries = len(o.byID), len(o.claimed), len(o.bars), o.expiry.n+o.barOrder.n
	l.Values, l.Chosen = len(h.values), len(h.chosen)
	l.Sources, l.Arrivals, l.Left = len(h.sources), len(h.arrivals), len(h.past.Left)
	a := h.audience
	l.Listeners = a.all.n + len(a.topics) + a.patterns.Len() + len(a.names[ToClient]) + len(a.names[ToUser])
	l.Kept = h.history.all.n
	h.mu.Unlock()
	h.askShards(func(s *shard) {
		for _, names := range s.index.names {
			l.Indexed += len(names)
		}
		x := &s.index
		l.Indexed += x.patterns.Len() + x.templates.tree.Len() + len(x.grants.names) + x.grants.templates.tree.Len()
		l.Appointments += len(s.appointments)
		if s.timer != nil {
			l.Timers++
		}
	})
	return l
}

// MaxCompressed is up to how many bytes of what is compressed are kept, twice.
const MaxCompressed = maxCompressed

// Shared returns how much is kept of what is compressed.
func Shared(h *Hub) (entries, bytes int) {
	z := &h.gzip
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, c := range []compressed{z.used, z.older} {
		entries += len(c.pieces) + len(c.suffixes)
		bytes += c.bytes
	}
	return entries, bytes
}
