package brokertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

func checkStart(t *trial) {
	h := newHub()
	before := h.Position().Epoch
	var down atomic.Int64
	h.BrokerChanged = func(up bool, _ error) {
		if !up {
			down.Add(1)
		}
	}
	i := t.open()
	i.Hub = h
	early := i.join(to(common))
	i.startOn(h)
	if p := h.Position(); p.Epoch == before || p.Epoch == "" {
		t.Errorf("after Start the hub's log is named %q; want a name of its own, by Follow", p.Epoch)
	}
	late := i.join(to(common))
	i.publish(post("1"))
	early.want("who was here before the log is told a gap, by Announce, and then what comes", gapName, "1")
	late.want("who came after it is told no gap", "1")
	if late.Resume != hub.ResumeNone || t.mustParse(late.ID).Epoch != h.Position().Epoch {
		t.Errorf("a new client begins at %s with resume %q", late.ID, late.Resume)
	}
	i.stop()
	if n := down.Load(); n > 0 {
		t.Errorf("the hub heard %d times that the log can't be used", n)
	}
}

// publishers publish at the same time, on all of the instances.
type publishers struct {
	mu        sync.Mutex        // guards all below
	receipts  map[string]string // IDs by text
	ephemeral int
}

const (
	publisherCount = 4 // for each instance
	batchCount     = 25
)

// run publishes batches of kept and ephemeral messages, and ends with "end". Each text names its publisher
// and its place among that one's.
func (p *publishers) run(t *trial, instances ...*instance) {
	t.Helper()
	p.receipts = make(map[string]string)
	var all sync.WaitGroup
	for n, i := range instances {
		for publisher := range publisherCount {
			all.Go(func() { p.publishOne(t, i, fmt.Sprint(n, ".", publisher)) })
		}
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	end := post("end")
	instances[0].publish(end)
	p.receipts["end"] = end.Receipt.ID
}

func (p *publishers) publishOne(t *trial, i *instance, name string) {
	next := 0
	for b := range batchCount {
		var batch []*broker.Publication
		var names []string
		for range b%3 + 1 {
			names = append(names, fmt.Sprintf("%s-%03d", name, next))
			m := message(names[len(names)-1], hub.Topics([]string{common, "b", "c/1"}[next%3])...)
			m.Ephemeral = next%5 == 4
			batch = append(batch, m)
			next++
		}
		if _, err := i.tryPublish(t.Context(), batch...); err != nil {
			t.Errorf("publishing: %v", err)
			return
		}
		p.mu.Lock()
		for k, m := range batch {
			if m.Repeated {
				t.Errorf("a message without a key is called a repetition")
			}
			p.receipts[names[k]] = m.Receipt.ID
			if m.Receipt.ID == "" {
				p.ephemeral++
			}
		}
		p.mu.Unlock()
	}
}

// check holds what readers saw against what publishers were told: everything once, in one order, each at its
// place.
func (p *publishers) check(t *trial, readers ...*reader) {
	t.Helper()
	var order []string
	for n, r := range readers {
		all := r.await("all messages", func(all []event) bool { return len(all) >= len(p.receipts) })
		seen := make(map[string]bool)
		var last hub.ID
		newest := make(map[string]string) // text by publisher
		var kept []string
		for _, e := range all {
			text := string(e.Data)
			id, published := p.receipts[text]
			publisher, _, _ := strings.Cut(text, "-")
			switch {
			case e.Name == gapName:
				t.Fatalf("a client is told a gap where nothing is missing: %s", text)
			case !published || seen[text]:
				t.Fatalf("a client got %q twice, or nobody published it", text)
			case id != e.ID:
				t.Fatalf("a client got %q with the ID %q; its publisher was told %q", text, e.ID, id)
			}
			seen[text] = true
			if id == "" {
				continue
			}
			parsed := t.mustParse(id)
			switch {
			case last.Epoch != "" && (parsed.Epoch != last.Epoch || !parsed.Position.After(last.Position)):
				t.Fatalf("a client got the ID %s after %s", parsed, last)
			case newest[publisher] >= text && publisher != text:
				t.Fatalf("a client got %q after %q, which was published later", text, newest[publisher])
			}
			last, newest[publisher] = parsed, text
			kept = append(kept, e.block)
		}
		if n == 0 {
			order = kept
		} else if !slices.Equal(kept, order) {
			t.Fatalf("two clients got two orders: %q and %q", brief(order), brief(kept))
		}
	}
}

func checkOrder(t *trial) {
	i := t.start()
	one, other := i.join(to(common, "b", "c/1")), i.join(to("**"))
	var p publishers
	p.run(t, i)
	p.check(t, one, other)
	if p.ephemeral == 0 || p.ephemeral == len(p.receipts) {
		t.Errorf("%d of %d messages have no ID; want the ephemeral ones", p.ephemeral, len(p.receipts))
	}
}

// forms are messages of all kinds, for a client "me" of the user "I" that listens to a and b.
func forms() []*broker.Publication {
	full := post("first line\nsecond line\n\n  last: line ☃ \"'<&\\")
	full.Event, full.Message.Key, full.Retry, full.HasRetry = "weather: \"snow\" ☃", "Zürich 1", 1500, true
	shortest := post("the shortest delay there is")
	shortest.Retry, shortest.HasRetry = 100, true
	return []*broker.Publication{
		full, shortest,
		post(""),
		message("several", hub.Topics("b", common, "elsewhere", common)...),
		message("me", hub.Address{Kind: hub.ToClient, Name: "me"}),
		message("I", hub.Address{Kind: hub.ToUser, Name: "I"}),
		message("all", hub.Address{Kind: hub.ToBroadcast}),
		post(strings.Repeat("long ", 20_000)),
	}
}

func checkFields(t *trial) {
	i := t.start()
	r := i.join(as("me", "I", common, "b"))
	i.publish(message("not for me", hub.Topics("elsewhere")...))
	for _, kept := range []bool{true, false} {
		before := len(r.got())
		for n, p := range forms() {
			p.Ephemeral = !kept
			want := *p.Message
			i.publish(p)
			came := func(all []event) bool { return len(all) > before+n }
			e := r.await(fmt.Sprintf("message %d of all kinds", n+1), came)[before+n]
			if string(e.Data) != string(want.Data) || e.Name != want.Event ||
				e.HasRetry != want.HasRetry || e.Retry != want.Retry {
				t.Errorf("a client got %.200q of a message with event %q, retry %d (%t) and data %.100q",
					e.block, want.Event, want.Retry, want.HasRetry, want.Data)
			}
			if e.ID != p.Receipt.ID || (e.ID != "") != kept {
				t.Errorf("a client got the ID %q; its publisher was told %q", e.ID, p.Receipt.ID)
			}
		}
	}
}

func checkReceivers(t *trial) {
	i := t.start()
	i.join(as("one", "", "x/1", "x/2"))
	i.join(as("two", "u", "x/*"))
	for _, c := range []struct {
		to   []hub.Address
		want int
	}{
		{hub.Topics("x/1"), 2},
		{hub.Topics("x/1", "x/2"), 2},
		{hub.Topics("x/3"), 1},
		{hub.Topics("y"), 0},
		{[]hub.Address{{Kind: hub.ToClient, Name: "one"}}, 1},
		{[]hub.Address{{Kind: hub.ToClient, Name: "three"}}, 0},
		{[]hub.Address{{Kind: hub.ToUser, Name: "u"}}, 1},
		{[]hub.Address{{Kind: hub.ToBroadcast}}, 2},
	} {
		kept, passing := message("1", c.to...), message("2", c.to...)
		passing.Ephemeral = true
		i.publish(kept, passing)
		for _, p := range []*broker.Publication{kept, passing} {
			// A client that several addresses reach may count for each.
			if got := p.Receipt.Receivers; got < c.want || got > c.want*len(c.to) {
				t.Errorf("a message to %v has %d receivers; want %d", c.to, p.Receipt.Receivers, c.want)
			}
		}
	}
}

// checkPace has a client that this machine does not get round to. Whoever delivers is to wait for it, or
// messages pile up without end.
func checkPace(t *trial) {
	const posts, batches, mayWait = 10, 400, 2000 // the hub lets about a thousand gather
	i := t.start()
	r := i.joinPaused(to(common))
	published := make(chan struct{})
	go func() {
		defer close(published)
		for range batches {
			batch := make([]*broker.Publication, posts)
			for n := range batch {
				batch[n] = post(fmt.Sprint(n))
			}
			if _, err := i.tryPublish(t.Context(), batch...); err != nil {
				t.Errorf("publishing: %v", err)
				return
			}
		}
	}()
	select {
	case <-published: // the log may wait elsewhere
	case <-time.After(t.moment):
	}
	waiting := len(i.Hub.ListMessages(common, posts*batches))
	close(r.reads)
	all := texts(r.await("all messages", func(all []event) bool { return len(all) >= posts*batches }))
	<-published
	if waiting > mayWait {
		t.Errorf("%d messages waited for a client whose turn had not come; call Hub.Wait after Deliver", waiting)
	}
	for n, text := range all {
		if text != fmt.Sprint(n%posts) {
			t.Fatalf("a client that is well misses messages; it got %q", brief(all))
		}
	}
}
