// Command backend stands between a page and a language model: it takes a prompt, asks the model, and
// publishes the answer to the page through Caddy, token by token.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

func main() {
	address := cmp.Or(os.Getenv("ADDRESS"), "127.0.0.1:9092")
	pace, err := time.ParseDuration(cmp.Or(os.Getenv("PACE"), "40ms"))
	if err != nil || pace <= 0 {
		log.Fatal("PACE is the time between two tokens of the fake model, such as 40ms")
	}
	unheard, err := time.ParseDuration(cmp.Or(os.Getenv("UNHEARD"), "1m"))
	if err != nil || unheard <= 0 {
		log.Fatal("UNHEARD is how long a page may be away until its answer ends, such as 1m")
	}
	app := &application{
		model: model{
			// Any server that speaks OpenAI's chat completions will do. The default is the fake one in here.
			url:  cmp.Or(os.Getenv("MODEL_URL"), "http://"+address+"/v1/chat/completions"),
			key:  os.Getenv("MODEL_KEY"),
			name: cmp.Or(os.Getenv("MODEL"), "fake"),
		},
		publisher: publisher{
			// Several, with commas between them, where there are several instances.
			urls:    strings.Split(cmp.Or(os.Getenv("PUBLISH_URL"), "http://127.0.0.1:8080/publish"), ","),
			token:   cmp.Or(os.Getenv("PUBLISH_TOKEN"), "demo"),
			unheard: unheard,
		},
		answers: make(map[string]*answer),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /answers/{id}", app.ask)
	mux.HandleFunc("GET /answers/{id}", app.show)
	mux.HandleFunc("DELETE /answers/{id}", app.stop)
	mux.Handle("POST /v1/chat/completions", fakeModel{pace})
	server := &http.Server{
		Addr: address,
		// Pages of other sites may not ask here.
		Handler:           http.NewCrossOriginProtection().Handler(mux),
		ReadHeaderTimeout: 5 * time.Second,
	}
	log.Printf("listening on %s", address)
	log.Fatal(server.ListenAndServe())
}

const (
	longest = 10 * time.Minute // that a model may take
	kept    = 10 * time.Minute // that an answer can be asked for after its end
)

type application struct {
	model     model
	publisher publisher

	mu      sync.Mutex // guards answers
	answers map[string]*answer
}

// goodID is what the page may call an answer. It is also the name of its events.
var goodID = regexp.MustCompile(`^[A-Za-z0-9_-]{16,64}$`)

// ask begins an answer, whose ID the page has made up: so a page that does not know whether it has been
// heard can just ask again.
func (a *application) ask(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var prompt struct {
		ClientID string    `json:"client_id"`
		Messages []message `json:"messages"`
	}
	r.Body = http.MaxBytesReader(w, r.Body, 256<<10)
	if err := json.NewDecoder(r.Body).Decode(&prompt); err != nil {
		http.Error(w, "the prompt can't be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	if !goodID.MatchString(id) || prompt.ClientID == "" || len(prompt.Messages) == 0 {
		http.Error(w, "a prompt needs an ID of its own, a client_id and messages", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answers[id] == nil {
		// The answer goes on when this request, or the page, is gone.
		ctx, stop := context.WithTimeout(context.WithoutCancel(r.Context()), longest)
		a.answers[id] = newAnswer(id, prompt.ClientID, stop)
		go a.run(ctx, a.answers[id], prompt.Messages)
	}
	w.WriteHeader(http.StatusAccepted)
}

// run has the model speak and what it says published, both at once.
func (a *application) run(ctx context.Context, answer *answer, messages []message) {
	defer answer.stop()
	published := make(chan struct{})
	go func() {
		defer close(published)
		// Not ctx: that an answer was stopped has to be published, too.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), longest)
		defer cancel()
		if err := a.publisher.publish(ctx, answer); err != nil {
			log.Printf("answer %s: %v", answer.id, err)
			answer.end(err)
			answer.stop() // nobody hears it
		}
	}()
	err := a.model.ask(ctx, messages, answer.add)
	if errors.Is(err, context.Canceled) {
		err = nil // the user has heard enough
	}
	if err != nil {
		log.Printf("answer %s: %v", answer.id, err)
	}
	answer.end(err)
	<-published
	time.AfterFunc(kept, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.answers, answer.id)
	})
}

// show is for a page that was told of a gap, or has heard nothing for long.
func (a *application) show(w http.ResponseWriter, r *http.Request) {
	answer, ok := a.find(r)
	if !ok {
		http.Error(w, "there is no such answer", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(answer.snapshot())
}

func (a *application) stop(w http.ResponseWriter, r *http.Request) {
	if answer, ok := a.find(r); ok {
		answer.stop()
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *application) find(r *http.Request) (found *answer, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	found, ok = a.answers[r.PathValue("id")]
	return found, ok
}
