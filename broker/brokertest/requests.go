package brokertest

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/caddy-sse/caddy-sse/broker"
)

// streamed returns a request that is published while it arrives.
func streamed(key string, texts ...string) []*broker.Publication {
	batch := make([]*broker.Publication, len(texts))
	var before [sha256.Size]byte
	for n, text := range texts {
		p := keyed(key, text)
		p.Index, p.Streamed, p.Before = n, true, before
		p.Fingerprint = sha256.Sum256(append(before[:], text...))
		batch[n], before = p, p.Fingerprint
	}
	return batch
}

// whole returns a request that is published as a whole.
func whole(key string, texts ...string) []*broker.Publication {
	batch := make([]*broker.Publication, len(texts))
	for n, text := range texts {
		p := keyed(key, text)
		p.Index, p.Fingerprint = n, sha256.Sum256([]byte(fmt.Sprint(texts)))
		batch[n] = p
	}
	return batch
}

// numbers returns the texts 0, 1, and so on.
func numbers(count int) (texts []string) {
	for n := range count {
		texts = append(texts, fmt.Sprint(n))
	}
	return texts
}

// wantNewest checks that a request was published before, up to the last message of a batch.
func (t *trial) wantNewest(batch []*broker.Publication, first *broker.Publication) {
	t.Helper()
	newest := batch[len(batch)-1]
	t.wantRepeated(newest, first)
	if newest.Following != 0 || newest.Unproven {
		t.Errorf("behind the newest message of a request %d follow (unproven: %t)", newest.Following, newest.Unproven)
	}
	for n, p := range batch {
		if want := len(batch) - 1 - n; !p.Repeated || p.Following != want {
			t.Errorf("message %d of a repeated request is repeated: %t, and %d follow; want %d",
				n, p.Repeated, p.Following, want)
		}
	}
}

func checkStreamed(t *trial) {
	i := t.start()
	r := i.join(to(common))
	request := func(n int) []*broker.Publication { return streamed("stream", numbers(n)...) }
	first := request(5)
	i.publish(first[:2]...) // as it arrives
	i.publish(first[2:]...)
	again := request(9)
	i.publish(again[:5]...)
	t.wantNewest(again[:5], first[4])
	i.publish(again[5:]...)
	if again[5].Repeated {
		t.Error("what is new in a request that comes again is called repeated")
	}
	once := request(9)
	for n := range once { // in one batch, or one by one
		i.publish(once[n])
	}
	newest := once[len(once)-1]
	t.wantRepeated(newest, again[8])
	mixed := request(11)
	i.publish(mixed...)
	if mixed[8].Receipt != again[8].Receipt || mixed[9].Repeated || mixed[10].Receipt.ID == "" {
		t.Errorf("a batch with old and new messages of a request gets %+v, %+v, %+v",
			mixed[8].Receipt, mixed[9].Receipt, mixed[10].Receipt)
	}
	i.publish(post("end"))
	r.want("a request that comes again publishes what is new", append(numbers(11), "end")...)
}

func checkOtherStreamed(t *trial) {
	i := t.start()
	r := i.join(to(common))
	const short, long = 20, 300
	i.publish(streamed("short", numbers(short)...)...)
	i.publish(streamed("long", numbers(long)...)...)
	for at := range short { // a difference is found where it is
		texts := numbers(short + 1)
		texts[at] = "other"
		n, err := i.tryPublish(t.Context(), streamed("short", texts...)...)
		t.wantReused(n, err, at)
	}
	for _, at := range []int{0, 1, 64, 200, 297, 299} { // or at the latest soon behind
		texts := numbers(long + 1)
		texts[at] = "other"
		batch := streamed("long", texts...)
		n, err := i.tryPublish(t.Context(), batch...)
		if n < at || n >= at+long/32 || n >= long {
			t.Errorf("a request that differs in message %d of %d is found to differ in message %d", at, long, n)
		}
		t.wantReused(n, err, n)
		for _, p := range batch[min(at, n):n] {
			if !p.Unproven {
				t.Error("a message counts as proven, though it is another one, or one before it is")
			}
		}
	}
	part := streamed("long", numbers(long)...)[:long-1]
	i.publish(part...)
	if last := part[long-2]; !last.Repeated || last.Following != 1 || last.Receipt.ID != "" {
		t.Errorf("a request that ends too early gets %+v at its end, and %d follow", last.Receipt, last.Following)
	}
	for _, other := range [][]*broker.Publication{
		{keyed("short", "0")},
		whole("short", "0"),
		whole("short", numbers(short)...),
		{keyed("long", "0")},
		whole("long", numbers(long)...),
	} {
		n, err := i.tryPublish(t.Context(), other...)
		t.wantReused(n, err, 0)
		n, err = i.checkKeys(other...)
		t.wantReused(n, err, 0)
	}
	i.publish(post("end"))
	r.want("what differs is not published", slices.Concat(numbers(short), numbers(long), []string{"end"})...)
}

// checkStreamedAtOnce has publishers repeat a request while it is under way.
func checkStreamedAtOnce(t *trial) {
	const publishers, messages = 6, 150
	i := t.start()
	r := i.join(to(common))
	var all sync.WaitGroup
	for range publishers {
		all.Go(func() {
			for rest := streamed("key", numbers(messages)...); len(rest) > 0; {
				n := min(len(rest), 1+rand.N(10))
				if _, err := i.tryPublish(t.Context(), rest[:n]...); err != nil {
					t.Errorf("publishing: %v", err)
					return
				}
				rest = rest[n:]
			}
		})
	}
	all.Wait()
	i.publish(post("end"))
	r.want("a request that several publish at once is published once", append(numbers(messages), "end")...)
}

func checkWhole(t *trial) {
	i := t.start()
	r := i.join(to(common))
	texts := numbers(20)
	first := whole("array", texts...)
	i.publish(first[:12]...) // the rest did not come through
	again := whole("array", texts...)
	if n, err := i.checkKeys(again...); n != len(again) || err != nil {
		t.Errorf("CheckKeys finds %d of a repeated request fine, with the error %v", n, err)
	}
	i.publish(again...)
	once := whole("array", texts...)
	i.publish(once...)
	for n, p := range once {
		want := again[n]
		if n < 12 {
			want = first[n]
			t.wantRepeated(again[n], want)
		}
		t.wantRepeated(p, want)
	}
	other := whole("array", append(texts, "more")...)
	n, err := i.tryPublish(t.Context(), other...)
	t.wantReused(n, err, 0)
	n, err = i.checkKeys(other...)
	t.wantReused(n, err, 0)
	i.publish(post("end"))
	r.want("a request that comes again as a whole is published once", append(texts, "end")...)
}

// checkEphemeralRequest has a request of messages that are kept and others.
func checkEphemeralRequest(t *trial) {
	i := t.start()
	request := func() []*broker.Publication {
		batch := streamed("key", "1", "2", "3")
		batch[2].Ephemeral = true
		return batch
	}
	first, again := request(), request()
	i.publish(first...)
	i.publish(again...)
	if last := again[2]; !last.Repeated || last.Receipt.ID != first[1].Receipt.ID {
		t.Errorf("a repeated request is answered with the ID %q; its last ID is %q",
			last.Receipt.ID, first[1].Receipt.ID)
	}
}

func checkReopenedRequests(t *trial) {
	first := t.start()
	texts := numbers(100)
	stream, array := streamed("stream", texts[:70]...), whole("array", texts...)
	first.publish(stream...)
	first.publish(array...)
	first.stop()

	second := t.start()
	r := second.join(to(common))
	again := streamed("stream", texts...)
	second.publish(again...)
	t.wantNewest(again[:70], stream[69])
	n, err := second.tryPublish(t.Context(), streamed("stream", append([]string{"other"}, texts...)...)...)
	t.wantReused(n, err, n)
	once := whole("array", texts...)
	second.publish(once...)
	for n := range once {
		t.wantRepeated(once[n], array[n])
	}
	second.publish(post("end"))
	r.want("over a restart a request publishes what is new", append(texts[70:], "end")...)
}

// checkEarlier has messages bring the records that their keys have in a log of before.
func checkEarlier(t *trial) {
	before := t.start()
	single, stream, array := keyed("single", "1"), streamed("stream", "2", "3"), whole("array", "4", "5")
	before.publish(single)
	before.publish(stream...)
	before.publish(array...)
	earlier := make(map[string]*broker.Record)
	for _, p := range slices.Concat([]*broker.Publication{single}, stream, array) {
		if earlier[p.Key] == nil {
			earlier[p.Key] = new(broker.Record)
		}
		earlier[p.Key].Add(p)
	}
	bring := func(batch ...*broker.Publication) []*broker.Publication {
		for _, p := range batch {
			p.Earlier = earlier[p.Key].Clone()
		}
		return batch
	}
	i := newTrial(t.TB, t.Subject, t.patience, t.moment).start()
	r := i.join(to(common))
	again := bring(keyed("single", "1"))
	i.publish(again...)
	t.wantRepeated(again[0], single)
	n, err := i.tryPublish(t.Context(), bring(keyed("single", "other"))...)
	t.wantReused(n, err, 0)
	n, err = i.checkKeys(bring(keyed("single", "other"))...)
	t.wantReused(n, err, 0)
	once := bring(whole("array", "4", "5")...)
	i.publish(once...)
	t.wantRepeated(once[0], array[0])
	t.wantRepeated(once[1], array[1])
	on := bring(streamed("stream", "2", "3", "6", "7")...)
	i.publish(on...)
	t.wantRepeated(on[1], stream[1])
	further := bring(streamed("stream", "2", "3", "6", "7", "8")...) // the log's own record goes further now
	i.publish(further...)
	t.wantRepeated(further[3], on[3])
	r.want("what another log has published is not published again", "6", "7", "8")
}

// checkRecords reads the records of a log that is closed.
func checkRecords(t *trial) {
	i := t.start()
	log, ok := i.log.(broker.Rememberer)
	if !ok {
		return
	}
	single, stream := keyed("single", "1"), streamed("stream", numbers(90)...)
	i.publish(single)
	i.publish(stream...)
	records := log.Records()
	if records == nil {
		t.Fatal("a log that is in reach gives no access to its records")
	}
	i.stop()
	find := func(key string) *broker.Record {
		r, err := records.Find(t.Context(), key)
		if err != nil {
			t.Errorf("the record of %q can't be read: %v", key, err)
		}
		return r
	}
	if find("unknown") != nil {
		t.Error("there is a record of a key that was not used")
	}
	for range 2 { // Find returns the caller's own
		again, repeated := keyed("single", "1"), streamed("stream", numbers(91)...)
		for _, p := range append(repeated, again) {
			found, err := again.Record(find(p.Key)).Find(p)
			if found != (p != repeated[90]) || err != nil {
				t.Fatalf("a record from before finds message %d of %q: %t, %v", p.Index, p.Key, found, err)
			}
		}
		t.wantRepeated(again, single)
		t.wantNewest(repeated[:90], stream[89])
		find("stream").Add(repeated[90])
	}
	if err := records.Close(); err != nil {
		t.Errorf("closing the records: %v", err)
	}
}

func checkSharedRequests(t *trial) {
	instances := []*instance{t.start(), t.start()}
	r := instances[0].join(to(common))
	texts := numbers(120)
	var all sync.WaitGroup
	for _, i := range instances {
		all.Go(func() {
			for rest := streamed("key", texts...); len(rest) > 0; {
				n := min(len(rest), 1+rand.N(10))
				if _, err := i.tryPublish(t.Context(), rest[:n]...); err != nil {
					t.Errorf("publishing: %v", err)
					return
				}
				rest = rest[n:]
			}
		})
	}
	all.Wait()
	array := whole("array", texts...)
	instances[0].publish(array...)
	again := whole("array", texts...)
	instances[1].publish(again...)
	for n := range again {
		t.wantRepeated(again[n], array[n])
	}
	instances[1].publish(post("end"))
	r.want("a request that comes to several instances is published once",
		slices.Concat(texts, texts, []string{"end"})...)
}
