package soak

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	neturl "net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// Who publishes what: topics whose every message counts, messages to one user, and a topic of values, of which the
// newest of each key counts.
var (
	topics     = []string{"soak/a", "soak/b", "soak/c"}
	keys       = []string{"k1", "k2", "k3", "k4"}
	toUser     = "the user u1" // stands for a topic in the ledger
	valueTopic = "values/all"
)

// publish starts the world's publishers. Each sends one message after the other until ctx ends.
func (w *world) publish(ctx context.Context, running *sync.WaitGroup) {
	const pause = 30 * time.Millisecond // five worlds share a machine
	for n, to := range append(topics, topics[0], topics[1], toUser) {
		running.Go(func() {
			w.ledger.Drive(ctx, strconv.Itoa(n), to, pause, func(text string) (string, e2etest.Outcome) {
				return w.post(context.WithoutCancel(ctx), to, "", text)
			})
		})
	}
	running.Go(func() { w.publishOnce(ctx, topics[2], pause) })
	for _, key := range keys {
		running.Go(func() { w.publishValues(ctx, key, pause) })
	}
}

// publishOnce publishes without keys. What got no answer is not sent again: it may come, and need not.
func (w *world) publishOnce(ctx context.Context, to string, pause time.Duration) {
	for n := 0; ctx.Err() == nil; n++ {
		text := fmt.Sprintf("once/%d", n)
		id, outcome := w.send(context.WithoutCancel(ctx), "?topic="+neturl.QueryEscape(to), "text/plain", text, "")
		if outcome != e2etest.OutcomeUnknown {
			w.ledger.Note(text, to, id, outcome)
		}
		time.Sleep(pause)
	}
}

// publishValues publishes rising numbers under a key.
func (w *world) publishValues(ctx context.Context, key string, pause time.Duration) {
	for ctx.Err() == nil {
		text := w.values.next(key)
		for {
			_, outcome := w.post(context.WithoutCancel(ctx), valueTopic, key, text)
			if outcome == e2etest.OutcomePublished {
				break
			}
			time.Sleep(10 * time.Millisecond)
			if ctx.Err() != nil {
				return
			}
		}
		time.Sleep(pause)
	}
}

// post publishes a message with an Idempotency-Key of its own, in one of the forms that there are, the same for the
// same text.
func (w *world) post(ctx context.Context, to, key, text string) (id string, outcome e2etest.Outcome) {
	idempotency := to + " " + key + " " + text
	if to == toUser || key != "" {
		message := map[string]any{"data": text}
		if to == toUser {
			message["user"] = "u1"
		} else {
			message["topic"], message["key"] = to, key
		}
		body, _ := json.Marshal(message)
		return w.send(ctx, "", "application/json", string(body), idempotency)
	}
	query := "?topic=" + neturl.QueryEscape(to)
	hash := fnv.New32()
	_, _ = hash.Write([]byte(text))
	object, _ := json.Marshal(map[string]string{"topic": to, "data": text})
	switch hash.Sum32() % 5 {
	case 0:
		return w.send(ctx, "", "application/json", string(object), idempotency)
	case 1:
		return w.send(ctx, "", "application/x-www-form-urlencoded", neturl.Values{"topic": {to}, "data": {text}}.Encode(), idempotency)
	case 2:
		return w.send(ctx, "", "application/x-ndjson", string(object)+"\n", idempotency)
	case 3:
		block := eventstream.Event{Data: []byte(text), HasData: true}
		return w.send(ctx, query, "text/event-stream", string(block.Append(nil)), idempotency)
	}
	return w.send(ctx, query, "text/plain", text, idempotency)
}

// send makes one request of a publisher and returns what it knows then.
func (w *world) send(ctx context.Context, query, contentType, body, key string) (id string, outcome e2etest.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	options := []e2etest.Option{e2etest.Header("Content-Type", contentType)}
	if key != "" {
		options = append(options, e2etest.Header("Idempotency-Key", key))
	}
	answer, err := e2etest.Do(ctx, http.MethodPost, w.url("/events"+query), body, options...)
	if err != nil {
		return "", e2etest.OutcomeUnknown
	}
	var told struct {
		ID     string
		LastID string `json:"last_id"` // of a body of lines or events
		Detail string
	}
	broken := json.Unmarshal([]byte(answer.Body), &told)
	switch {
	case answer.Status == http.StatusOK && broken == nil:
		return cmp.Or(told.ID, told.LastID), e2etest.OutcomePublished
	case strings.Contains(told.Detail, "not published"):
		return "", e2etest.OutcomeRefused
	case answer.Status < http.StatusInternalServerError:
		w.t.Errorf("publishing %q as %s is answered %d: %s", body, contentType, answer.Status, answer.Body)
	}
	return "", e2etest.OutcomeUnknown
}
