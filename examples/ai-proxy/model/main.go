// Command model is a fake model that speaks OpenAI's chat completions: it says the same to everybody, a word at
// a time. What it writes on its terminal shows how often it is asked, and when it is stopped.
//
// Environment: ADDRESS to listen on, 127.0.0.1:9092 by default; PACE between two words, 60ms by default.
package main

import (
	"cmp"
	_ "embed" // answer.md
	"fmt"
	"log"
	"net/http"
	"os"
	"regexp"
	"sync/atomic"
	"time"
)

//go:embed answer.md
var answer string

// word is one with what goes before it. A real model's tokens are odder, but of about this size.
var word = regexp.MustCompile(`\s*\S+|\s+`)

func main() {
	pace, err := time.ParseDuration(cmp.Or(os.Getenv("PACE"), "60ms"))
	if err != nil || pace <= 0 {
		log.Fatalf("PACE is no duration: %q", os.Getenv("PACE"))
	}
	address := cmp.Or(os.Getenv("ADDRESS"), "127.0.0.1:9092")
	http.Handle("POST /v1/chat/completions", &model{pace: pace})
	log.Printf("a fake model listens on %s", address)
	log.Fatal(http.ListenAndServe(address, nil)) //nolint:gosec // it is for one's own machine
}

type model struct {
	pace  time.Duration
	asked atomic.Int64
}

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := m.asked.Add(1)
	log.Printf("question %d: asked", n)
	w.Header().Set("Content-Type", "text/event-stream")
	words := word.FindAllString(answer, -1)
	for i, text := range words {
		select {
		case <-time.After(m.pace):
		case <-r.Context().Done():
			log.Printf("question %d: stopped after %d of %d words", n, i, len(words))
			return
		}
		fmt.Fprintf(w, `data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":%q}}]}`+"\n\n", text)
		_ = http.NewResponseController(w).Flush()
	}
	fmt.Fprint(w, `data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+
		"\n\ndata: [DONE]\n\n")
	log.Printf("question %d: answered", n)
}
