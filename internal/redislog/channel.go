package redislog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
)

// subscription tells whether this instance is subscribed to the channel. While it is not, an ephemeral
// message that it published would not come to its own clients.
type subscription struct {
	mu   sync.Mutex
	open chan struct{} // closed while the instance is subscribed
}

func newSubscription() *subscription { return &subscription{open: make(chan struct{})} }

// setOpen notes whether the instance is subscribed.
func (s *subscription) setOpen(open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wasOpen := false
	select {
	case <-s.open:
		wasOpen = true
	default:
	}
	switch {
	case open && !wasOpen:
		close(s.open)
	case wasOpen && !open:
		s.open = make(chan struct{})
	}
}

// opened returns a channel that is closed as soon as the instance is subscribed.
func (s *subscription) opened() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// awaitSubscription returns when this instance is subscribed to the channel, or at once if Redis is out of
// reach.
func (l *Log) awaitSubscription(ctx context.Context) error {
	opened := l.subscription.opened()
	select {
	case <-opened:
		return nil
	default:
	}
	if l.replica.LogAway() {
		return broker.ErrUnavailable
	}
	select {
	case <-opened:
		return nil
	case <-ctx.Done():
	case <-l.context.Done():
	}
	return fmt.Errorf("%w: the channel %s can't be listened to", broker.ErrUnavailable, l.Channel)
}

// keepListening delivers the ephemeral messages on the channel, this instance's own among them. Messages that
// are sent while the line is cut are lost to this instance: nobody was promised them.
func (l *Log) keepListening() {
	var backoff backoff
	malformed := newMalformedWarnings()
	for l.context.Err() == nil {
		err := l.listen(&backoff, &malformed)
		if l.context.Err() == nil {
			l.logFailure("listening to the channel failed", err)
			backoff.wait(l.context)
		}
	}
}

// listen receives from the channels until it has to subscribe again. It sends pings, so that silence means
// that the line is dead. The connection is patient, since a message may be long. After a timeout the
// subscription is given up: part of a message may have been read.
func (l *Log) listen(backoff *backoff, malformed *malformedWarnings) error {
	channel := l.tailing.Subscribe(l.context, l.Channel, l.kickChannel)
	defer channel.Close()
	defer l.subscription.setOpen(false)
	defer context.AfterFunc(l.context, func() { _ = channel.Close() })()
	pinging, stop := context.WithCancel(l.context)
	defer stop()
	l.wg.Go(func() { ping(pinging, channel) })
	for {
		received, err := channel.ReceiveTimeout(l.context, blockTime+l.Timeout)
		var refusal redis.Error
		var timeout net.Error
		switch {
		case err == nil:
			backoff.reset()
		case errors.As(err, &timeout) && timeout.Timeout(), errors.As(err, &refusal), l.context.Err() != nil:
			return err
		default: // go-redis subscribes again by itself, and what comes then can be read
			l.subscription.setOpen(false)
			l.logFailure("listening to the channel was interrupted", err)
			backoff.wait(l.context)
		}
		switch message := received.(type) {
		case *redis.Subscription:
			if message.Count == 1 {
				continue // the other channel follows
			}
			l.subscription.setOpen(true)
			l.ownersDoubted.raise() // claims made until now were not heard
		case *redis.Message:
			if message.Channel == l.kickChannel {
				l.hearKick(message.Payload)
			} else {
				l.deliverEphemeral(message.Payload, malformed)
			}
		}
	}
}

// ping sends a ping every blockTime until ctx ends. Whether the line works is seen by the answers.
func ping(ctx context.Context, channel *redis.PubSub) {
	for ctx.Err() == nil {
		select {
		case <-time.After(blockTime):
			_ = channel.Ping(ctx)
		case <-ctx.Done():
		}
	}
}

// deliverEphemeral delivers a message on the channel, if it is for this hub.
func (l *Log) deliverEphemeral(payload string, malformed *malformedWarnings) {
	m, hubName, err := decodeChannelMessage(payload)
	if err == nil && hubName == l.hubName {
		err = l.replica.CheckMessage(m)
		m.Retry = ingest.BoundRetry(m.Retry)
	}
	switch {
	case err != nil && hubName == l.hubName: // every hub gets the message, one counts it
		l.noteMalformed(malformed, "channel "+l.Channel, err)
	case err != nil:
	case hubName == l.hubName:
		l.replica.Wait(l.context, l.replica.Deliver(m))
	}
}

// Kick implements broker.Kicker.
func (l *Log) Kick(ctx context.Context, clientID string) error {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return err
	}
	return node.Publish(ctx, l.kickChannel, clientID).Err()
}

// channelMessage is an ephemeral message on the channel: form B, and the hub that the message is for.
type channelMessage struct {
	ingest.Fields
	Hub *string `json:"hub"`
}

// defaultHub is the hub of a message that names none.
const defaultHub = "default"

// decodeChannelMessage reads a message that any program may have sent. It also returns the message's hub,
// even if the message is malformed. It is yet to be checked.
func decodeChannelMessage(payload string) (m *hub.Message, hubName string, err error) {
	var c channelMessage
	if err := json.Unmarshal([]byte(payload), &c, ingest.Strict); err != nil {
		return nil, hubOfMalformed(payload), ingest.Explain(err)
	}
	hubName = defaultHub
	if c.Hub != nil {
		hubName = cmp.Or(*c.Hub, defaultHub)
	}
	d, err := c.Draft()
	if err != nil {
		return nil, hubName, err
	}
	d.Ephemeral = true
	return d.Message, hubName, nil
}

// hubOfMalformed returns the hub that a malformed message names, or defaultHub if even that can't be read.
func hubOfMalformed(payload string) string {
	var named struct {
		Hub string `json:"hub"`
	}
	if err := json.Unmarshal([]byte(payload), &named); err != nil {
		return defaultHub
	}
	return cmp.Or(named.Hub, defaultHub)
}

// encodeChannelMessage writes an ephemeral message for the channel.
func encodeChannelMessage(m *hub.Message, hubName string) ([]byte, error) {
	object := map[string]any{"hub": hubName}
	var topics []any
	for name, value := range fieldsOf(m) {
		if name == "topic" {
			topics = append(topics, value)
			value = topics
		}
		object[name] = value
	}
	object["data"] = string(m.Data) // as text: JSON would have bytes in base64
	return json.Marshal(object)
}
