package sse

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// requestKey makes the publications of one request. Those without a key of their own share that of the
// request, if it has one, and have one record.
type requestKey struct {
	who publisher // scope of all keys
	key string    // of the request, complete with its scope; empty for none

	index  int               // messages that share the key so far
	before [sha256.Size]byte // fingerprint of the request up to here
}

// newRequestKey returns the key of a request; it may be empty.
func newRequestKey(who publisher, key string) *requestKey {
	k := &requestKey{who: who}
	if key != "" {
		k.key = k.scoped(key)
	}
	return k
}

// scoped returns a key with its scope.
func (k *requestKey) scoped(key string) string {
	sum := sha256.Sum256([]byte(k.who.name() + "\x00" + key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// publication prepares a draft for the broker.
func (k *requestKey) publication(d ingest.Draft) *broker.Publication {
	p := &broker.Publication{Message: d.Message}
	switch {
	case d.Key != "":
		p.Key, p.Fingerprint = k.scoped(d.Key), d.Fingerprint()
	case k.key != "":
		p.Key, p.Index, p.Fingerprint = k.key, k.index, d.Fingerprint()
		k.index++
	}
	return p
}

// whole prepares a draft of an array. The fingerprint is that of the array: a change of one message is a
// change of the request.
func (k *requestKey) whole(d ingest.Draft, array [sha256.Size]byte) *broker.Publication {
	p := k.publication(d)
	if d.Key == "" {
		p.Fingerprint = array
	}
	return p
}

// streamed prepares a draft of a body that is published as it arrives.
func (k *requestKey) streamed(d ingest.Draft) *broker.Publication {
	p := k.publication(d)
	if d.Key == "" && k.key != "" {
		p.Streamed, p.Before = true, k.before
		p.Fingerprint = sha256.Sum256(append(k.before[:], p.Fingerprint[:]...))
		k.before = p.Fingerprint
	}
	return p
}

// arrayFingerprint returns what an array is known by: all of its body.
func arrayFingerprint(body []byte) [sha256.Size]byte {
	hash := sha256.New()
	hash.Write([]byte("array\x00"))
	hash.Write(body)
	return [sha256.Size]byte(hash.Sum(nil))
}

// progress is how far a body that is published as it arrives has come.
type progress struct {
	published int
	requestID string  // last ID among the messages that share the request's key, or have none
	ownID     string  // last ID among the messages with keys of their own
	lastID    *string // the one of the two that came last; nil if there is none

	// A repeated message may be known only by what follows. These tell where the first such message stands.

	following int // messages that were published behind the last one, under the request's key
	unproven  bool
	proven    int // messages before the first that is not proven
	line      int // its line
}

// note takes in messages that were published, with the line of each.
func (g *progress) note(batch []*broker.Publication, lines []int, requestKey string) {
	for i, p := range batch {
		if p.Key == requestKey {
			if p.Unproven && !g.unproven {
				g.proven, g.line = g.published, lines[i]
			}
			g.unproven, g.following = p.Unproven, p.Following
		}
		g.published++
		id := &g.requestID
		if p.Key != requestKey {
			id = &g.ownID
		}
		if p.Receipt.ID != "" {
			*id = p.Receipt.ID
		}
		if !p.Ephemeral {
			g.lastID = id
		}
	}
}

// tooShort refuses a body that has ended, on a line, before what was published before under its key. It
// returns nil for any other.
func (g *progress) tooShort(line int) *problem.Problem {
	if g.following == 0 {
		return nil
	}
	refusal := problem.Of(broker.ErrKeyReused)
	refusal.Detail = fmt.Sprintf("the body ends where %d more messages were published before under its key; %s",
		g.following, refusal.Detail)
	g.locate(refusal, line)
	return refusal
}

// answer returns what the publisher is told at the end of the body.
func (g *progress) answer() publishedStream {
	answer := publishedStream{Published: g.published}
	if g.lastID != nil {
		answer.LastID = orNull(*g.lastID)
	}
	return answer
}

// locate says in a refusal what was published, and which line was refused. What is not proven to be what was
// published before does not count.
func (g *progress) locate(refusal *problem.Problem, line int) {
	refusal.Published, refusal.Line = &g.published, line
	if !g.unproven {
		return
	}
	refusal.Published = &g.proven
	if refusal.Status == http.StatusUnprocessableEntity {
		refusal.Line = g.line
		refusal.Detail = fmt.Sprintf("what differs from before stands in lines %d to %d; %s",
			g.line, line, refusal.Detail)
	}
}
