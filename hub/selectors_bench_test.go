package hub

import (
	"fmt"
	"testing"
)

// What 10,000 templates cost a publish, delivery included, that reaches the client of one of them: beside a client that
// names its topic.
func BenchmarkTemplates(b *testing.B) {
	const clients = 10_000
	for name, selector := range map[string]string{
		"exact":    "https://example.com/users/%d/books",
		"template": "https://example.com/users/%d/{thing}",
		"open":     "{scheme}://{+host}/users/%d/{thing}",
	} {
		for _, to := range []string{"known topics", "new topics", "private"} {
			if name == "exact" && to == "private" {
				continue
			}
			b.Run(name+"/"+to, func(b *testing.B) {
				h := benchHub(b)
				for i := range clients {
					s := Subscription{Subscriber: Subscriber{Form: Updates}}
					s.Selectors, _ = ParseSelectors(fmt.Sprintf(selector, i))
					s.Granted, _ = ParseSelectors(fmt.Sprintf("https://example.com/users/%d/{?topic}", i))
					enter(b, h, s)
				}
				settled(h)
				epoch := h.Position().Epoch
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					topic := fmt.Sprintf("https://example.com/users/%d/books", i%100)
					if to == "new topics" && name != "exact" {
						topic += fmt.Sprint(i)
					}
					addresses := Topics(topic)
					if to == "private" {
						addresses = PrivateTopics(topic, fmt.Sprintf("https://example.com/users/%d/", i%100))
					}
					_, _ = h.Append(&Message{To: addresses, Data: payload}, epoch)
					settled(h)
					i++
				}
			})
		}
	}
}
