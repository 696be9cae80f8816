package redislog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"
)

// subscription is whether this instance listens to the channel. What is published on it by an instance that does not
// would pass its own clients by.
type subscription struct {
	mu   sync.Mutex
	open chan struct{} // closed while it does
}

func newSubscription() *subscription { return &subscription{open: make(chan struct{})} }

func (h *subscription) set(hears bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	heard := false
	select {
	case <-h.open:
		heard = true
	default:
	}
	switch {
	case hears && !heard:
		close(h.open)
	case heard && !hears:
		h.open = make(chan struct{})
	}
}

// opened returns a channel that is closed while, or as soon as, the instance listens.
func (h *subscription) opened() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

// awaitSubscription returns when this instance listens to the channel, unless Redis is away.
func (l *Log) awaitSubscription(ctx context.Context) error {
	heard := l.subscription.opened()
	select {
	case <-heard:
		return nil
	default:
	}
	if l.replica.LogAway() {
		return broker.ErrUnavailable
	}
	select {
	case <-heard:
		return nil
	case <-ctx.Done():
	case <-l.context.Done():
	}
	return fmt.Errorf("%w: the channel %s can't be listened to", broker.ErrUnavailable, l.Channel)
}

// listen hands over the ephemeral messages on the channel, our own among them, until the end. While
// the line is cut they pass by: nobody was promised to get them later.
func (l *Log) listen() {
	var backoff backoff
	for l.context.Err() == nil {
		err := l.receive(&backoff)
		if l.context.Err() == nil {
			l.logFailure("listening to the channel failed", err)
			backoff.wait(l.context)
		}
	}
}

// receive listens until it has to subscribe anew. The line is asked now and then whether it is still there, so that one
// that stays silent is not. It is a patient one, as a message may be long; and after a silence nobody knows how much of
// one has been read.
func (l *Log) receive(backoff *backoff) error {
	channel := l.tailing.Subscribe(l.context, l.Channel, l.kickChannel)
	defer channel.Close()
	defer l.subscription.set(false)
	defer context.AfterFunc(l.context, func() { _ = channel.Close() })()
	asking, stop := context.WithCancel(l.context)
	defer stop()
	l.wg.Go(func() {
		for asking.Err() == nil {
			select {
			case <-time.After(blockTime):
				_ = channel.Ping(asking) // whether it works is heard, or not
			case <-asking.Done():
			}
		}
	})
	for {
		received, err := channel.ReceiveTimeout(l.context, blockTime+l.Timeout)
		var refusal redis.Error
		var timeout net.Error
		switch {
		case err == nil:
			backoff.reset()
		case errors.As(err, &timeout) && timeout.Timeout(), errors.As(err, &refusal), l.context.Err() != nil:
			return err
		default: // go-redis has connected and subscribed anew, or will: what comes there is to be read
			l.subscription.set(false)
			l.logFailure("listening to the channel was interrupted", err)
			backoff.wait(l.context)
		}
		switch message := received.(type) {
		case *redis.Subscription:
			if message.Count == 1 {
				continue
			}
			l.subscription.set(true)
			l.doubtOwners() // claims have passed by until now
		case *redis.Message:
			if message.Channel == l.kickChannel {
				l.hearKick(message.Payload)
			} else {
				l.passOn(message.Payload)
			}
		}
	}
}

// passOn hands a message on the channel to the replica, if it is for this hub.
func (l *Log) passOn(payload string) {
	m, hub, err := decodeChannelMessage(payload)
	switch {
	case err != nil && hub == l.hub: // every hub hears it, one counts it
		l.skipMalformed("channel "+l.Channel, err)
	case err != nil:
	case hub == l.hub:
		l.replica.Wait(l.context, l.replica.Deliver(m))
	}
}

// Kick implements Kicker.
func (l *Log) Kick(ctx context.Context, clientID string) error {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return err
	}
	return node.Publish(ctx, l.kickChannel, clientID).Err()
}

// channelMessage is an ephemeral message on the pub/sub channel: form B, and the hub it is for.
type channelMessage struct {
	ingest.Fields
	Hub string `json:"hub,omitempty"`
}

// hubOfNone is the hub that a message is for which names none.
const hubOfNone = "default"

// decodeChannelMessage reads what any program may have sent, and says which hub it is for, or would be:
// without a hub it is the default one.
func decodeChannelMessage(payload string) (m *hub.Message, hub string, err error) {
	var c channelMessage
	if err := json.Unmarshal([]byte(payload), &c, ingest.Strict); err != nil {
		return nil, hubOfMalformed(payload), ingest.Explain(err)
	}
	hub = cmp.Or(c.Hub, hubOfNone)
	d, err := c.Draft()
	if err != nil {
		return nil, hub, err
	}
	d.Ephemeral = true
	return d.Message, hub, d.Check()
}

// hubOfMalformed returns the hub that an object names which has something else wrong with it.
func hubOfMalformed(payload string) string {
	var named struct {
		Hub string `json:"hub"`
	}
	if err := json.Unmarshal([]byte(payload), &named); err != nil {
		return hubOfNone
	}
	return cmp.Or(named.Hub, hubOfNone)
}

// encodeChannelMessage writes an ephemeral message for the channel.
func encodeChannelMessage(m *hub.Message, shared string) ([]byte, error) {
	c := map[string]any{"hub": shared, "data": string(m.Data)}
	var topics []string
	for _, to := range m.To {
		switch to.Kind {
		case hub.ToTopic:
			topics = append(topics, to.Name)
		case hub.ToClient:
			c["client_id"] = to.Name
		case hub.ToUser:
			c["user"] = to.Name
		case hub.ToBroadcast:
			c["broadcast"] = true
		}
	}
	if topics != nil {
		c["topic"] = topics
	}
	if m.Event != "" {
		c["event"] = m.Event
	}
	if m.HasRetry {
		c["retry"] = m.Retry
	}
	return json.Marshal(c)
}
