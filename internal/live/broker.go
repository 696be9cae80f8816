package live

import (
	"context"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Publish puts a batch into the hub's log; see [broker.Log].
func (h *Hub) Publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	n, err := h.withBroker(ctx, func(ctx context.Context, log broker.Log) (int, error) {
		if err := h.before.recall(ctx, batch); err != nil {
			return 0, err
		}
		return log.Publish(ctx, batch)
	})
	fresh := 0
	for _, p := range batch[:n] {
		if !p.Repeated {
			fresh++
		}
	}
	h.Core.CountPublished(fresh)
	return n, err
}

// Purge removes messages from the hub's log; see [broker.Purger].
func (h *Hub) Purge(ctx context.Context, p hub.Purge) error {
	_, err := h.withBroker(ctx, func(ctx context.Context, log broker.Log) (int, error) {
		purger, ok := log.(broker.Purger)
		if !ok {
			return 0, broker.ErrCannotPurge
		}
		return 0, purger.Purge(ctx, p)
	})
	return err
}

// CheckKeys checks that a batch can be published as a whole; see [broker.Log].
func (h *Hub) CheckKeys(ctx context.Context, batch []*broker.Publication) (int, error) {
	byKey := make(map[string]*broker.Publication)
	for i, p := range batch {
		if before := byKey[p.Key]; before != nil && before.Fingerprint != p.Fingerprint {
			return i, broker.ErrKeyReused
		}
		if p.Key != "" {
			byKey[p.Key] = p
		}
	}
	if len(byKey) == 0 {
		return len(batch), nil
	}
	return h.withBroker(ctx, func(ctx context.Context, log broker.Log) (int, error) {
		if err := h.before.recall(ctx, batch); err != nil {
			return 0, err
		}
		return log.CheckKeys(ctx, batch)
	})
}

// withBroker runs a publisher's request once there is a broker. It ends the request soon after the hub ends,
// or another broker is to replace this one.
func (h *Hub) withBroker(
	ctx context.Context, do func(context.Context, broker.Log) (int, error),
) (int, error) {
	if err := h.WaitReady(ctx); err != nil {
		return 0, err
	}
	h.brokerMu.RLock()
	defer h.brokerMu.RUnlock()
	if h.broker == nil {
		return 0, hub.ErrHubClosed
	}
	ctx, cancel := endOfBoth(ctx, h.calls)
	defer cancel()
	return do(ctx, h.broker)
}

// claim asks the other instances whose the subscription's client_id is, if there are other instances.
func (h *Hub) claim(ctx context.Context, sub *hub.Subscription) {
	h.brokerMu.RLock()
	defer h.brokerMu.RUnlock()
	claimer, ok := h.broker.(broker.Claimer)
	if !ok {
		return
	}
	ctx, cancel := h.WhileOpen(ctx)
	defer cancel()
	claimer.Claim(ctx, sub)
}

// release tells the other instances, if there are other instances, that nobody need have a client_id any more.
func (h *Hub) release(clientID string) {
	h.brokerMu.RLock()
	defer h.brokerMu.RUnlock()
	if claimer, ok := h.broker.(broker.Claimer); ok {
		claimer.Release(clientID)
	}
}

// Receivers returns how many clients a message to these addresses would reach, on every instance.
func (h *Hub) Receivers(ctx context.Context, to []hub.Address) (clients int, err error) {
	if clients = h.Core.Reach(to); clients > 0 {
		return clients, nil
	}
	h.brokerMu.RLock()
	defer h.brokerMu.RUnlock()
	others, ok := h.broker.(broker.Counter)
	if !ok {
		return clients, nil
	}
	ctx, cancel := h.WhileOpen(ctx)
	defer cancel()
	return others.Receivers(ctx, to)
}

// Kick ends all connections of a client_id, on every instance, and returns how many there were. If there are
// none it does nothing.
func (h *Hub) Kick(ctx context.Context, clientID string) (connections int, err error) {
	h.brokerMu.RLock()
	defer h.brokerMu.RUnlock()
	connections = h.Core.Connections(clientID)
	others, ok := h.broker.(broker.Kicker)
	if ok {
		var elsewhere int
		elsewhere, err = others.Connections(ctx, clientID, connections == 0)
		connections += elsewhere
	}
	if connections == 0 {
		return 0, err
	}
	h.Core.Kick(clientID)
	if ok && err == nil {
		err = others.Kick(ctx, clientID)
	}
	return connections, err
}

// BrokerKind returns which broker the hub has: the first word of its identity.
func (h *Hub) BrokerKind() string {
	h.brokerMu.RLock()
	defer h.brokerMu.RUnlock()
	kind, _, _ := strings.Cut(h.identity, " ")
	return kind
}

// BrokerState returns whether the broker is in reach and takes messages, since when, and why not.
func (h *Hub) BrokerState() hub.LogState {
	h.brokerMu.RLock()
	defer h.brokerMu.RUnlock()
	if h.broker == nil {
		return hub.LogState{Err: hub.ErrHubClosed}
	}
	return h.Core.LogState()
}

// FileSize returns the size of the broker's file, if it has one.
func (h *Hub) FileSize() (bytes int64, ok bool) {
	h.brokerMu.RLock()
	defer h.brokerMu.RUnlock()
	log, ok := h.broker.(broker.Sizer)
	if !ok {
		return 0, false
	}
	return log.Size(), true
}

// Lag returns how far the hub may be behind its log, if the log is elsewhere.
func (h *Hub) Lag() (lag time.Duration, ok bool) {
	h.brokerMu.RLock()
	defer h.brokerMu.RUnlock()
	log, ok := h.broker.(broker.Follower)
	if !ok {
		return 0, false
	}
	return log.Lag(), true
}
