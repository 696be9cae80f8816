package redislog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/redis/go-redis/v9"
)

// entry is one entry of the stream, as any program may have written it. Its fields are those of a
// message in form B; topic may stand several times.
type entry struct {
	position hub.Position
	fields   []string // names and values in turn
}

// message reads an entry.
func (e entry) message() (*hub.Message, error) {
	if len(e.fields)%2 != 0 {
		return nil, errors.New("a field has no value")
	}
	now := uint64(time.Now().UnixMilli()) // anybody may have chosen the position
	m := &hub.Message{Position: e.position, Time: time.UnixMilli(int64(min(e.position.Major, now)))}
	var target ingest.Target
	seen := make([]string, 0, 8) // as many as there are names but topic
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
		case "data":
			m.Data = []byte(value)
		case "retry":
			m.HasRetry = true
			m.Retry, err = ingest.ParseRetry(value)
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
	var err error
	if m.To, err = target.Addresses(); err != nil {
		return nil, err
	}
	return m, m.Check()
}

// appendEntryFields appends a message as the fields of an entry.
func appendEntryFields(fields []any, m *hub.Message) []any {
	for _, to := range m.To {
		switch to.Kind {
		case hub.ToTopic:
			fields = append(fields, "topic", to.Name)
		case hub.ToClient:
			fields = append(fields, "client_id", to.Name)
		case hub.ToUser:
			fields = append(fields, "user", to.Name)
		case hub.ToBroadcast:
			fields = append(fields, "broadcast", "1")
		}
	}
	if m.Event != "" {
		fields = append(fields, "event", m.Event)
	}
	if m.HasRetry {
		fields = append(fields, "retry", strconv.FormatInt(m.Retry, 10))
	}
	return append(fields, "data", m.Data)
}

// rangeOf reads entries from the stream, with every field they have.
func rangeOf(ctx context.Context, node redis.Cmdable, key, from string, count int) ([]entry, error) {
	cmd := redis.NewCmd(ctx, "XRANGE", key, from, "+", "COUNT", count)
	pipe := node.Pipeline()
	_ = pipe.Process(ctx, cmd) // queues it
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	return parseEntries(cmd.Val())
}

// readEntries returns what an XREAD of one stream gave; nothing if it timed out.
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

// entryID returns a position as Redis writes it.
func entryID(p hub.Position) string {
	return strconv.FormatUint(p.Major, 10) + "-" + strconv.FormatUint(p.Minor, 10)
}

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
