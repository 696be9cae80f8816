package brokertest

import (
	"errors"
	"sync"

	"github.com/caddy-sse/caddy-sse/broker"
)

// wantRepeated checks that a message was published before, with this answer.
func (t *trial) wantRepeated(p, first *broker.Publication) {
	t.Helper()
	if !p.Repeated || p.Receipt != first.Receipt {
		t.Errorf("the repeated message gets %+v (repeated: %t); want the first answer, %+v",
			p.Receipt, p.Repeated, first.Receipt)
	}
}

// wantReused checks that n messages were published, and the next one was refused for its key.
func (t *trial) wantReused(n int, err error, want int) {
	t.Helper()
	if n != want || !errors.Is(err, broker.ErrKeyReused) {
		t.Errorf("of messages with a reused key among them %d pass, with the error %v; want %d and ErrKeyReused",
			n, err, want)
	}
}

func checkRepeated(t *trial) {
	i := t.start()
	first, again := keyed("key", "1"), keyed("key", "1")
	i.publish(first)
	if first.Repeated {
		t.Error("the first message of a key is called a repetition")
	}
	r := i.join(back(first.Receipt.ID, common)) // the answer counted nobody
	i.publish(again)
	t.wantRepeated(again, first)
	twice := []*broker.Publication{keyed("within", "2"), keyed("within", "2"), post("3")}
	i.publish(twice...)
	t.wantRepeated(twice[1], twice[0])
	r.want("a repeated message is published once", "2", "3")
	passing, passed := ephemeral("4"), ephemeral("4")
	passing.Key, passed.Key = "passing", "passing"
	i.publish(passing)
	i.publish(passed)
	t.wantRepeated(passed, passing)
	if passed.Receipt.ID != "" {
		t.Errorf("an ephemeral message has the ID %q", passed.Receipt.ID)
	}
	r.awaitText("4")
	i.publish(ephemeral("5"))
	r.want("a repeated ephemeral message is published once", "2", "3", "4", "5")
}

func checkRepeatedAtOnce(t *trial) {
	const posts, rounds = 16, 10
	i := t.start()
	r := i.join(to(common))
	var want []string
	for round := range rounds {
		text := string(rune('a' + round))
		want = append(want, text)
		batch := make([]*broker.Publication, posts)
		var all sync.WaitGroup
		for n := range batch {
			batch[n] = keyed("key "+text, text)
			all.Go(func() {
				if _, err := i.tryPublish(t.Context(), batch[n]); err != nil {
					t.Errorf("publishing: %v", err)
				}
			})
		}
		all.Wait()
		first := 0
		for _, p := range batch {
			if !p.Repeated {
				first++
			}
			if p.Receipt != batch[0].Receipt {
				t.Errorf("of one message that is published several times at once, publishers are told %+v and %+v",
					p.Receipt, batch[0].Receipt)
			}
		}
		if first != 1 {
			t.Errorf("of one message that is published several times at once, %d are called the first", first)
		}
	}
	i.publish(post("end"))
	r.want("one message that is published several times at once is published once", append(want, "end")...)
}

func checkKeyReused(t *trial) {
	i := t.start()
	r := i.join(to(common))
	i.publish(keyed("key", "1"))
	for _, p := range []*broker.Publication{keyed("key", "other"), ephemeral("other")} {
		p.Key = "key"
		n, err := i.tryPublish(t.Context(), p)
		t.wantReused(n, err, 0)
	}
	again := keyed("key", "1")
	i.publish(again, keyed("another key", "2"))
	if !again.Repeated {
		t.Error("a key is forgotten after another message came with it")
	}
	r.want("a message whose key was used is not published", "1", "2")
}

func checkBatch(t *trial) {
	i := t.start()
	r := i.join(to(common))
	i.publish(keyed("key", "1"))
	batch := []*broker.Publication{post("2"), keyed("new", "3"), keyed("key", "other"), keyed("late", "never")}
	n, err := i.tryPublish(t.Context(), batch...)
	t.wantReused(n, err, 2)
	n, err = i.tryPublish(t.Context(), keyed("within", "4"), keyed("within", "other"), post("never"))
	t.wantReused(n, err, 1)
	late := keyed("late", "5")
	i.publish(late)
	if late.Repeated {
		t.Error("a key counts as used, though its message came behind the one that was refused")
	}
	r.want("a batch ends at the first message that is refused", "1", "2", "3", "4", "5")
	if batch[0].Receipt.ID == "" || batch[1].Receipt.ID == "" {
		t.Error("the messages before the refused one have no receipts")
	}
}

func checkCheckKeys(t *trial) {
	i := t.start()
	r := i.join(to(common))
	used := keyed("key", "1")
	i.publish(used)
	fine := []*broker.Publication{post("never"), keyed("key", "1"), keyed("new", "never"), post("never")}
	if n, err := i.checkKeys(fine...); n != len(fine) || err != nil {
		t.Errorf("CheckKeys finds %d of %d messages fine, with the error %v", n, len(fine), err)
	}
	for _, p := range fine {
		if p.Repeated || p.Receipt != (broker.Receipt{}) {
			t.Error("CheckKeys answers a message")
		}
	}
	n, err := i.checkKeys(post("never"), keyed("new", "never"), keyed("key", "other"), post("never"))
	t.wantReused(n, err, 2)
	if n, err := i.checkKeys(); n != 0 || err != nil {
		t.Errorf("CheckKeys of nothing returns %d, %v", n, err)
	}
	fresh := keyed("new", "2")
	i.publish(fresh)
	if fresh.Repeated {
		t.Error("CheckKeys uses a key up")
	}
	r.want("CheckKeys publishes nothing", "1", "2")
}
