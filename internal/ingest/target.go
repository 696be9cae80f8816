package ingest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// MaxTargets bounds how many topics one message may be published to.
const MaxTargets = 100

// Target are the ways to say whom a message is for, of which exactly one is to be used.
type Target struct {
	Topics    []string
	HasTopic  bool
	ClientID  *string
	User      *string
	Broadcast bool
}

// Addresses returns whom the fields name, nil if nobody. The names are copies: they are kept with the message, and nothing
// else of what they came in is to be.
func (f Target) Addresses() (to []hub.Address, err error) {
	named := 0
	if f.HasTopic {
		to = hub.Topics(topic.Distinct(f.Topics)...)
		named++
	}
	if f.ClientID != nil {
		to = []hub.Address{{Kind: hub.ToClient, Name: *f.ClientID}}
		named++
	}
	if f.User != nil {
		to = []hub.Address{{Kind: hub.ToUser, Name: *f.User}}
		named++
	}
	if f.Broadcast {
		to = []hub.Address{{Kind: hub.ToBroadcast}}
		named++
	}
	switch {
	case named > 1:
		return nil, errors.New("a message has one kind of target; use only one of topic, client_id, user and broadcast")
	case f.HasTopic && len(to) == 0:
		return nil, errors.New("topic names no topic; give at least one")
	case len(to) > MaxTargets:
		return nil, fmt.Errorf("%d topics are too many for one message; the limit is %d", len(to), MaxTargets)
	}
	for i := range to {
		to[i].Name = strings.Clone(to[i].Name)
	}
	return to, nil
}
