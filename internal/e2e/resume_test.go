package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestAClientResumesOverMoreThanTenThousandMessagesWhileOthersArePublished(t *testing.T) {
	t.Parallel()
	const kept = 12_000
	server := e2etest.Start(t, tlsSite(siteOptions{hub: "history 100000"}), awaitTLS)
	plain, secure := server.URL("/events?topic=load"), server.Expand("https://localhost:{{tls}}/events?topic=load")
	first := e2etest.Subscribe(t, plain)
	start := first.Connected(t).ID
	first.Close()
	var lines strings.Builder
	for n := range int64(kept) {
		lines.WriteString(numbered(0, n, 100) + "\n")
	}
	e2etest.Publish(t, plain, lines.String(), e2etest.Header("Content-Type", "application/x-ndjson"))

	f := newFleet(t)
	l := newLoad(plain, 100)
	l.next[0].Store(kept)
	l.start(t, 4)
	resume := "&last_event_id=" + start
	f.dial(t, plain+resume, 10)
	f.via(t, e2etest.H2(t), secure+resume, 10, "h2")
	f.via(t, e2etest.H3(t), secure+resume, 10, "h3")
	l.awaitMore(t, 200)
	f.await(t, l.stop(t))
	for _, x := range f.followers {
		if !strings.Contains(x.hello, `"resume":"complete"`) {
			t.Errorf("%s was told %s", x.name, x.hello)
		}
	}
}

// journey is a client whose connection fails at random, and what it follows.
type journey struct {
	*e2etest.Reconnecting
	topics, patterns []string
	cuts             int
}

// gets reports whether a message to these topics is for the client.
func (j *journey) gets(topics []string) bool {
	return slices.ContainsFunc(topics, func(topic string) bool {
		root, _, _ := strings.Cut(topic, "/")
		return slices.Contains(j.topics, topic) || slices.Contains(j.patterns, root+"/*") || slices.Contains(j.patterns, "**")
	})
}

// TestWhatClientsSeeIsWhatWasPublished is a property: whatever the topics, the
// disconnections and the reloads, each client sees the messages of its topics,
// all of them, once, in one order.
func TestWhatClientsSeeIsWhatWasPublished(t *testing.T) {
	t.Parallel()
	const (
		messages    = 3000
		posters     = 3
		disconnects = 200
	)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	config := func(i int) string {
		return tlsSite(siteOptions{
			hub:   fmt.Sprintf("history %d", 10_000+i),
			route: fmt.Sprintf("retry %dms\nqueue 16 64KiB\nheartbeat %ds", 105+i, 20+i),
		})
	}
	server := e2etest.Start(t, config(0), awaitTLS)
	topics := []string{"a/1", "a/2", "b/1", "b/2", "c"}
	patterns := []string{"a/*", "b/*", "**"}

	var journeys []*journey
	for i := range 15 {
		j := &journey{}
		for _, topic := range topics {
			if random.IntN(3) == 0 {
				j.topics = append(j.topics, topic)
			}
		}
		if random.IntN(2) == 0 {
			j.patterns = append(j.patterns, patterns[random.IntN(len(patterns))])
		}
		if len(j.topics)+len(j.patterns) == 0 {
			j.topics = topics[:1]
		}
		url := server.URL("/events?")
		options := []e2etest.Option{}
		switch i % 3 {
		case 1:
			url = server.Expand("https://localhost:{{tls}}/events?")
			options = append(options, e2etest.Via(e2etest.H2(t)))
		case 2:
			url = server.Expand("https://localhost:{{tls}}/events?")
			options = append(options, e2etest.Via(e2etest.H3(t)))
		}
		j.Reconnecting = e2etest.Reconnect(t, url+"topic="+strings.Join(slices.Concat(j.topics, j.patterns), "&topic="), options...)
		journeys = append(journeys, j)
	}
	witness := e2etest.Subscribe(t, server.URL("/events?topic=**"))
	witness.Connected(t)
	for _, j := range journeys {
		e2etest.Await(t, "connection", func() bool { return len(j.Connects()) > 0 })
	}

	var addressed [messages][]string // by number, the topics
	for n := range addressed {
		addressed[n] = []string{topics[random.IntN(len(topics))]}
		if random.IntN(4) == 0 {
			addressed[n] = append(addressed[n], topics[random.IntN(len(topics))])
		}
	}
	var next atomic.Int64
	var posting sync.WaitGroup
	for range posters {
		client := e2etest.H1(t)
		posting.Go(func() {
			for n := next.Add(1) - 1; n < messages; n = next.Add(1) - 1 {
				url := server.URL("/events?topic=" + strings.Join(addressed[n], "&topic="))
				if err := post(t, client, url, fmt.Sprint(n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range disconnects {
		e2etest.Await(t, "messages", func() bool { return next.Load() >= int64(i*messages/disconnects) })
		j := journeys[random.IntN(len(journeys))]
		if j.Cut() {
			j.cuts++
		}
		if i%50 == 25 {
			if err := server.Reload(config(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	posting.Wait()

	var order []string
	var orderedFor [][]string
	for range messages {
		event, err := witness.Next(patience)
		if err != nil {
			t.Fatalf("after %d messages: %v", len(order), err)
		}
		var n int
		if _, err := fmt.Sscan(string(event.Data), &n); err != nil {
			t.Fatal(err)
		}
		order, orderedFor = append(order, string(event.Data)), append(orderedFor, addressed[n])
	}
	for i, j := range journeys {
		var want []string
		for k, data := range order {
			if j.gets(orderedFor[k]) {
				want = append(want, data)
			}
		}
		j.Await(t, patience, atLeast(len(want)))
		got := dataOf(j.Stop())
		if !slices.Equal(got, want) {
			t.Errorf("client %d (topics %v, patterns %v, %d disconnections) has seen %d messages, and should %d; they differ from the %dth on",
				i, j.topics, j.patterns, j.cuts, len(got), len(want), firstDifference(got, want))
		}
		for k, connected := range j.Connects() {
			if k > 0 && connected.Resume != "complete" {
				t.Errorf("client %d, connection %d: resume is %q; want complete", i, k, connected.Resume)
			}
		}
	}
}

// post publishes until it is answered, with one Idempotency-Key.
func post(t *testing.T, client *http.Client, url, data string) error {
	for deadline := time.Now().Add(patience); ; {
		answer, err := e2etest.Do(t.Context(), http.MethodPost, url, data, e2etest.Via(client), e2etest.Header("Idempotency-Key", data))
		switch {
		case err == nil && answer.Status == http.StatusOK:
			return nil
		case err == nil:
			return fmt.Errorf("publishing %q: %d: %s", data, answer.Status, answer.Body)
		case time.Now().After(deadline):
			return fmt.Errorf("publishing %q: %w", data, err)
		}
	}
}

// dataOf returns what events hold; one with a name is shown with it.
func dataOf(events []eventstream.Event) (data []string) {
	for _, event := range events {
		if event.Name != "" {
			data = append(data, event.Name+": "+string(event.Data))
		} else {
			data = append(data, string(event.Data))
		}
	}
	return data
}

func firstDifference(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
