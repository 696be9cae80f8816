package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// verdicts are what publishers were told of their messages: whether they are published.
type verdicts struct {
	yes, unknown []string
	all          []string
}

// note notes what Publish said of a message.
func (v *verdicts) note(t *trial, text string, err error) {
	t.Helper()
	v.all = append(v.all, text)
	switch {
	case err == nil:
		v.yes = append(v.yes, text)
	case errors.Is(err, broker.ErrUnknownOutcome):
		v.unknown = append(v.unknown, text)
	case errors.Is(err, broker.ErrUnavailable),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, hub.ErrHubClosed), errors.Is(err, hub.ErrDraining):
	default:
		t.Errorf("Publish returns %v; wrap ErrUnavailable or ErrUnknownOutcome", err)
	}
}

// check holds what a client got, gaps aside, against the verdicts.
func (v *verdicts) check(t *trial, got []string) {
	t.Helper()
	count := make(map[string]int)
	for _, text := range got {
		count[text]++
	}
	for _, text := range v.all {
		n := count[text]
		switch {
		case n > 1:
			t.Errorf("message %q was published once; a client got it %d times", text, n)
		case slices.Contains(v.unknown, text):
		case slices.Contains(v.yes, text) && n == 0:
			t.Errorf("message %q was acknowledged; no client gets it", text)
		case !slices.Contains(v.yes, text) && n > 0:
			t.Errorf("message %q was refused; a client gets it", text)
		}
	}
}

func checkDoneContext(t *trial) {
	const posts = 50
	i := t.start()
	r := i.join(to(common))
	done, cancel := context.WithCancel(t.Context())
	cancel()
	var v verdicts
	for n := range posts {
		p := keyed(fmt.Sprint("key ", n), fmt.Sprint(n))
		p.Ephemeral = n%5 == 4
		_, err := i.tryPublish(done, p)
		v.note(t, fmt.Sprint(n), err)
	}
	// The keys of what was refused are free, and those of the rest are not.
	for n := range posts {
		p := keyed(fmt.Sprint("key ", n), fmt.Sprint(n))
		p.Ephemeral = n%5 == 4
		i.publish(p)
		text := fmt.Sprint(n)
		if p.Repeated != slices.Contains(v.yes, text) && !slices.Contains(v.unknown, text) {
			t.Errorf("message %q is called repeated: %t; it was published before: %t", text, p.Repeated, !p.Repeated)
		}
	}
	r.await("all messages", func(all []event) bool { return len(all) >= posts })
	i.publish(post("end"))
	r.awaitText("end")
	i.stop()
	v.yes, v.unknown = v.all, nil // by now
	v.check(t, texts(r.got()))
}

func checkEndedHub(t *trial) {
	for how, end := range map[string]func(*hub.Hub){"closed": (*hub.Hub).Close, "draining": (*hub.Hub).Drain} {
		i := newTrial(t.TB, t.Subject, t.patience, t.moment).start()
		first := post("first")
		i.publish(first)
		end(i.Hub)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(t.moment, cancel) // as a server that ends does
		var v verdicts
		p := keyed("key", "last")
		_, err := i.tryPublish(ctx, p)
		v.note(t, "last", err)
		i.stop()
		cancel()
		if !t.Persistent {
			if err == nil {
				t.Errorf("the hub is %s and nobody will ever get the message; Publish says that it is published", how)
			}
			continue
		}
		reopened := i.t.start()
		r := reopened.join(back(first.Receipt.ID, common))
		reopened.publish(post("end"))
		v.check(t, texts(r.awaitText("end")))
	}
}

func checkClose(t *trial) {
	i := t.start()
	r := i.join(to(common))
	if _, err := i.tryPublish(t.Context()); err != nil {
		t.Errorf("publishing nothing: %v", err)
	}
	i.publish(post("1"), keyed("key", "2"))
	i.publish(ephemeral("3"))
	i.stop()
	position, seen := i.Hub.Position(), texts(r.got())
	if t.Shared {
		other := t.start()
		other.publish(post("4"), ephemeral("5"))
		other.stop()
	}
	if after := i.Hub.Position(); after != position {
		t.Errorf("after Close the log brings its hub from %s to %s", position, after)
	}
	i.Hub.Close()
	_ = r.awaitEnd()
	for _, text := range texts(r.got()) {
		if text == "4" || text == "5" {
			t.Errorf("after Close the log delivers %q; a client had %q", text, seen)
		}
	}
}

func checkOutage(t *trial) {
	const posts = 10
	i := t.start()
	var told atomic.Pointer[error]
	i.Hub.BrokerChanged = func(up bool, err error) {
		if !up {
			told.Store(&err)
		}
	}
	r := i.join(to(common))
	var v verdicts
	publish := func(text string) error {
		_, err := i.tryPublish(t.Context(), keyed("key "+text, text))
		v.note(t, text, err)
		return err
	}
	for n := range posts {
		_ = publish(fmt.Sprint("before ", n))
	}
	mend := t.Break(t, t.module)
	for n := range posts {
		if publish(fmt.Sprint("within ", n)) == nil && n == posts-1 {
			t.Error("the log is out of reach and Publish says that it is published")
		}
	}
	t.await("the hub to hear that the log can't be used", func() bool { return !i.Hub.LogUp() })
	if err := told.Load(); err == nil || *err == nil {
		t.Error("the operator is not told why the log can't be used")
	}
	mend()
	t.await("the hub to hear that the log can be used again", i.Hub.LogUp)
	for n := range posts {
		text := fmt.Sprint("after ", n)
		t.await("publishing to work again", func() bool {
			_, err := i.tryPublish(t.Context(), keyed("key "+text, text))
			return err == nil
		})
		v.yes, v.all = append(v.yes, text), append(v.all, text)
	}
	for _, text := range v.unknown { // a publisher repeats those
		i.publish(keyed("key "+text, text))
	}
	v.yes, v.unknown = append(v.yes, v.unknown...), nil
	i.publish(post("end"))
	got := texts(r.awaitText("end"))
	if slices.Contains(got, gapName) {
		v.unknown = v.yes // what was missed was told
	}
	v.check(t, got)
}
