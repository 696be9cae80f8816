package memlog

import (
	"errors"
	"testing"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

func TestAMessageThatComesAfterTheDrainIsRefusedNotLost(t *testing.T) {
	shared := hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 10}})
	log := Open()
	log.Start(shared, func() {})
	publish := func(key string, ephemeral bool) (*broker.Publication, int, error) {
		p := &broker.Publication{Message: &hub.Message{To: hub.Topics("a"), Data: []byte("x"), Ephemeral: ephemeral}, Key: key}
		n, err := log.Publish(t.Context(), []*broker.Publication{p})
		return p, n, err
	}
	before, n, err := publish("key", false)
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	shared.Drain()
	for _, ephemeral := range []bool{false, true} {
		if _, n, err := publish("", ephemeral); n != 0 || !errors.Is(err, hub.ErrDraining) {
			t.Errorf("ephemeral %v: %d messages published, %v; want none and ErrDraining", ephemeral, n, err)
		}
	}
	again, n, err := publish("key", false) // it was published, whatever became of the answer
	if n != 1 || err != nil || again.Receipt != before.Receipt {
		t.Errorf("a repeated request: %d, %v, %+v; want %+v", n, err, again.Receipt, before.Receipt)
	}
}
