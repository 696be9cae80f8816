package ingest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// MaxTargets is how many topics one message may be published to.
const MaxTargets = 100

// Target holds the fields that name whom a message is for. A message uses one of them at most.
type Target struct {
	Topics    []string
	HasTopic  bool    // whether Topics was named, if only by an empty list
	ClientID  *string // nil if it was not named, as User
	User      *string
	Broadcast bool
}

// Addresses returns whom the fields name; nil if nobody. The names are copies: a message keeps them, and must
// not keep the whole body or URL that they came in.
func (t Target) Addresses() (to []hub.Address, err error) {
	named := 0
	if t.HasTopic {
		to = hub.Topics(topic.Distinct(t.Topics)...)
		named++
	}
	if t.ClientID != nil {
		to = []hub.Address{{Kind: hub.ToClient, Name: *t.ClientID}}
		named++
	}
	if t.User != nil {
		to = []hub.Address{{Kind: hub.ToUser, Name: *t.User}}
		named++
	}
	if t.Broadcast {
		to = []hub.Address{{Kind: hub.ToBroadcast}}
		named++
	}
	switch {
	case named > 1:
		return nil, errors.New(
			"a message has one kind of target; use only one of topic, client_id, user and broadcast")
	case t.HasTopic && len(to) == 0:
		return nil, errors.New("topic names no topic; give at least one")
	case len(to) > MaxTargets:
		return nil, tooManyTargets(len(to))
	}
	for i := range to {
		to[i].Name = strings.Clone(to[i].Name)
	}
	return to, nil
}

func tooManyTargets(n int) error {
	return fmt.Errorf("%d topics are too many for one message; the limit is %d", n, MaxTargets)
}
