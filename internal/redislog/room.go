package redislog

import (
	"fmt"
	"math"
	"strings"

	"github.com/caddy-sse/caddy-sse/hub"
)

// lastPosition is the largest ID of an entry. Redis adds nothing behind it, until the stream is removed. Only
// another program can have chosen it.
var lastPosition = hub.Position{Major: math.MaxUint64, Minor: math.MaxUint64}

// noteRoom notes whether Redis can add to the log at all.
func (l *Log) noteRoom(room bool) {
	if l.exhausted.Swap(!room) == room {
		l.noteRefusal(nil)
	}
}

// noteRefusal tells the replica why Redis takes no messages, or that it does if err is nil.
func (l *Log) noteRefusal(err error) {
	if l.exhausted.Load() {
		err = fmt.Errorf("the log has an entry with the largest possible ID, %s, behind which Redis adds nothing: "+
			"nobody can publish until the key is removed, as by redis-cli DEL '%s'; clients are then told a gap",
			entryID(lastPosition), l.logKey)
	}
	l.replica.LogRefuses(l.located(err))
}

// saysExhausted reports whether Redis has refused an entry because the log has no room behind its last one.
func saysExhausted(reply string) bool {
	return strings.Contains(reply, "exhausted the last possible ID")
}
