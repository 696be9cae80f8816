// Package model is an AI's model, as a proxy before it meets one: it streams events, or answers with JSON.
package model

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Event is what the model says each time: about what a chat completion has.
var Event = `data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}` + "\n\n"

var document = `{"id":"chatcmpl-1","choices":[{"message":{"content":"` + strings.Repeat("word ", 200) + `"}}]}`

// New returns the model's handler: /stream?events=N&pace=D says so many events, one each pace; /json is a document.
func New() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, document)
	})
	return mux
}

func stream(w http.ResponseWriter, r *http.Request) {
	events, err := strconv.Atoi(r.FormValue("events"))
	pace, paceErr := time.ParseDuration(r.FormValue("pace"))
	if err != nil || paceErr != nil {
		http.Error(w, "?events=1000&pace=40ms", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for next := time.Now(); events > 0; events-- {
		if pace > 0 {
			next = next.Add(pace)
			select {
			case <-time.After(time.Until(next)):
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprint(w, Event)
		if pace > 0 {
			_ = http.NewResponseController(w).Flush()
		}
	}
}
