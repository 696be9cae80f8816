package brokertest

import (
	"errors"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// What follows tests logs that are a broker.Purger. Others pass.

// purge purges addresses. It reports whether the log can.
func (i *instance) purge(to ...hub.Address) (can bool, err error) {
	i.t.Helper()
	log, can := i.log.(broker.Purger)
	if !can {
		return false, nil
	}
	if hangs := i.call("Purge", func() { err = log.Purge(i.t.Context(), hub.Purge{To: to}) }); hangs != nil {
		err = hangs
	}
	return true, err
}

// mustPurge purges addresses, which must succeed if the log can do it at all.
func (i *instance) mustPurge(to ...hub.Address) (can bool) {
	i.t.Helper()
	can, err := i.purge(to...)
	if err != nil {
		i.t.Fatalf("purging %v: %v", to, err)
	}
	return can
}

// wantGap checks that a client that comes back is told a gap, and gets what is left.
func (i *instance) wantGap(id, topic string, want ...string) {
	i.t.Helper()
	r := i.join(back(id, topic))
	if r.Resume != hub.ResumeGap {
		i.t.Errorf("a client that comes back with %s to what was purged is told %q", id, r.Resume)
	}
	end := message("end of "+r.client.ClientID, hub.Topics(topic)...)
	i.publish(end)
	r.want("a client that comes back to what was purged", append(want, string(end.Data))...)
}

// publishToPurge publishes what the tests purge: on the common topic, on another, and on both. It returns the ID from
// before.
func (i *instance) publishToPurge() (before string) {
	r := i.join(to(common, "b"))
	i.publish(post("1"), message("both", hub.Topics(common, "b")...), message("b", hub.Topics("b")...), post("2"))
	r.want("a client gets what is published", "1", "both", "b", "2")
	before = r.ID
	_ = r.leave()
	return before
}

func checkPurge(t *trial) {
	i := t.start()
	before := i.publishToPurge()
	here := i.join(to(common))
	if !i.mustPurge(hub.Topics(common, "nothing here")...) {
		return
	}
	i.publish(post("3"))
	here.want("a client that is here notices nothing of a purge", "3")
	i.wantGap(before, common, "3")
	i.join(back(before, "b")).want("the other topic keeps what it has", "both", "b")
}

func checkReopenedPurge(t *trial) {
	first := t.start()
	before := first.publishToPurge()
	if !first.mustPurge(hub.Topics(common)...) {
		return
	}
	first.stop()
	second := t.start()
	second.wantGap(before, common)
	second.join(back(before, "b")).want("the other topic keeps what it has", "both", "b")
}

func checkSharedPurge(t *trial) {
	one, other := t.start(), t.start()
	before := one.publishToPurge()
	here := other.join(back(before, common))
	here.want("a client on another instance", "1", "both", "2")
	if !one.mustPurge(hub.Topics(common)...) {
		return
	}
	one.publish(post("3"))
	here.want("a client that is here notices nothing of a purge", "1", "both", "2", "3")
	other.wantGap(before, common, "3")
}

func checkPurgeInOutage(t *trial) {
	i := t.start()
	before := i.publishToPurge()
	mend := t.Break(t, t.module)
	can, err := i.purge(hub.Topics(common)...)
	mend()
	if !can {
		return
	}
	if !errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, broker.ErrUnknownOutcome) {
		t.Errorf("a purge while the log is out of reach returns %v", err)
	}
	t.await("the log to be in reach again", i.Hub.LogUp)
	if errors.Is(err, broker.ErrUnavailable) {
		i.wantComplete(before, "1", "both", "2")
	}
}
