package redislog

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// This file is how instances share guests: see hub.GuestHost. A guest is one more field of an instance's share of the
// totals. Who leaves stands in a list of goodbyes, from the same step on in which it is not listed any more, until all
// is published of that. So nobody leaves without a word, whichever instance dies when.

const (
	// goodbyeAfter is how long an instance has to publish what is to be published of a guest who has left, until another
	// one is asked.
	goodbyeAfter = 10 * time.Second
	// maxGoodbyes is how many guests who have left an instance is given at once.
	maxGoodbyes = 100
)

// guests is what the log knows of guests, besides who is elsewhere.
type guests struct {
	roll
	told bool // this instance has told which it has
	lost bool // Redis has lost what it told
}

// guestField returns the field of a guest in the totals and in an instance's hash.
func guestField(guest string) string { return "s:" + guest }

// goodbyeTime returns how long a guest whom this instance tells to have left is its own: no time if it publishes nothing.
func (l *Log) goodbyeTime() time.Duration {
	if l.presence.guests.of == 0 || l.replica == nil || l.replica.Context().Err() != nil {
		return 0
	}
	return goodbyeAfter
}

// noteGuests takes in who has come and gone on other instances, and who has left without a word.
func (l *Log) noteGuests(r told) {
	g := &l.presence.guests
	if g.of == 0 {
		return
	}
	_, settled := l.presence.known()
	changed, lost := g.take(r.term, r.guests, settled)
	if len(changed) > 0 {
		l.replica.GuestsElsewhere(g.of, changed)
	}
	// Those that were lost with the totals, and whose instance is gone as well, stand nowhere in Redis any more. Each
	// instance tells of them.
	if left := append(r.goodbyes, lost...); len(left) > 0 {
		l.replica.GuestsLeft(g.of, left)
	}
}

// forgetGuests has the hub forget who is on other instances.
func (l *Log) forgetGuests() {
	if gone := l.presence.guests.all(); len(gone) > 0 {
		l.replica.GuestsElsewhere(l.presence.guests.of, gone)
	}
}

// sayGoodbyes leaves to others what this instance was to publish and has not.
func (l *Log) sayGoodbyes(ctx context.Context, node redis.Cmdable) error {
	for some := range slices.Chunk(l.replica.UnsettledGuests(), presenceChunk) {
		left := make([]redis.Z, len(some))
		for i, guest := range some {
			left[i] = redis.Z{Score: 0, Member: guest}
		}
		if err := node.ZAddXX(ctx, l.presence.goodbyes(), left...).Err(); err != nil {
			return err
		}
	}
	return nil
}
