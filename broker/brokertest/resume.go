package brokertest

import (
	"slices"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// wantComplete checks that a client that comes back is told "complete", and gets what it missed.
func (i *instance) wantComplete(id string, want ...string) *reader {
	i.t.Helper()
	r := i.join(back(id, common))
	if r.Resume != hub.ResumeComplete {
		i.t.Errorf("a client that comes back with %s is told %q; nothing is missing", id, r.Resume)
	}
	r.want("a client that comes back with "+id, want...)
	return r
}

func checkResume(t *trial) {
	i := t.start()
	r := i.join(to(common))
	beginning := r.ID
	batch := []*broker.Publication{post("1"), message("elsewhere", hub.Topics("elsewhere")...), post("2")}
	i.publish(batch...)
	seen := r.want("a client gets what is published", "1", "2")
	if err := r.leave(); err != hub.ErrGone {
		t.Errorf("a client that left ended with %v", err)
	}
	third, last := post("3"), post("4")
	i.publish(third, last)
	on := i.wantComplete(seen[1].ID, "3", "4")
	i.wantComplete(seen[0].ID, "2", "3", "4")
	i.wantComplete(beginning, "1", "2", "3", "4")
	end := i.wantComplete(last.Receipt.ID)
	i.publish(post("5"))
	on.want("after a replay a client gets what comes", "3", "4", "5")
	end.want("a client that missed nothing gets what comes", "5")

	ahead := t.mustParse(last.Receipt.ID)
	ahead.Position.Major += 1_000_000
	never := []hub.ID{ahead, {Epoch: hub.NewEpoch(), Position: t.mustParse(seen[0].ID).Position}}
	for _, p := range batch { // what lies in the holes between them, if there are any
		id := t.mustParse(p.Receipt.ID)
		id.Position.Major++
		never = append(never, id)
	}
	all := append(batch, third, last)
	for _, id := range never {
		given := slices.ContainsFunc(all, func(p *broker.Publication) bool { return p.Receipt.ID == id.String() })
		if r := i.join(back(id.String(), common)); r.Resume != hub.ResumeGap && !given {
			t.Errorf("a client that comes back with an ID that the log never gave out is told %q", r.Resume)
		}
	}
}

func checkEphemeral(t *trial) {
	i := t.start()
	r := i.join(to(common))
	beginning := r.ID
	passing := ephemeral("passing")
	i.publish(post("1"))
	r.awaitText("1")
	i.publish(passing)
	r.awaitText("passing")
	i.publish(post("2"))
	all := r.want("a client that is here gets ephemeral messages", "1", "passing", "2")
	if passing.Receipt.ID != "" || all[1].ID != "" {
		t.Errorf("an ephemeral message has the ID %q for its publisher, %q for a client",
			passing.Receipt.ID, all[1].ID)
	}
	i.wantComplete(beginning, "1", "2")
	i.wantComplete(all[0].ID, "2")
}

// checkReplaced has the log give way to one that was opened while it ran, as a config that is loaded anew
// does.
func checkReplaced(t *trial) {
	first := t.start()
	h := first.Hub
	r := first.join(to(common))
	first.publish(post("1"), post("2"))
	second := t.open()
	first.publish(post("3"))
	seen := r.want("a log goes on while another is opened", "1", "2", "3")
	before := h.Position().Epoch
	first.stop()
	h.LogReplaced()
	second.startOn(h)
	second.publish(post("4"), post("5"))
	all := slices.DeleteFunc(texts(r.awaitText("5")), func(text string) bool { return text == gapName })
	if !slices.Equal(all, []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("a client that saw one log replaced by another got %q", all)
	}
	same, told := h.Position().Epoch == before, slices.Contains(texts(r.got()), gapName)
	if !same && !told {
		t.Error("a client is not told that the log is another")
	}
	if same {
		second.wantComplete(seen[1].ID, "3", "4", "5")
	} else if back := second.join(back(seen[1].ID, common)); back.Resume != hub.ResumeGap {
		t.Errorf("a client that comes back with an ID of the log before is told %q", back.Resume)
	}
}

// checkUnneeded has a config fail that has opened its log already.
func checkUnneeded(t *trial) {
	t.open().stop()
	first := t.start()
	r := first.join(to(common))
	first.publish(post("1"))
	t.open().stop()
	first.publish(post("2"))
	r.want("a log goes on while another is opened and closed", "1", "2")
}

func checkReopened(t *trial) {
	first := t.start()
	r := first.join(as("me", "I", common, "b"))
	beginning := r.ID
	batch := forms()
	first.publish(batch...)
	first.publish(ephemeral("passing"))
	r.awaitText("passing")
	all := r.await("what was published", func(all []event) bool { return len(all) > len(batch) })
	before := first.Hub.ListMessages(common, len(batch))
	first.Hub.Close()
	first.stop()
	time.Sleep(2 * time.Millisecond) // so that what is given a new time shows

	second := t.start()
	s := as("me", "I", common, "b")
	s.LastEventID = beginning
	again := second.join(s)
	if again.Resume != hub.ResumeComplete {
		t.Fatalf("a client that comes back to a log that was opened again is told %q", again.Resume)
	}
	kept := again.await("what the log keeps", func(all []event) bool { return len(all) >= len(batch) })
	for n, p := range batch {
		was := all[slices.IndexFunc(all, func(e event) bool { return e.ID == p.Receipt.ID })]
		if kept[n].block != was.block {
			t.Errorf("after the log was opened again, a client gets %.200q; before it got %.200q",
				kept[n].block, was.block)
		}
	}
	if after := second.Hub.ListMessages(common, len(batch)); len(after) != len(before) {
		t.Errorf("the topic has %d messages; before the log was opened again it had %d", len(after), len(before))
	} else if was, is := before[0].Time, after[0].Time; is.Sub(was).Abs() > time.Millisecond {
		t.Errorf("the log took a message at %v; after it was opened again it says %v", was, is)
	}
	middle := batch[len(batch)-2].Receipt.ID
	s.LastEventID = middle
	s.ClientID = "other"
	r = second.join(s)
	next := post("next")
	second.publish(next)
	r.want("a client that comes back to a log that was opened again", string(kept[len(batch)-1].Data), "next")
	again.awaitText("next")
	if n := len(again.got()); n != len(batch)+1 {
		t.Errorf("a log that was opened again gave %d messages; want %d", n, len(batch)+1)
	}
	last, id := t.mustParse(batch[len(batch)-1].Receipt.ID), t.mustParse(next.Receipt.ID)
	if id.Epoch != last.Epoch || !id.Position.After(last.Position) {
		t.Errorf("after the log was opened again it goes on with the ID %s behind %s", id, last)
	}
}

func checkReopenedAnswers(t *trial) {
	first := t.start()
	was := keyed("key", "1")
	first.publish(was)
	first.stop()

	second := t.start()
	r := second.join(to(common))
	again := keyed("key", "1")
	second.publish(again)
	t.wantRepeated(again, was)
	n, err := second.tryPublish(t.Context(), keyed("key", "other"))
	t.wantReused(n, err, 0)
	n, err = second.checkKeys(post("never"), keyed("key", "other"))
	t.wantReused(n, err, 1)
	second.publish(post("2"))
	r.want("a repeated message is published once", "2")
}

// checkReopenedOwners has a user own a client_id that messages are kept for. Nobody else may read them.
func checkReopenedOwners(t *trial) {
	first := t.start()
	first.join(as("mine", "me"))
	first.publish(message("secret", hub.Address{Kind: hub.ToClient, Name: "mine"}))
	first.stop()

	second := t.start()
	for _, user := range []string{"you", ""} {
		thief := as("mine", user)
		second.claim(thief)
		if err := second.Hub.Admits(thief); err == nil {
			t.Errorf("in a log that was opened again the user %q may have the client_id of another", user)
		}
	}
	r := second.join(as("mine", "me"))
	p := message("2", hub.Address{Kind: hub.ToClient, Name: "mine"})
	second.publish(p)
	r.want("the owner may have the client_id", "2")
}
