package e2etest

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP proxy that plays the network between two programs, and its
// faults: a cut, a line that swallows everything, latency, a slow link. It is
// made for one direction of trust: whatever is lost, the test said so.
//
// Toxiproxy does as much, but brings an HTTP API, a logger and three further
// modules into go.mod, and can't hold what is on its way as a broken network
// does, to deliver it when the network heals.
//
// Its methods may be called from any goroutine.
type Proxy struct {
	t       testing.TB
	target  string
	address string
	running sync.WaitGroup

	mu       sync.Mutex // guards the rest
	listener net.Listener
	links    map[*link]struct{}
	accepted int
	held     bool
	latency  time.Duration
	rate     int           // bytes per second and direction; 0 = no limit
	changed  chan struct{} // closed and made anew when held changes
	cuts     []int         // after how many bytes from the target the next connections are cut
	between  bool          // they are cut between two events
}

// link is one proxied connection.
type link struct {
	near, far net.Conn
	once      sync.Once
	done      chan struct{} // closed by end
}

func (l *link) end() {
	l.once.Do(func() {
		close(l.done)
		_ = l.near.Close()
		if l.far != nil {
			_ = l.far.Close()
		}
	})
}

// NewProxy starts a proxy for a server at host:port. It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, links: make(map[*link]struct{}), changed: make(chan struct{})}
	if err := p.listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.address = p.listener.Addr().String()
	t.Cleanup(func() {
		p.Cut()
		p.running.Wait()
	})
	return p
}

// Addr returns host and port.
func (p *Proxy) Addr() string { return p.address }

// URL returns redis://host:port.
func (p *Proxy) URL() string { return "redis://" + p.address }

// Accepted returns how many connections there have been.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Cut ends all connections and refuses new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for l := range p.links {
		l.end()
	}
}

// Break ends all connections that there are; new ones are welcome.
func (p *Proxy) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.end()
	}
}

// CutAfter has one connection cut for each of these numbers, once so many bytes have come from the target: each
// time the first that gets as far.
func (p *Proxy) CutAfter(sizes ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts, p.between = sizes, false
}

// CutBetweenEvents is CutAfter that waits for the end of an event, which is an empty line.
func (p *Proxy) CutBetweenEvents(sizes ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts, p.between = sizes, true
}

// untilCut returns as much of a piece as the line carries, after so many bytes, and whether it is then cut.
func (p *Proxy) untilCut(carried int, piece []byte) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.cuts) == 0 || carried+len(piece) < p.cuts[0] {
		return piece, false
	}
	left := max(0, p.cuts[0]-carried)
	if p.between {
		end := bytes.Index(piece[left:], []byte("\n\n"))
		if end < 0 {
			return piece, false
		}
		left += end + len("\n\n")
	}
	p.cuts = p.cuts[1:]
	return piece[:left], true
}

// Hold lets nothing through any more and tells nobody, as a network that has
// lost a route: connections stay open, also new ones, and what is sent waits
// for Heal. That includes the ends of connections.
func (p *Proxy) Hold() { p.hold(true) }

// Slow delays all that goes through, and lets only so many bytes per second and
// direction pass; 0 is without limit.
func (p *Proxy) Slow(latency time.Duration, bytesPerSecond int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency, p.rate = latency, bytesPerSecond
}

// Heal undoes all faults.
func (p *Proxy) Heal() {
	p.t.Helper()
	p.Slow(0, 0)
	p.hold(false)
	p.mu.Lock()
	cut := p.listener == nil
	p.mu.Unlock()
	if cut {
		if err := p.listen(p.address); err != nil {
			p.t.Errorf("healing a proxy: %v", err)
		}
	}
}

func (p *Proxy) hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) listen(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = listener
	p.running.Go(func() { p.accept(listener) })
	return nil
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		l := &link{near: conn, done: make(chan struct{})}
		p.mu.Lock()
		if p.listener == listener {
			p.accepted++
			p.links[l] = struct{}{}
			p.running.Go(func() { p.serve(l) })
		} else {
			l.end()
		}
		p.mu.Unlock()
	}
}

func (p *Proxy) serve(l *link) {
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
		l.end()
	}()
	if p.pass(l) != nil {
		return
	}
	far, err := net.DialTimeout("tcp", p.target, patience)
	if err != nil {
		return
	}
	p.mu.Lock()
	l.far = far
	p.mu.Unlock()
	select {
	case <-l.done: // it ended before it had far
		_ = far.Close()
		return
	default:
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, l.near, far) })
	p.pump(l, far, l.near)
	pumps.Wait()
}

var errEnded = errors.New("the connection has ended")

// pass waits while the proxy holds everything.
func (p *Proxy) pass(l *link) error {
	for {
		p.mu.Lock()
		held, changed := p.held, p.changed
		p.mu.Unlock()
		select {
		case <-l.done:
			return errEnded
		default:
		}
		if !held {
			return nil
		}
		select {
		case <-changed:
		case <-l.done:
		}
	}
}

// parcel is what was read at once; nothing is the end of the connection.
type parcel struct {
	content []byte
	sent    time.Time
}

// pump carries one direction of a connection until its end, and so ends it.
func (p *Proxy) pump(l *link, from, to net.Conn) {
	defer l.end()
	parcels := make(chan parcel, 4096)
	p.running.Go(func() {
		defer close(parcels)
		for {
			content := make([]byte, 16<<10)
			n, err := from.Read(content)
			select {
			case parcels <- parcel{content[:n], time.Now()}:
			case <-l.done:
				return
			}
			if err != nil {
				return
			}
		}
	})
	carried := 0
	for x := range parcels {
		cut := false
		if from == l.far {
			x.content, cut = p.untilCut(carried, x.content)
			carried += len(x.content)
		}
		p.mu.Lock()
		latency, rate := p.latency, p.rate
		p.mu.Unlock()
		time.Sleep(time.Until(x.sent.Add(latency)))
		for len(x.content) > 0 {
			if p.pass(l) != nil {
				return
			}
			some := x.content
			if rate > 0 {
				some = some[:min(len(some), max(1, rate/100))]
			}
			if _, err := to.Write(some); err != nil {
				return
			}
			x.content = x.content[len(some):]
			if rate > 0 {
				time.Sleep(time.Duration(len(some)) * time.Second / time.Duration(rate))
			}
		}
		if cut {
			return
		}
	}
	_ = p.pass(l)
}
