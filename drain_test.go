package sse

import (
	"errors"
	"testing"
)

func TestAMessageThatComesAfterTheDrainIsRefusedNotLost(t *testing.T) {
	hub := NewHub(Limits{History: HistoryLimits{Count: 10}})
	log, err := MemoryBroker{}.Open("test")
	if err != nil {
		t.Fatal(err)
	}
	log.Start(hub, func() {})
	publish := func(key string, ephemeral bool) (*Publication, int, error) {
		p := &Publication{Message: &Message{To: Topics("a"), Data: []byte("x"), Ephemeral: ephemeral}, Key: key}
		n, err := log.Publish(t.Context(), []*Publication{p})
		return p, n, err
	}
	before, n, err := publish("key", false)
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	hub.Drain()
	for _, ephemeral := range []bool{false, true} {
		if _, n, err := publish("", ephemeral); n != 0 || !errors.Is(err, ErrDraining) {
			t.Errorf("ephemeral %v: %d messages published, %v; want none and ErrDraining", ephemeral, n, err)
		}
	}
	again, n, err := publish("key", false) // it was published, whatever became of the answer
	if n != 1 || err != nil || again.Receipt != before.Receipt {
		t.Errorf("a repeated request: %d, %v, %+v; want %+v", n, err, again.Receipt, before.Receipt)
	}
}
