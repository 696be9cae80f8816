package sse

import (
	"cmp"
	"context"
	"errors"
	"net"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// listen hands over the ephemeral messages on the channel, our own among them, until the end. While
// the line is cut they pass by: nobody was promised to get them later.
func (l *redisLog) listen() {
	var backoff backoff
	for l.context.Err() == nil {
		err := l.receive(backoff.reset)
		if l.context.Err() == nil {
			l.logger.Debug("listening to the channel failed", zap.String("hub", l.hub), zap.Error(err))
			backoff.wait(l.context)
		}
	}
}

// receive listens until something goes wrong. A line that is silent is asked whether it is still
// there.
func (l *redisLog) receive(working func()) error {
	channel := l.publishing.Subscribe(l.context, l.Channel, l.kickChannel)
	defer channel.Close()
	defer context.AfterFunc(l.context, func() { _ = channel.Close() })()
	patience := time.Duration(l.Timeout)
	for {
		received, err := channel.ReceiveTimeout(l.context, patience)
		var timeout net.Error
		switch {
		case err == nil:
			working()
			patience = blockTime
		case errors.As(err, &timeout) && timeout.Timeout() && patience == blockTime:
			if err := channel.Ping(l.context); err != nil {
				return err
			}
			patience = time.Duration(l.Timeout)
		default:
			return err
		}
		message, ok := received.(*redis.Message)
		switch {
		case !ok: // an answer
		case message.Channel == l.kickChannel:
			l.hearKick(message.Payload)
		default:
			l.passOn(message.Payload)
		}
	}
}

// passOn hands a message on the channel to the replica, if it is for this hub.
func (l *redisLog) passOn(payload string) {
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
func (l *redisLog) Kick(ctx context.Context, clientID string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(l.Timeout))
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return err
	}
	return node.Publish(ctx, l.kickChannel, clientID).Err()
}

// channelMessage is an ephemeral message on the pub/sub channel: form B, and the hub it is for.
type channelMessage struct {
	jsonMessage
	Hub string `json:"hub,omitempty"`
}

// decodeChannelMessage reads what any program may have sent, and says which hub it is for, or would be:
// without a hub it is the default one.
func decodeChannelMessage(payload string) (m *Message, hub string, err error) {
	var c channelMessage
	if err := json.Unmarshal([]byte(payload), &c, exactly); err != nil {
		return nil, hubOfMalformed(payload), explainJSON(err)
	}
	hub = cmp.Or(c.Hub, defaultHub)
	d, err := c.draft()
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
		return defaultHub
	}
	return cmp.Or(named.Hub, defaultHub)
}

// encodeChannelMessage writes an ephemeral message for the channel.
func encodeChannelMessage(m *Message, hub string) ([]byte, error) {
	c := map[string]any{"hub": hub, "data": string(m.Data)}
	var topics []string
	for _, to := range m.To {
		switch to.Kind {
		case ToTopic:
			topics = append(topics, to.Name)
		case ToClient:
			c["client_id"] = to.Name
		case ToUser:
			c["user"] = to.Name
		case ToBroadcast:
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
