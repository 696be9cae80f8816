// Command auth is an application in miniature: it signs people in, says who they are, and sends them
// messages through Caddy.
package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"time"
)

// person is somebody who can sign in. The password of all is "caddy".
type person struct {
	Name string `json:"name"`
	Team string `json:"team"`
}

var people = map[string]person{
	"alice": {"alice", "red"},
	"bob":   {"bob", "red"},
	"carol": {"carol", "blue"},
}

func main() {
	app := &application{
		notifyURL:   cmp.Or(os.Getenv("NOTIFY_URL"), "http://127.0.0.1:8080/notify"),
		notifyToken: cmp.Or(os.Getenv("NOTIFY_TOKEN"), "demo"),
		sessions:    make(map[string]person),
	}
	address := cmp.Or(os.Getenv("ADDRESS"), "127.0.0.1:9091")
	log.Printf("listening on %s", address)
	server := &http.Server{Addr: address, Handler: app.handler(), ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

type application struct {
	notifyURL   string // where Caddy takes messages
	notifyToken string

	mu       sync.Mutex // guards sessions
	sessions map[string]person
}

func (a *application) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /whoami", a.whoami)
	mux.HandleFunc("GET /session", a.session)
	mux.HandleFunc("POST /session", a.signIn)
	mux.HandleFunc("DELETE /session", a.signOut)
	mux.HandleFunc("POST /messages", a.send)
	// Pages of other sites may not act for whoever is signed in here.
	return http.NewCrossOriginProtection().Handler(mux)
}

// whoami is what Caddy's forward_auth asks: may the request go on, and whose is it?
func (a *application) whoami(w http.ResponseWriter, r *http.Request) {
	who, ok := a.signedIn(r)
	if !ok {
		http.Error(w, "sign in first", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Remote-User", who.Name)
	w.Header().Set("Remote-Team", who.Team)
}

// session tells the page who is signed in.
func (a *application) session(w http.ResponseWriter, r *http.Request) {
	who, ok := a.signedIn(r)
	if !ok {
		http.Error(w, "nobody is signed in", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(who)
}

func (a *application) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<10)
	who, known := people[r.PostFormValue("user")]
	if !known || r.PostFormValue("password") != "caddy" {
		http.Error(w, "wrong name or password", http.StatusForbidden)
		return
	}
	id := rand.Text()
	a.mu.Lock()
	a.sessions[id] = who
	a.mu.Unlock()
	// On a server, with HTTPS, it is Secure as well.
	http.SetCookie(w, &http.Cookie{Name: "session", Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.WriteHeader(http.StatusNoContent)
}

func (a *application) signOut(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie("session"); err == nil {
		a.mu.Lock()
		delete(a.sessions, cookie.Value)
		a.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: "session", Path: "/", MaxAge: -1})
	w.WriteHeader(http.StatusNoContent)
}

func (a *application) signedIn(r *http.Request) (who person, ok bool) {
	cookie, err := r.Cookie("session")
	if err != nil {
		return person{}, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	who, ok = a.sessions[cookie.Value]
	return who, ok
}

// send passes a message on. Who it is from is said here and not by the page, or anybody could speak for
// anybody.
func (a *application) send(w http.ResponseWriter, r *http.Request) {
	from, ok := a.signedIn(r)
	if !ok {
		http.Error(w, "sign in first", http.StatusUnauthorized)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	message := map[string]any{"data": map[string]string{"from": from.Name, "text": r.PostFormValue("text")}}
	switch to := r.PostFormValue("to"); {
	case to == "everybody":
		message["event"], message["topic"] = "everybody", "news"
	case to == "team":
		message["event"], message["topic"] = "team", "team/"+from.Team
	case people[to].Name != "":
		message["event"], message["user"] = "you", to
	default:
		http.Error(w, "there is nobody of that name", http.StatusNotFound)
		return
	}
	if err := a.notify(r, message); err != nil {
		log.Print(err)
		http.Error(w, "the message could not be delivered", http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// notify publishes a message through Caddy.
func (a *application) notify(r *http.Request, message map[string]any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, a.notifyURL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.notifyToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		detail, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("publishing: %s: %s", response.Status, detail)
	}
	return nil
}
