package broker_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// streamed returns a streamed request with a message for each text.
func streamed(texts ...string) []*broker.Publication {
	batch := make([]*broker.Publication, len(texts))
	var before [sha256.Size]byte
	for n, text := range texts {
		batch[n] = &broker.Publication{
			Message: &hub.Message{}, Key: "k", Index: n, Streamed: true, Before: before,
			Fingerprint: sha256.Sum256(append(before[:], text...)),
			Receipt:     broker.Receipt{ID: fmt.Sprint("epoch-", n+1), Receivers: n},
		}
		before = batch[n].Fingerprint
	}
	return batch
}

// reread returns what is read of a record that is written, and checks that it is written the same again.
func reread(t *testing.T, r *broker.Record) *broker.Record {
	t.Helper()
	text := string(r.AppendText(nil))
	read, err := broker.ParseRecord(text)
	if err != nil {
		t.Fatalf("%q can't be read: %v", text, err)
	}
	if again := string(read.AppendText(nil)); again != text {
		t.Fatalf("%q is read as %q", text, again)
	}
	return read
}

func TestRecordOfAStreamStaysSmallAndFindsDifferences(t *testing.T) {
	const most = 2000
	texts := make([]string, most)
	for n := range texts {
		texts[n] = fmt.Sprint(n)
	}
	request := streamed(texts...)
	r := new(broker.Record)
	for n, p := range request {
		if found, err := r.Find(p); found || err != nil {
			t.Fatalf("message %d, which is new: %t, %v", n, found, err)
		}
		r.Add(p)
		if size := len(r.AppendText(nil)); size > 2<<10 || r.Size() > 2<<10 {
			t.Fatalf("a record of %d messages takes %d bytes, and %d as text", n+1, r.Size(), size)
		}
		if n > 200 && n%97 != 0 {
			continue
		}
		r = reread(t, r)
		at := rand.N(n + 1)
		other := append([]string(nil), texts[:n+1]...)
		other[at] = "other"
		for i, p := range streamed(other...) {
			found, err := r.Find(p)
			if !errors.Is(err, broker.ErrKeyReused) {
				if !found || i >= at && !p.Unproven {
					t.Fatalf("message %d of %d is found: %t, unproven: %t", i, n+1, found, p.Unproven)
				}
				continue
			}
			if i < at || n <= 64 && i != at || i-at > n/32 {
				t.Fatalf("a difference in message %d of %d shows in message %d", at, n+1, i)
			}
			break
		}
		for i, p := range request[:n+1] {
			repeated := *p
			repeated.Receipt = broker.Receipt{}
			found, err := r.Find(&repeated)
			if !found || err != nil || repeated.Following != n-i || i == n && repeated.Receipt != p.Receipt {
				t.Fatalf("message %d of %d: %t, %v, %+v", i, n+1, found, err, repeated)
			}
		}
	}
}

// A record may begin in the middle, if the request went on for longer than records are kept.
func TestRecordThatBeginsInTheMiddle(t *testing.T) {
	request := streamed(strings.Fields(strings.Repeat("x ", 300))...)
	r := new(broker.Record)
	for n, p := range request[150:] {
		if found, err := r.Find(p); found || err != nil {
			t.Fatalf("message %d: %t, %v", n, found, err)
		}
		r.Add(p)
		r = reread(t, r)
	}
	for n, p := range request {
		if found, err := r.Find(p); !found || err != nil || p.Unproven != (n < 299) {
			t.Fatalf("message %d: %t, %v, unproven: %t", n, found, err, p.Unproven)
		}
	}
}

func TestWhatIsNoRecordIsNotRead(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for _, text := range []string{
		"", "1", "x " + sum + " -", "0 " + sum + " -", "1 abc -", "1 " + sum + " x", "1 " + sum + " - id",
		"1 " + sum + " - id x", "1 " + sum + " - a 1 b 2", "2d711642b726b044 caa3db817deed71f 1796041554467-0 1",
	} {
		if _, err := broker.ParseRecord(text); err == nil {
			t.Errorf("%q is read as a record", text)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	r := new(broker.Record)
	for _, p := range streamed("a", "b", "c") {
		r.Add(p)
	}
	f.Add(string(r.AppendText(nil)))
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := broker.ParseRecord(text); err == nil {
			for _, p := range streamed("a", "b", "c", "d") {
				if found, err := r.Find(p); !found && err == nil {
					r.Add(p)
				}
			}
			if _, err := broker.ParseRecord(string(r.AppendText(nil))); err != nil {
				t.Errorf("%q is written so that it can't be read: %v", text, err)
			}
		}
	})
}
