package redislog

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
)

// This file is how a tail finds out whether the log is still the one that it has followed.

// finding is the result of verify.
type finding uint8

const (
	whole   finding = iota // the log goes on after the tail's position
	trimmed                // the log no longer keeps all entries after the tail's position
	foreign                // the log does not know the tail's position, or lacks what was acknowledged
)

// verify finds out whether the log is still the one that the tail has read. If the log was trimmed past the
// tail, verify also returns the newest position that is gone.
func (t *tail) verify(ctx context.Context, node redis.Cmdable) (finding, hub.Position, error) {
	fresh, acknowledged := t.at.Position == hub.Position{}, t.acked.newestUnread(t.at.Epoch)
	info, err := node.XInfoStream(ctx, t.logKey).Result()
	switch {
	case isNoSuchKey(err):
		info = &redis.XInfoStream{LastGeneratedID: "0-0"}
	case err != nil:
		return 0, hub.Position{}, err
	}
	last, err := parseEntryID(info.LastGeneratedID)
	if err != nil {
		return 0, hub.Position{}, err
	}
	ours, err := t.probe(ctx, node)
	if err != nil {
		return 0, hub.Position{}, err
	}
	purge, gone, err := t.readPurge(ctx, node)
	if err != nil {
		return 0, hub.Position{}, err
	}
	purged := ours == missing && !gone && purge.After(t.at.Position) // which may have deleted the entry
	nothingRead := t.noEntry && ours == missing                      // since the tail went on from a position without an entry
	t.noEntry, t.removed = ours == missing, info.EntriesAdded-info.Length
	lost := last
	if info.Length > 0 {
		first, err := parseEntryID(info.FirstEntry.ID)
		if err != nil {
			return 0, hub.Position{}, err
		}
		lost = before(first)
	}
	neverTrimmed := info.EntriesAdded == info.Length && (info.Length > 0 || last == hub.Position{})
	switch {
	case t.lostAck, acknowledged.After(last), ours == replaced:
		return foreign, hub.Position{}, nil
	case ours == same, last == t.at.Position, fresh && neverTrimmed, nothingRead && lost == t.at.Position,
		purged && !lost.After(t.at.Position),
		info.MaxDeletedEntryID == entryID(t.at.Position) && !lost.After(t.at.Position): // by XDEL
		return whole, hub.Position{}, nil
	case t.at.Position.After(last), !lost.After(t.at.Position), !fresh && neverTrimmed:
		return foreign, hub.Position{}, nil
	}
	return trimmed, lost, nil
}

// probeResult is what the log has at the tail's position.
type probeResult uint8

const (
	missing  probeResult = iota // no entry
	same                        // the entry that the tail has read
	replaced                    // another entry: a log that began again gives out positions again
)

// probe looks what the log has at the tail's position.
func (t *tail) probe(ctx context.Context, node redis.Cmdable) (probeResult, error) {
	entries, err := rangeOf(ctx, node, t.logKey, entryID(t.at.Position), 1)
	if err != nil {
		return missing, err
	}
	return t.compare(entries), nil
}

// compare looks what entries that begin at the tail's position have there.
func (t *tail) compare(entries []entry) probeResult {
	switch {
	case len(entries) == 0 || entries[0].position != t.at.Position:
		return missing
	case t.fields != nil && !slices.Equal(entries[0].fields, t.fields):
		return replaced
	}
	return same
}
