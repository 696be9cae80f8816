package redislog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
)

// entry is an entry of the stream, as any program may have written it. Its fields are those of a message in
// form B; topic may be there several times.
type entry struct {
	position hub.Position
	fields   []string // names and values in turn
}

// message returns the message in an entry, which was added at that time. It is yet to be checked.
func (e entry) message(at time.Time) (*hub.Message, error) {
	if len(e.fields)%2 != 0 {
		return nil, errors.New("a field has no value")
	}
	m := &hub.Message{Position: e.position, Time: at}
	var target ingest.Target
	seen := make([]string, 0, 8) // names other than topic
	private := false
	for i := 0; i < len(e.fields); i += 2 {
		name, value := e.fields[i], e.fields[i+1]
		if slices.Contains(seen, name) {
			return nil, fmt.Errorf("field %q is there twice", name)
		}
		if name != "topic" {
			seen = append(seen, name)
		}
		var err error
		switch name {
		case "topic":
			target.Topics, target.HasTopic = append(target.Topics, value), true
		case "client_id":
			target.ClientID = &value
		case "user":
			target.User = &value
		case "broadcast":
			target.Broadcast, err = ingest.ParseBool(value)
		case "event":
			m.Event = value
		case "key":
			m.Key = value
		case "id":
			m.ChosenID = value
		case "private":
			m.AnyTopic = true
			private, err = ingest.ParseBool(value)
		case "data":
			m.Data = []byte(value)
		case "retry":
			m.HasRetry = true
			m.Retry, err = readRetry(value)
		default:
			return nil, fmt.Errorf("unknown field %q", name)
		}
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", name, err)
		}
	}
	if !slices.Contains(seen, "data") {
		return nil, errors.New("data is missing")
	}
	if m.AnyTopic && target.HasTopic {
		m.To = selectable(target.Topics, private)
		target = ingest.Target{ClientID: target.ClientID, User: target.User, Broadcast: target.Broadcast}
	}
	to, err := target.Addresses()
	if err != nil {
		return nil, err
	}
	m.To = append(m.To, to...)
	return m, nil
}

// selectable returns the addresses of a message whose topics may be any text.
func selectable(topics []string, private bool) []hub.Address {
	if private {
		return hub.PrivateTopics(topics...)
	}
	return hub.Topics(topics...)
}

// readRetry reads the retry of an entry. What is in the log already is brought within the bounds.
func readRetry(text string) (int64, error) {
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 {
		return 0, errors.New("must be a whole number of milliseconds")
	}
	return ingest.BoundRetry(ms), nil
}

// fieldsOf yields the fields of a message in form B, with topic once for each topic.
func fieldsOf(m *hub.Message) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, to := range m.To {
			if name, value := targetField(to); !yield(name, value) {
				return
			}
		}
		if m.Event != "" && !yield("event", m.Event) {
			return
		}
		if m.Key != "" && !yield("key", m.Key) {
			return
		}
		if m.ChosenID != "" && !yield("id", m.ChosenID) {
			return
		}
		if (m.AnyTopic || m.Private()) && !yield("private", m.Private()) {
			return
		}
		if m.HasRetry && !yield("retry", m.Retry) {
			return
		}
		yield("data", m.Data)
	}
}

// targetField returns the field that names an address.
func targetField(a hub.Address) (name string, value any) {
	switch a.Kind {
	case hub.ToTopic, hub.ToPrivate:
		return "topic", a.Name
	case hub.ToClient:
		return "client_id", a.Name
	case hub.ToUser:
		return "user", a.Name
	case hub.ToBroadcast:
	}
	return "broadcast", true
}

// appendEntryFields appends a message as the fields of an entry. go-redis writes true as 1.
func appendEntryFields(args []any, m *hub.Message) []any {
	for name, value := range fieldsOf(m) {
		args = append(args, name, value)
	}
	return args
}

// rangeOf reads up to count entries from the stream. It does not use XRange, which keeps only one field of
// each name.
func rangeOf(ctx context.Context, node redis.Cmdable, key, from string, count int) ([]entry, error) {
	cmd := redis.NewCmd(ctx, "XRANGE", key, from, "+", "COUNT", count)
	pipe := node.Pipeline()
	_ = pipe.Process(ctx, cmd) // queues it
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	return parseEntries(cmd.Val())
}

// readEntries returns the entries that an XREAD of one stream gave; none if it timed out.
func readEntries(cmd *redis.Cmd) ([]entry, error) {
	if errors.Is(cmd.Err(), redis.Nil) {
		return nil, nil
	}
	streams, err := cmd.Slice()
	if err != nil || len(streams) == 0 {
		return nil, err
	}
	stream, _ := streams[0].([]any)
	if len(stream) != 2 {
		return nil, errUnexpectedReply
	}
	return parseEntries(stream[1])
}

var errUnexpectedReply = errors.New("redis gave a reply of unexpected form")

// parseEntries returns the entries in a reply.
func parseEntries(reply any) ([]entry, error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, errUnexpectedReply
	}
	entries := make([]entry, 0, len(list))
	for _, item := range list {
		pair, _ := item.([]any)
		if len(pair) != 2 {
			return nil, errUnexpectedReply
		}
		id, _ := pair[0].(string)
		position, err := parseEntryID(id)
		if err != nil {
			return nil, err
		}
		values, _ := pair[1].([]any)
		e := entry{position: position, fields: make([]string, len(values))}
		for i, value := range values {
			e.fields[i], _ = value.(string)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// entryID returns a position in the form of Redis.
func entryID(p hub.Position) string {
	return strconv.FormatUint(p.Major, 10) + "-" + strconv.FormatUint(p.Minor, 10)
}

// parseEntryID reads a position in the form of Redis.
func parseEntryID(id string) (p hub.Position, err error) {
	ms, seq, _ := strings.Cut(id, "-")
	if p.Major, err = strconv.ParseUint(ms, 10, 64); err != nil {
		return p, fmt.Errorf("reading the entry ID %q: %w", id, err)
	}
	if p.Minor, err = strconv.ParseUint(seq, 10, 64); err != nil {
		return p, fmt.Errorf("reading the entry ID %q: %w", id, err)
	}
	return p, nil
}
