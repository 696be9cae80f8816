package sse_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// A key that was used before a reload gets its first answer after it, whichever brokers come and go.
func TestKeysHoldOverReloadsThatChangeTheBroker(t *testing.T) {
	const memory = "broker memory\n"
	s := serveOnce(t, listenedRoute, globals("sse {\n"+memory+"}\n"))
	redis := "broker redis " + e2etest.RedisServer(t).URL() + "\n"
	stream := s.listen(t)
	current := memory
	var sent []func()
	send := func(n int) {
		for i, c := range []struct{ query, media, body string }{
			{"?topic=a", "", "%d one"},
			{"", jsonType, `[{"topic":"a","data":"%[1]d two"},{"topic":"b","data":"%[1]d more"}]`},
			{"?topic=a", ndjsonType, "%[1]d three\n%[1]d four\n"},
		} {
			body, k := fmt.Sprintf(c.body, n), key(fmt.Sprint(n, " ", i))
			first := post(t, s.url("/events"+c.query), c.media, body, k)
			if first.Status != http.StatusOK {
				t.Fatalf("with %s answered %d %s", current, first.Status, first.Body)
			}
			sent = append(sent, func() {
				if again := post(t, s.url("/events"+c.query), c.media, body, k); again.Body != first.Body {
					t.Errorf("with %sa key of before is answered %d %s; the first answer was %s",
						current, again.Status, again.Body, first.Body)
				}
				wantRefusal(t, post(t, s.url("/events?topic=a"), "", "other", k), http.StatusUnprocessableEntity)
			})
		}
		for _, text := range []string{"one", "two", "more", "three", "four"} {
			stream.Expect(t, fmt.Sprint(n, " ", text))
		}
	}
	send(0)
	for n, next := range []string{"broker bolt " + s.dir + "/sse.db\n", redis, memory} {
		s.conf = strings.Replace(s.conf, current, next, 1)
		current = next
		if err := s.load(); err != nil {
			t.Fatal(err)
		}
		stream.Expect(t, `{"reason":"broker_changed"}`)
		for _, again := range sent {
			again()
		}
		send(n + 1)
	}
	stream.wantNothing(t)
}
