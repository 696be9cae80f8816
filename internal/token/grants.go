package token

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// Grants are what a token allows: topics and patterns, and for publishing other targets, too.
type Grants struct {
	Subscribe []string `json:"subscribe"`
	Publish   []string `json:"publish"`
}

// What grants begin with that are not for topics. A grant for a topic can't begin with "@".
const (
	grantClient    = "@client/"
	grantUser      = "@user/"
	grantBroadcast = "@broadcast"
)

// Check refuses grants that are not all understood: a grant must not be taken for less or more than it is.
func (g Grants) Check() error {
	for _, grant := range g.Subscribe {
		if strings.HasPrefix(grant, "@") || topic.CheckPattern(grant) != nil {
			return fmt.Errorf("the token's subscribe grant %q is not a topic or pattern", grant)
		}
	}
	for _, grant := range g.Publish {
		if !isPublishGrant(grant) {
			return fmt.Errorf(
				"the token's publish grant %q is none of a topic, a pattern, %s<id or *>, %s<name or *> and %s",
				grant, grantClient, grantUser, grantBroadcast)
		}
	}
	return nil
}

func isPublishGrant(grant string) bool {
	if id, ok := strings.CutPrefix(grant, grantClient); ok {
		return id == "*" || hub.CheckClientID(id) == nil
	}
	if name, ok := strings.CutPrefix(grant, grantUser); ok {
		return hub.CheckUser(name) == nil
	}
	return grant == grantBroadcast || !strings.HasPrefix(grant, "@") && topic.CheckPattern(grant) == nil
}

// MayPublish reports whether the grants allow publishing to an address.
func (g Grants) MayPublish(to hub.Address) bool {
	switch to.Kind {
	case hub.ToClient:
		return g.allowsName(grantClient, to.Name)
	case hub.ToUser:
		return g.allowsName(grantUser, to.Name)
	case hub.ToBroadcast:
		return slices.Contains(g.Publish, grantBroadcast)
	}
	return !strings.HasPrefix(to.Name, "@") && topic.Covered(g.Publish, to.Name)
}

func (g Grants) allowsName(prefix, name string) bool {
	return slices.Contains(g.Publish, prefix+"*") || slices.Contains(g.Publish, prefix+name)
}
