package memlog

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/broker/brokertest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestKeysAreRefusedWhileTheRecordsAreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		log := newTestLog(t, h.Hub)
		log.records.maxBytes = 10_000
		first := log.mustPublish(t, brokertest.One("a", "hi", "key 0"))
		var err error
		n := 1
		for ; err == nil; n++ {
			_, err = log.Publish(t.Context(), brokertest.One("a", "hi", fmt.Sprint("key ", n)))
		}
		if !errors.Is(err, broker.ErrKeysFull) || n < 20 || n > 60 {
			t.Errorf("key %d is refused with %v", n, err)
		}
		log.mustPublish(t, brokertest.One("a", "no key", ""))
		if again := log.mustPublish(t, brokertest.One("a", "hi", "key 0")); again != first {
			t.Errorf("a key that is known is answered %+v", again)
		}
		time.Sleep(broker.IdempotencyPeriod)
		log.mustPublish(t, brokertest.One("a", "hi", "key later"))
		if held, most := log.records.bytes, 10_000/20; held > most {
			t.Errorf("one record is left, and counts as %d bytes", held)
		}
	})
}

func TestRecordsCountWhatTheyHold(t *testing.T) {
	for name, messages := range map[string]int{"single": 1, "arrays": 300} {
		t.Run(name, func(t *testing.T) {
			r := newRecords()
			before := heap()
			for n := range 60_000 / messages {
				key := fmt.Sprintf("%043d", n)
				record := new(broker.Record)
				for i := range messages {
					p := brokertest.One("a", "x", key)[0]
					p.Index, p.Receipt.ID = i, fmt.Sprintf("9deb49f3831cca47-%d", n*messages+i)
					r.add(record, p)
				}
			}
			held := heap() - before
			if counted := r.bytes; counted < held*2/3 || counted > held*3/2 {
				t.Errorf("the records hold %d bytes and count as %d", held, counted)
			}
			runtime.KeepAlive(r)
		})
	}
}

func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// A request that goes on for long is remembered for ten minutes after its newest message.
func TestRecordIsKeptWhileItsRequestGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newTestLog(t, hubtest.New(t, hubtest.Plenty).Hub)
		for n := range 40 {
			p := brokertest.One("a", "x", "key")
			p[0].Index = n
			log.mustPublish(t, p)
			log.mustPublish(t, brokertest.One("a", "x", fmt.Sprint("other ", n)))
			time.Sleep(time.Minute)
		}
		if n := len(log.records.byKey); n > 22 {
			t.Errorf("%d keys are remembered", n)
		}
		again := brokertest.One("a", "x", "key")
		again[0].Index = 39
		if log.mustPublish(t, again); !again[0].Repeated {
			t.Error("a request that went on was forgotten")
		}
	})
}
