package boltlog

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// unstarted returns a log on the file of a hub that has ended, which nothing else uses.
func (d *diskHub) unstarted() *Log {
	d.t.Helper()
	log := openTestLog(d.t, d.module)
	d.t.Cleanup(func() { _ = log.Close() })
	d.stop()
	return log
}

func countRecords(t *testing.T, log *Log) (n, size int) {
	t.Helper()
	err := log.db.View(func(tx *bbolt.Tx) (err error) {
		n = tx.Bucket(answersBucket).Stats().KeyN
		size, err = measureRecords(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, size
}

func TestRecordsAreForgottenInPieces(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	const keys = maxForget + 1000
	batch := make([]*broker.Publication, keys)
	for n := range batch {
		batch[n] = keyed(fmt.Sprint("key ", n), "x")
	}
	if _, err := d.log.Publish(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	d.update(func(tx *bbolt.Tx) error { // as an older version wrote it
		return put(tx.Bucket(answersBucket), []byte("key 0"), []byte(`{"ID":"x-1","Receivers":1,"At":1}`))
	})
	at := batch[0].Time
	log := d.unstarted()
	_, log.recordBytes = countRecords(t, log)
	forget := func(now time.Time) {
		t.Helper()
		if err := log.forgetRecords(now); err != nil {
			t.Fatal(err)
		}
	}
	forget(at.Add(broker.IdempotencyPeriod / 2))
	forget(at.Add(broker.IdempotencyPeriod / 2))
	if n, _ := countRecords(t, log); n != keys-1 {
		t.Errorf("%d records are left of %d, one of which is in an old form", n, keys)
	}
	forget(at.Add(2 * broker.IdempotencyPeriod))
	if n, size := countRecords(t, log); n != keys-1-maxForget || size != log.recordBytes {
		t.Errorf("after one piece %d records with %d bytes are left, which count as %d", n, size, log.recordBytes)
	}
	forget(at.Add(2 * broker.IdempotencyPeriod))
	if n, _ := countRecords(t, log); n != 0 || log.recordBytes != 0 {
		t.Errorf("%d records are left, and count as %d bytes", n, log.recordBytes)
	}
}

func TestRecordsAreCountedAndBounded(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	array := make([]*broker.Publication, 50)
	for n := range array {
		array[n] = keyed("array", "x")
		array[n].Index = n
	}
	if _, err := d.log.Publish(t.Context(), array[:20]); err != nil {
		t.Fatal(err)
	}
	if _, err := d.log.Publish(t.Context(), array); err != nil {
		t.Fatal(err)
	}
	log := d.log
	d.crash() // it has counted again
	d.publishAll("a", 1, 2)
	_, size := countRecords(t, d.log)
	if counted := log.recordBytes; counted != size || size < 50*20 {
		t.Errorf("records of %d bytes count as %d", size, counted)
	}
	d.stop()
	full := openTestLog(t, d.module)
	full.maxRecordBytes = size
	full.Start(hubtest.New(t, hubtest.Plenty).Hub, func() {})
	defer func() { _ = full.Close() }()
	n, err := full.Publish(t.Context(), []*broker.Publication{keyed("", "x"), keyed("new", "x")})
	if n != 1 || !errors.Is(err, broker.ErrKeysFull) {
		t.Errorf("with full records %d are published, %v", n, err)
	}
	if n, err := full.Publish(t.Context(), array); n != 50 || err != nil {
		t.Errorf("of a request that is known %d are answered, %v", n, err)
	}
}

func TestRecordWhoseTimeIsOverIsNotFound(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	p := keyed("k", "1")
	if _, err := d.log.Publish(t.Context(), []*broker.Publication{p}); err != nil {
		t.Fatal(err)
	}
	d.update(func(tx *bbolt.Tx) error {
		for after, want := range map[time.Duration]bool{
			broker.IdempotencyPeriod / 2: true, broker.IdempotencyPeriod + time.Second: false,
		} {
			r, size, err := readRecord(tx.Bucket(answersBucket), "k", p.Time.Add(after))
			if (r != nil) != want || size == 0 || err != nil {
				t.Errorf("%v later there is a record: %t, of %d bytes, %v", after, r != nil, size, err)
			}
		}
		return nil
	})
}

func TestRequestGoesOnAfterACrash(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	request := func(n int) (batch []*broker.Publication) {
		var before [32]byte
		for i := range n {
			p := keyed("k", fmt.Sprint(i))
			p.Index, p.Streamed, p.Before = i, true, before
			p.Fingerprint[31] = byte(i + 1)
			before = p.Fingerprint
			batch = append(batch, p)
		}
		return batch
	}
	first := request(100)
	for _, p := range first {
		if _, err := d.log.Publish(t.Context(), []*broker.Publication{p}); err != nil {
			t.Fatal(err)
		}
	}
	d.crash()
	again := request(120)
	n, err := d.log.Publish(t.Context(), again)
	if n != 120 || err != nil || again[99].Receipt != first[99].Receipt || again[100].Repeated {
		t.Errorf("published %d, %v; the newest message of before is answered %+v", n, err, again[99].Receipt)
	}
	if n := d.kept(); n != 120 {
		t.Errorf("%d messages are in the file", n)
	}
}
