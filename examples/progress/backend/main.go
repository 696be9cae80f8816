// Command backend runs long jobs, and tells whoever started them how far they are.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"
)

func main() {
	pace, err := time.ParseDuration(cmp.Or(os.Getenv("PACE"), "120ms"))
	if err != nil {
		log.Fatal("PACE is the time that a percent of the work takes, such as 120ms")
	}
	app := application{
		publishURL: cmp.Or(os.Getenv("PUBLISH_URL"), "http://127.0.0.1:8080/publish"),
		token:      cmp.Or(os.Getenv("PUBLISH_TOKEN"), "demo"),
		pace:       pace,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /jobs", app.start)
	server := &http.Server{
		Addr: cmp.Or(os.Getenv("ADDRESS"), "127.0.0.1:9093"),
		// Pages of other sites may not start jobs for whoever is signed in here.
		Handler:           http.NewCrossOriginProtection().Handler(mux),
		ReadHeaderTimeout: 5 * time.Second,
	}
	log.Printf("listening on %s", server.Addr)
	log.Fatal(server.ListenAndServe())
}

type application struct {
	publishURL string // where Caddy takes messages
	token      string
	pace       time.Duration // of the work
}

// start begins a job and returns. Caddy has asked who it is for.
func (a application) start(w http.ResponseWriter, r *http.Request) {
	user := r.Header.Get("Remote-User")
	r.Body = http.MaxBytesReader(w, r.Body, 1<<10)
	kind, known := kinds[r.PostFormValue("kind")]
	if user == "" || !known {
		http.Error(w, "a job needs a user and a known kind", http.StatusBadRequest)
		return
	}
	job := newJob(kind)
	go job.work(a.pace)
	go a.report(context.WithoutCancel(r.Context()), user, job)
	w.WriteHeader(http.StatusAccepted)
}

// report publishes how far a job is, until its end. Each report is complete in itself: one that could not
// be published is no loss if the next one is, and only the last one has to be.
func (a application) report(ctx context.Context, user string, job *job) {
	for {
		now, changed := job.status()
		err := a.publish(ctx, user, now.ID, now)
		switch {
		case err != nil:
			log.Printf("job %s: %v; trying again", now.ID, err)
			time.Sleep(500 * time.Millisecond)
		case now.State != running:
			return
		default:
			<-changed
		}
	}
}

// publish sends a message to all of a user's pages. The key says what it is the newest state of.
func (a application) publish(ctx context.Context, user, key string, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	target := a.publishURL + "?" + url.Values{"user": {user}, "event": {"job"}, "key": {key}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("publishing: %s: %s", response.Status, answer)
	}
	return err
}
