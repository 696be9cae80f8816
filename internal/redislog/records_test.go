package redislog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// lines returns a request that is published while it arrives, from one number to before another.
func lines(key string, from, to int) []*broker.Publication {
	var batch []*broker.Publication
	var before [sha256.Size]byte
	for n := range to {
		p := withKey(key, strconv.Itoa(n), hub.Topics("a")...)
		p.Index, p.Streamed, p.Before = n, true, before
		p.Fingerprint = sha256.Sum256(append(before[:], p.Data...))
		before = p.Fingerprint
		if n >= from {
			batch = append(batch, p)
		}
	}
	return batch
}

// The script writes a record as package broker does, however a request is cut into batches.
func TestScriptKeepsRecordsAsTheBrokerDoes(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL())
	client := admin(t, server.URL())
	want := new(broker.Record)
	for from, size := 0, 1; from < 700; size = size%40 + 7 {
		batch := lines("k", from, from+size)
		i.publishAll(batch...)
		for _, p := range batch {
			want.Add(p)
		}
		from += size
		if got := client.Get(t.Context(), "{sse:default}:idem:k").Val(); got != string(want.AppendText(nil)) {
			t.Fatalf("after %d messages the record is %s; want %s", from, got, want.AppendText(nil))
		}
	}
	keys := client.Keys(t.Context(), "*idem:*").Val()
	if len(keys) != 1 {
		t.Errorf("one request has the keys %v", keys)
	}
}

func TestRequestGoesOnWhenRedisHasRestarted(t *testing.T) {
	server := e2etest.RedisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	i := start(t, server.URL())
	r := i.subscribe(hubtest.With("a"))
	first := i.publishAll(lines("k", 0, 70)...)
	server.Kill()
	server.Restart()
	i.awaitUp()
	var again []*broker.Publication
	e2etest.Await(t, "Redis to take messages again", func() bool {
		again = lines("k", 0, 80)
		_, err := i.log.Publish(t.Context(), again)
		return err == nil
	})
	if again[69].Receipt != first[69] || !again[69].Repeated {
		t.Errorf("message 70 is answered %+v (repeated: %t), and was %+v",
			again[69].Receipt, again[69].Repeated, first[69])
	}
	r.awaitText("79")
	if got := r.texts(); len(got) != 80 {
		t.Errorf("%d messages came: %v", len(got), hubtest.Brief(got))
	}
}

func TestKeysAreRefusedWhileTheRecordsAreFull(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL())
	client := admin(t, server.URL())
	first := i.publishAll(withKey("key 0", "x", hub.Topics("a")...))[0]
	i.publishAll(lines("stream", 0, 5)...)
	held := func() (n int) {
		for _, field := range client.HVals(t.Context(), "{sse:default}:idem-bytes").Val() {
			_, bytes, _ := strings.Cut(field, " ")
			b, _ := strconv.Atoi(bytes)
			n += b
		}
		return n
	}
	before := held()
	if before < 300 || before > 1500 {
		t.Errorf("two records count as %d bytes", before)
	}
	i.publishAll(lines("stream", 5, 6)...)
	if grown := held() - before; grown < 0 || grown > 40 {
		t.Errorf("a request that went on by a message counts for %d bytes more", grown)
	}
	i.log.maxRecordBytes = 20_000
	var err error
	n := 0
	for ; err == nil; n++ {
		_, err = i.tryPublish(withKey(fmt.Sprint("new ", n), "x", hub.Topics("a")...))
	}
	if !errors.Is(err, broker.ErrKeysFull) || n < 20 || n > 100 {
		t.Errorf("key %d is refused with %v", n, err)
	}
	i.publish("without a key", hub.Topics("a")...)
	if again := i.publishAll(withKey("key 0", "x", hub.Topics("a")...))[0]; again != first {
		t.Errorf("a key that is known is answered %+v", again)
	}
	for field := range 12 { // as if all were older
		client.HSet(t.Context(), "{sse:default}:idem-bytes", field, "100 99999999")
	}
	i.publishAll(withKey("later", "x", hub.Topics("a")...))
	if left := client.PTTL(t.Context(), "{sse:default}:idem-bytes").Val(); left <= broker.IdempotencyPeriod {
		t.Errorf("the count is kept for %v", left)
	}
}
