package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// sharedSite is a route with a broker.
func sharedSite(broker string) string {
	return "{\nsse {\nbroker " + broker + "\nhistory 1000\n}\n}\n" + openSite
}

// wantLatest subscribes late, and wants the newest value of each of so many topics once and in order.
func wantLatest(t *testing.T, server *e2etest.Server, topics, last int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL("/events?topic=price/*&since=latest&format=ndjson"), http.NoBody)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	lines.Scan() // connected
	seen := make(map[string]bool)
	for before := -1; len(seen) < topics && lines.Scan(); {
		var o struct{ Topic, Data string }
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			continue // a heartbeat
		}
		n, err := strconv.Atoi(o.Data)
		if err != nil || seen[o.Topic] || n <= before || n < last-topics || "price/"+strconv.Itoa(n*7919%topics) != o.Topic {
			t.Fatalf("behind %d of %d came %s", before, topics, lines.Text())
		}
		seen[o.Topic], before = true, n
	}
	if len(seen) < topics {
		t.Errorf("of %d topics came %d, %v", topics, len(seen), lines.Err())
	}
}

func TestLateJoinersGetTheNewestOfTenThousandTopics(t *testing.T) {
	t.Parallel()
	const topics, rounds = 10_000, 2
	redis := e2etest.RedisServer(t)
	for name, broker := range map[string]string{
		"memory": "memory", "bolt": "bolt {{dir}}/hub.db", "redis": "redis " + redis.URL(),
	} {
		t.Run(name, func(t *testing.T) {
			server := e2etest.Start(t, sharedSite(broker))
			var body strings.Builder
			for n := range rounds * topics {
				fmt.Fprintf(&body, "{\"topic\":\"price/%d\",\"data\":\"%d\"}\n", n*7919%topics, n)
			}
			e2etest.Publish(t, server.URL("/events"), body.String(), e2etest.Header("Content-Type", "application/x-ndjson"))
			wantLatest(t, server, topics, rounds*topics)
			switch name {
			case "bolt":
				server.Stop()
				server.Restart()
				wantLatest(t, server, topics, rounds*topics)
			case "redis":
				wantLatest(t, e2etest.Start(t, sharedSite(broker)), topics, rounds*topics)
			}
		})
	}
}

func TestPollsAcrossInstancesAndReloadsMissNothingAndDoubleNothing(t *testing.T) {
	t.Parallel()
	const messages = 600
	redis := e2etest.RedisServer(t)
	site := sharedSite("redis " + redis.URL())
	servers := []*e2etest.Server{e2etest.Start(t, site), e2etest.Start(t, site)}
	published := make(chan error, 1)
	go func() {
		published <- func() error {
			for i := range messages {
				for {
					_, err := e2etest.Do(t.Context(), http.MethodPost, servers[i%2].URL("/events?topic=a/"+strconv.Itoa(i%3)), strconv.Itoa(i),
						e2etest.Header("Idempotency-Key", "m"+strconv.Itoa(i)))
					if err == nil {
						break
					}
					if t.Context().Err() != nil {
						return err
					}
				}
				if i%150 == 75 {
					if err := servers[i/150%2].Reload(strings.Replace(site, "publish {", fmt.Sprintf("retry %ds\npublish {", 3+i/150), 1)); err != nil {
						return err
					}
				}
			}
			return nil
		}()
	}()
	var got, want []string
	last := ""
	for began, n := time.Now(), 0; len(got) < messages && time.Since(began) < patience; n++ {
		answer, err := e2etest.Do(t.Context(), http.MethodGet, servers[n%2].URL("/events?topic=a/*&format=json&wait=2s&limit=17"), "",
			e2etest.LastEventID(last))
		if err != nil {
			continue // the listener that a reload closes may have taken the connection with it
		}
		var polled struct {
			Resume   string
			Messages []struct{ Data string }
			LastID   string `json:"last_id"`
		}
		if decodeLoosely(t, answer, &polled); answer.Status != http.StatusOK || last != "" && polled.Resume != "complete" {
			t.Fatalf("behind %d messages an answer is %d %s", len(got), answer.Status, answer.Body)
		}
		for _, m := range polled.Messages {
			got = append(got, m.Data)
		}
		last = polled.LastID
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		want = append(want, strconv.Itoa(i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d messages came: %v", len(got), got)
	}
}
