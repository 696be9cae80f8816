package soak

import (
	"bytes"
	"sync/atomic"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// tamperings are what a broken program could do to its readers. Each is done to a few of their messages.
var tamperings = map[string]func(eventstream.Event) []eventstream.Event{
	"a message is lost": each(20, func(eventstream.Event) []eventstream.Event { return nil }),
	"a message comes twice": each(20, func(e eventstream.Event) []eventstream.Event {
		return []eventstream.Event{e, e}
	}),
	"an older message comes after a newer": older(),
	"a gap is not told": func(e eventstream.Event) []eventstream.Event {
		if e.Name == "gap" {
			return nil
		}
		return []eventstream.Event{e}
	},
	"a message comes to somebody else": each(20, func(e eventstream.Event) []eventstream.Event {
		stranger := e
		stranger.Data = []byte("5/1") // of the publisher to u1
		return []eventstream.Event{stranger}
	}),
}

// each tampers with one of so many messages.
func each(n int64, tamper func(eventstream.Event) []eventstream.Event) func(eventstream.Event) []eventstream.Event {
	var count atomic.Int64
	return func(e eventstream.Event) []eventstream.Event {
		if e.Name == "gap" || bytes.HasPrefix(e.Data, []byte("end of ")) || count.Add(1)%n != 0 {
			return []eventstream.Event{e}
		}
		return tamper(e)
	}
}

// older gives an older message again, in the place of one.
func older() func(eventstream.Event) []eventstream.Event {
	var first atomic.Pointer[eventstream.Event]
	return each(20, func(e eventstream.Event) []eventstream.Event {
		if first.CompareAndSwap(nil, &e) {
			return []eventstream.Event{e}
		}
		return []eventstream.Event{e, *first.Load()}
	})
}
