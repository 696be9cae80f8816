package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Claims are what a token says, verified.
type Claims struct {
	jwt.Claims
	SSE    jsontext.Value `json:"sse"`
	Grants Grants         `json:"-"`
	Name   string         `json:"-"` // tells these claims from others; a token has many spellings, its payload one
}

// Grants are what a token allows: topics and patterns, and for publishing the other targets.
type Grants struct {
	Subscribe []string `json:"subscribe"`
	Publish   []string `json:"publish"`
}

// datesAreNumbers refuses null for a date: whoever writes that does not mean for ever.
var datesAreNumbers = json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, _ **jwt.NumericDate) error {
	if d.PeekKind() == 'n' {
		return jwt.ErrUnmarshalNumericDate
	}
	return errors.ErrUnsupported // as usual
}))

// The grants for what is not a topic. A topic can't be granted by a name that begins with "@".
const (
	grantClient    = "@client/"
	grantUser      = "@user/"
	grantBroadcast = "@broadcast"
)

// Check refuses a token whose grants are not all understood, lest one be taken for less or more.
func (g Grants) Check() error {
	for _, grant := range g.Subscribe {
		if strings.HasPrefix(grant, "@") || topic.CheckPattern(grant) != nil {
			return fmt.Errorf("the token's subscribe grant %q is not a topic or pattern", grant)
		}
	}
	for _, grant := range g.Publish {
		if !knownPublishGrant(grant) {
			return fmt.Errorf("the token's publish grant %q is none of a topic, a pattern, %s<id or *>, %s<name or *> and %s",
				grant, grantClient, grantUser, grantBroadcast)
		}
	}
	return nil
}

func knownPublishGrant(grant string) bool {
	if id, ok := strings.CutPrefix(grant, grantClient); ok {
		return id == "*" || hub.CheckClientID(id) == nil
	}
	if name, ok := strings.CutPrefix(grant, grantUser); ok {
		return hub.CheckUser(name) == nil
	}
	return grant == grantBroadcast || !strings.HasPrefix(grant, "@") && topic.CheckPattern(grant) == nil
}

// MayPublish reports whether the grants cover an address.
func (g Grants) MayPublish(to hub.Address) bool {
	switch to.Kind {
	case hub.ToClient:
		return g.grantsName(grantClient, to.Name)
	case hub.ToUser:
		return g.grantsName(grantUser, to.Name)
	case hub.ToBroadcast:
		return slices.Contains(g.Publish, grantBroadcast)
	}
	return !strings.HasPrefix(to.Name, "@") && topic.Covered(g.Publish, to.Name)
}

func (g Grants) grantsName(prefix, name string) bool {
	return slices.Contains(g.Publish, prefix+"*") || slices.Contains(g.Publish, prefix+name)
}
