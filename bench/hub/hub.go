// Package hub is the SSE server that tutorials teach: a map of channels behind a mutex, and a goroutine for each client
// that writes what its channel brings and flushes. It keeps no history. A client that does not read holds up whoever
// publishes, and so everybody.
package hub

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync"
)

const queue = 16 // messages a client's channel holds

// Hub hands messages to the clients of a topic.
type Hub struct {
	mu     sync.RWMutex // guards topics
	topics map[string]map[chan []byte]struct{}
}

// New returns a hub without clients.
func New() *Hub { return &Hub{topics: make(map[string]map[chan []byte]struct{})} }

// ServeHTTP streams on GET and publishes on POST. DELETE is for the benchmark: it does at once what Go's runtime does
// by itself within two minutes of idleness.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch topic := r.URL.Query().Get("topic"); r.Method {
	case http.MethodGet:
		h.subscribe(w, r, topic)
	case http.MethodPost:
		h.publish(w, r, topic)
	case http.MethodDelete:
		runtime.GC()
	}
}

func (h *Hub) subscribe(w http.ResponseWriter, r *http.Request, topic string) {
	messages := make(chan []byte, queue)
	h.mu.Lock()
	if h.topics[topic] == nil {
		h.topics[topic] = make(map[chan []byte]struct{})
	}
	h.topics[topic][messages] = struct{}{}
	h.mu.Unlock()
	defer func() {
		go drain(messages) // a publisher may be about to send
		h.mu.Lock()
		delete(h.topics[topic], messages)
		close(messages)
		h.mu.Unlock()
	}()

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	flusher := http.NewResponseController(w)
	if flusher.Flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case message := <-messages:
			if _, err := fmt.Fprintf(w, "data: %s\n\n", message); err != nil || flusher.Flush() != nil {
				return
			}
		}
	}
}

// drain takes what comes until the channel is closed.
func drain(messages <-chan []byte) {
	for range messages {
	}
}

func (h *Hub) publish(w http.ResponseWriter, r *http.Request, topic string) {
	message, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.RLock()
	for messages := range h.topics[topic] {
		messages <- message
	}
	h.mu.RUnlock()
	fmt.Fprintln(w, "ok")
}
