package token

import (
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
)

func TestPublishGrantsCoverWhatTheyName(t *testing.T) {
	order := hub.Address{Kind: hub.ToTopic, Name: "orders/42"}
	kinds := map[string]hub.Kind{
		"topic": hub.ToTopic, "client": hub.ToClient, "user": hub.ToUser, "broadcast": hub.ToBroadcast,
	}
	for grant, addresses := range map[string]string{ // those it covers stand before the bar
		"orders/42": "topic:orders/42 | topic:orders topic:orders/421 topic:Orders/42 client:orders/42 " +
			"user:orders/42 broadcast:",
		"orders/*": "topic:orders/42 topic:orders/ | topic:orders topic:orders/4/2 user:orders/42",
		"**": "topic:a topic:a/b | topic:@broadcast topic:@user/a topic:@a/b client:x user:alice " +
			"broadcast:",
		"*": "topic:a | topic:a/b topic:@a client:a user:a broadcast:",
		"@client/dev-1": "client:dev-1 | client:dev-2 client:dev-1x topic:dev-1 topic:@client/dev-1 " +
			"user:dev-1 broadcast:",
		"@client/*": "client:dev-1 client:x | topic:x topic:@client/x user:x broadcast:",
		"@user/alice": "user:alice | user:bob user:alice2 user:Alice topic:alice topic:@user/alice " +
			"client:alice broadcast:",
		"@user/org/alice": "user:org/alice | user:org user:alice",
		"@user/*": "user:alice user:org/alice user:* | topic:alice topic:@user/alice client:alice " +
			"broadcast:",
		"@broadcast": "broadcast: | topic:@broadcast topic:broadcast client:a user:a",
	} {
		g := Grants{Publish: []string{grant}}
		if err := g.Check(); err != nil {
			t.Errorf("the grant %q is refused: %v", grant, err)
		}
		if g := (Grants{Subscribe: []string{grant}}); g.MayPublish(order) {
			t.Errorf("the subscribe grant %q lets publish", grant)
		}
		covered, others, _ := strings.Cut(addresses, "|")
		for want, list := range map[bool]string{true: covered, false: others} {
			for word := range strings.FieldsSeq(list) {
				kind, name, _ := strings.Cut(word, ":")
				if g.MayPublish(hub.Address{Kind: kinds[kind], Name: name}) != want {
					t.Errorf("grant %q and %s: %t, want %t", grant, word, !want, want)
				}
			}
		}
	}
	var none Grants
	if none.MayPublish(order) || none.MayPublish(hub.Address{Kind: hub.ToBroadcast}) {
		t.Error("no claim grants something")
	}
}
