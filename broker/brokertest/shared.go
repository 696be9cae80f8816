package brokertest

import (
	"errors"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// checkAlone asks what a log implements beyond what it must, of one instance.
func checkAlone(t *trial) {
	i := t.start()
	r := i.join(as("me", "", common))
	i.publish(post("1"))
	r.awaitText("1")
	if log, ok := i.log.(broker.Follower); ok {
		t.await("a log that is not behind to say so, by Lag", func() bool { return log.Lag() == 0 })
	}
	if log, ok := i.log.(broker.Sizer); ok && log.Size() <= 0 {
		t.Errorf("the file that the log is in has %d bytes", log.Size())
	}
	if log, ok := i.log.(broker.Kicker); ok {
		for _, wait := range []bool{false, true} {
			if n, err := log.Connections(t.Context(), "me", wait); n != 0 || err != nil {
				t.Errorf("a client_id has %d connections on other instances, of which there are none; error %v", n, err)
			}
		}
	}
	if log, ok := i.log.(broker.Claimer); ok {
		s := as("mine", "I")
		log.Claim(t.Context(), &s)
		if err := i.Hub.Admits(s); err != nil {
			t.Errorf("a user may not have a client_id that was nobody's: %v", err)
		}
	}
}

func checkSharedOrder(t *trial) {
	one, other := t.start(), t.start()
	readers := []*reader{one.join(to("**")), other.join(to("**")), other.join(to(common, "b", "c/1"))}
	var p publishers
	p.run(t, one, other)
	p.check(t, readers...)
}

func checkSharedKeys(t *trial) {
	one, other := t.start(), t.start()
	r := other.join(to(common))
	first, again := keyed("key", "1"), keyed("key", "1")
	one.publish(first)
	other.publish(again)
	t.wantRepeated(again, first)
	n, err := other.tryPublish(t.Context(), keyed("key", "other"))
	t.wantReused(n, err, 0)
	n, err = other.checkKeys(keyed("key", "other"))
	t.wantReused(n, err, 0)
	one.publish(post("2"))
	r.want("a message that is repeated on another instance is published once", "1", "2")
}

func checkSharedResume(t *trial) {
	one, other := t.start(), t.start()
	r := one.join(to(common))
	one.publish(post("1"))
	other.publish(post("2"))
	seen := r.want("a client gets what is published on any instance", "1", "2")
	_ = r.leave()
	last := post("3")
	one.publish(last)
	other.wantComplete(seen[0].ID, "2", "3")
	other.wantComplete(last.Receipt.ID) // the other may be behind
	third := t.start()
	third.wantComplete(seen[1].ID, "3")
}

func checkSharedReceivers(t *trial) {
	one, other := t.start(), t.start()
	one.join(to(common))
	gone := other.join(to(common))
	other.join(to("*"))
	receivers := func(want int) func() bool {
		return func() bool {
			p := post("x")
			one.publish(p)
			return p.Receipt.Receivers == want
		}
	}
	t.await("a receipt that counts the clients of all instances", receivers(3))
	_ = gone.leave()
	t.await("a receipt that no longer counts a client of another instance", receivers(2))
}

func checkKicker(t *trial) {
	one, other := t.start(), t.start()
	log, ok := one.log.(broker.Kicker)
	if !ok {
		return
	}
	r, witness := other.join(as("me", "", common)), other.join(to(common))
	t.await("an instance to count the connections on another", func() bool {
		n, err := log.Connections(t.Context(), "me", true)
		return n == 1 && err == nil
	})
	if err := log.Kick(t.Context(), "me"); err != nil {
		t.Fatalf("kicking a client_id: %v", err)
	}
	if err := r.awaitEnd(); !errors.Is(err, hub.ErrKicked) {
		t.Errorf("a client that was kicked on another instance ended with %v", err)
	}
	if err := other.Hub.Admits(as("me", "")); !errors.Is(err, hub.ErrClientIDBarred) {
		t.Errorf("a client_id that was kicked on another instance may come back: %v", err)
	}
	one.publish(post("1"))
	witness.want("others stay", "1")
}

func checkClaimer(t *trial) {
	one, other := t.start(), t.start()
	if _, ok := one.log.(broker.Claimer); !ok {
		return
	}
	one.join(as("mine", "me"))
	for _, user := range []string{"you", ""} {
		thief := as("mine", user)
		other.claim(thief)
		if err := other.Hub.Admits(thief); !errors.Is(err, hub.ErrClientIDOwned) {
			t.Errorf("the user %q may have the client_id that is another's on another instance: %v", user, err)
		}
	}
	other.join(as("mine", "me"))
}

func checkLeaving(t *trial) {
	one, other := t.start(), t.start()
	left, stays := one.join(to(common)), other.join(to(common))
	one.publish(post("1"))
	left.want("a client gets what is published", "1")
	one.stop()
	position := one.Hub.Position()
	other.publish(post("2"), ephemeral("3"))
	stays.awaitText("2")
	stays.awaitText("3")
	if after := one.Hub.Position(); after != position || len(left.got()) != 1 {
		t.Errorf("a log that was closed goes on to deliver: it brings its hub from %s to %s", position, after)
	}
}
