package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// boltSite keeps its log in a file; clients come back at once.
func boltSite(options string) string {
	return "{\n\tsse {\n\t\thistory 1000000\n\t\tbroker bolt {{dir}}/sse.db {\n\t\t\t" + options + "\n\t\t}\n\t}\n}\n" +
		strings.Replace(openSite, "sse /events {", "sse /events {\n\t\tretry 100ms", 1)
}

// TestWhatWasAcknowledgedSurvivesSIGKILLAtAnyMoment kills the server under load, again and again, and
// holds what clients got and what the log keeps against a ledger of the answers.
//
// The server is the one users run: 50 starts of one with the race detector take minutes on a busy
// machine, and it finds nothing in a process that is killed.
func TestWhatWasAcknowledgedSurvivesSIGKILLAtAnyMoment(t *testing.T) {
	e2etest.NotAboutStreams(t)
	for options, rounds := range map[string]int{"sync on": 50, "sync off": 10} {
		t.Run(options, func(t *testing.T) {
			server := e2etest.Start(t, boltSite(options), e2etest.Plain())
			beginning := e2etest.Subscribe(t, server.URL("/events?topic=a")).Connected(t).ID
			k := &killing{t: t, server: server, ledger: e2etest.NewLedger()}
			var clients []*e2etest.Reconnecting
			sets := [][]string{{"a"}, {"b"}, {"a", "b"}}
			for _, topics := range sets {
				client := e2etest.Reconnect(t, k.url(topics...), e2etest.LastEventID(beginning))
				e2etest.Await(t, "a client is connected", func() bool { return len(client.Connects()) > 0 })
				clients = append(clients, client)
			}
			k.publishWhile(func() {
				for range rounds {
					time.Sleep(rand.N(250 * time.Millisecond)) // any moment will do
					server.Kill()
					server.Restart()
				}
				e2etest.Await(t, "enough messages to be acknowledged", func() bool {
					published, _, _ := k.ledger.Counts()
					return published >= 10*rounds
				})
			})
			for i, topics := range sets {
				// Who was there all the time, and who comes only now, get the same.
				k.judge(beginning, topics, clients[i])
				k.judge(beginning, topics, e2etest.Reconnect(t, k.url(topics...), e2etest.LastEventID(beginning)))
			}
			published, _, again := k.ledger.Counts()
			t.Logf("%d messages were acknowledged, %d requests had no answer", published, again)
			if again < rounds/2 {
				t.Errorf("that is no load: %d requests were cut off", again)
			}
		})
	}
}

// killing is a server that is killed while publishers try to get through.
type killing struct {
	t      *testing.T
	server *e2etest.Server
	ledger *e2etest.Ledger
}

func (k *killing) url(topics ...string) string {
	return k.server.URL("/events?topic=" + strings.Join(topics, "&topic="))
}

// publishWhile has publishers under way while do runs.
func (k *killing) publishWhile(do func()) {
	k.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for i := range 8 {
		topic, client := []string{"a", "b"}[i%2], e2etest.H1(k.t)
		running.Go(func() {
			k.ledger.Drive(ctx, fmt.Sprint(i), topic, time.Millisecond, func(text string) (string, e2etest.Outcome) {
				return k.publish(client, topic, text)
			})
		})
	}
	do()
}

// publish sends a message once, under a key, and returns what is known of it.
func (k *killing) publish(client *http.Client, topic, text string) (id string, outcome e2etest.Outcome) {
	answer, err := e2etest.Do(context.Background(), http.MethodPost, k.url(topic), text,
		e2etest.Via(client), e2etest.Header("Idempotency-Key", text))
	var body struct{ ID, Detail string }
	switch {
	case err != nil || json.Unmarshal([]byte(answer.Body), &body) != nil:
		return "", e2etest.OutcomeUnknown // the process was gone before it had answered
	case answer.Status == http.StatusOK:
		return body.ID, e2etest.OutcomePublished
	}
	k.t.Errorf("publishing is answered %d: %s", answer.Status, answer.Body)
	return "", e2etest.OutcomeRefused
}

// judge publishes a last message to each topic, waits until a client has it, and checks all that it got.
func (k *killing) judge(from string, topics []string, client *e2etest.Reconnecting) {
	k.t.Helper()
	for _, topic := range topics {
		end := fmt.Sprint("end ", rand.Uint64())
		id, outcome := k.publish(e2etest.H1(k.t), topic, end)
		k.ledger.Note(end, topic, id, outcome)
		client.Await(k.t, patience, func(events []eventstream.Event) bool {
			return len(events) > 0 && string(events[len(events)-1].Data) == end
		})
	}
	for _, fault := range k.ledger.Judge(from, topics, client.Stop()) {
		k.t.Errorf("a client of %v: %s", topics, fault)
	}
	for i, connected := range client.Connects() {
		if connected.Resume != "complete" {
			k.t.Errorf("a client of %v was told %q when it came for the %d. time", topics, connected.Resume, i+1)
		}
	}
}
