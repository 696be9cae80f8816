package sse_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestIDAheadOfTheInstanceDelaysOnlyItsOwnClient(t *testing.T) {
	server := e2etest.RedisServer(t, "--appendonly", "yes")
	s := serveOnce(t, openRoute, globals("sse {\n broker redis "+server.URL()+" \n}"))
	events := s.url("/events?topic=a")
	eventually(t, patience, "the broker to be in reach", func() bool {
		return post(t, events, "text/plain", "1").Status == http.StatusOK
	})
	epoch, _, _ := strings.Cut(*publish(t, events, "2").ID, "-")
	invented := e2etest.LastEventID(fmt.Sprintf("%s-%d", epoch, time.Now().Add(time.Hour).UnixMilli()))

	resume := func() time.Duration {
		began := time.Now()
		stream := e2etest.Subscribe(t, events, invented)
		defer stream.Close()
		if got := stream.Connected(t).Resume; got != "gap" {
			t.Errorf("resume is %q; want gap", got)
		}
		return time.Since(began)
	}
	if took := resume(); took < 2*time.Second {
		t.Errorf("the instance was given %v to come to the ID; want 2s", took)
	}
	server.Kill()
	eventually(t, patience, "the instance to notice that Redis is gone", func() bool {
		return post(t, events, "text/plain", "3").Status == http.StatusServiceUnavailable
	})
	if took := min(resume(), resume(), resume()); took > 1900*time.Millisecond {
		t.Errorf("without Redis clients were held up for %v at least", took)
	}
	server.Restart()
	eventually(t, patience, "the broker to be in reach", func() bool {
		return post(t, events, "text/plain", "4").Status == http.StatusOK
	})

	live := e2etest.Subscribe(t, events)
	epoch, _, _ = strings.Cut(*publish(t, events, "5").ID, "-")
	for data := ""; data != "5"; { // the instance may still have to hear of 4
		event, err := live.Next(patience)
		if err != nil {
			t.Fatal(err)
		}
		data = string(event.Data)
	}
	live.Close()
	conn := s.dial()
	fmt.Fprintf(conn, "GET /events?topic=a HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: %s-%d\r\n\r\n",
		epoch, time.Now().Add(time.Hour).UnixMilli())
	publish(t, events, "6") // so that the request before it is under way
	s.stop()
	if answer, _ := io.ReadAll(conn); len(answer) > 0 {
		t.Errorf("on exit the client was answered %q; EventSource comes back only if it is cut", answer)
	}
}

// Everybody can invent an ID that an instance is yet to come to. Who waits for one counts for all limits, so
// others are refused at once.
func TestNoMoreClientsWaitForAnInstanceThanMayJoin(t *testing.T) {
	const limit, tries = 3, 12
	server := e2etest.RedisServer(t)
	for name, where := range map[string]struct {
		hub, route string
		status     int
	}{
		"of the hub": {"max_clients 3", "", http.StatusServiceUnavailable},
		"per IP":     {"", "max_clients_per_ip 3", http.StatusTooManyRequests},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveOnce(t, "sse /events {\npublish {\nopen\n}\n"+where.route+"\n}",
				globals("sse {\nbroker redis "+server.URL()+"\n"+where.hub+"\n}"))
			events := s.url("/events?topic=a")
			eventually(t, patience, "the broker to be in reach", func() bool {
				return post(t, events, "text/plain", "1").Status == http.StatusOK
			})
			epoch, _, _ := strings.Cut(*publish(t, events, "2").ID, "-")
			id := fmt.Sprintf("%s-%d", epoch, time.Now().Add(time.Hour).UnixMilli())
			statuses := make(chan int, tries) // in the order of the answers
			for range tries {
				go func() {
					r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, events, nil)
					r.Header.Set("Last-Event-ID", id)
					answer, err := http.DefaultTransport.RoundTrip(r)
					if err != nil {
						statuses <- 0
						return
					}
					statuses <- answer.StatusCode
					<-t.Context().Done()
					_ = answer.Body.Close()
				}()
			}
			for n := range tries {
				want := where.status
				if n >= tries-limit { // those who have waited
					want = http.StatusOK
				}
				if status := <-statuses; status != want {
					t.Errorf("answer %d of %d is %d; want %d", n+1, tries, status, want)
				}
			}
		})
	}
}
