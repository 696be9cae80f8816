package hub

import (
	"fmt"
	"strings"
	"testing"
)

func TestTheFirstPolicyThatCoversATopicCounts(t *testing.T) {
	h := NewHub(Limits{Policies: []Policy{
		{Pattern: "prices/btc"}, {Pattern: "prices/*"}, {Pattern: "prices/**"}, {Pattern: "*/btc"}, {Pattern: "prices/btc"},
	}})
	defer h.Close()
	for name, want := range map[string]string{
		"prices/btc":   "prices/btc",
		"prices/eth":   "prices/*",
		"prices/eth/1": "prices/**",
		"coins/btc":    "*/btc",
		"prices":       "",
		"coins":        "",
	} {
		got := ""
		if p := h.Policy(name); p != nil {
			got = p.Pattern
		}
		if got != want {
			t.Errorf("the policy of %s is that of %q; want %q", name, got, want)
		}
	}
	first := &h.limits.Policies[0]
	if h.Policy("prices/btc") != first {
		t.Error("of two policies for the same topic, the second counts")
	}
	h.Apply(Limits{Policies: []Policy{{Pattern: "coins"}}})
	if h.Policy("prices/btc") != nil || h.Policy("coins") == nil {
		t.Error("the policies of before hold still")
	}
}

// BenchmarkPolicy looks up topics beside many policies that have nothing to do with them.
func BenchmarkPolicy(b *testing.B) {
	for _, n := range []int{0, 1, 100_000} {
		var list []Policy
		for i := range n {
			list = append(list, Policy{Pattern: fmt.Sprint("a/", i, "/*")})
		}
		p := newPolicies(list)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.of("a/0/b")
			}
		})
	}
}

func TestAKeyIsCheckedBeforeItIsPublished(t *testing.T) {
	for key, fine := range map[string]bool{
		"": true, "BTC": true, "a b/ü": true, strings.Repeat("k", 128): true,
		strings.Repeat("k", 129): false, "a\nb": false, "a\x00": false, "a\u0085": false, "\xff": false,
	} {
		m := &Message{To: Topics("a"), Key: key}
		if err := m.Check(); err == nil != fine {
			t.Errorf("the key %q: %v", key, err)
		} else if err != nil && !strings.Contains(err.Error(), "key must be at most 128 bytes of UTF-8") {
			t.Errorf("the key %q is refused with %q, which does not say what a key may be", key, err)
		}
	}
}
