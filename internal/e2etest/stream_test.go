package e2etest_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const (
	connectedEvent = "retry: 20\nid: e-4\nevent: connected\n" +
		`data: {"status":"connected","client_id":"me","generated":false,"topics":["a"],"resume":"complete"}` + "\n\n"

	patience = 10 * time.Second
)

// serve answers every request with write, as an event stream.
func serve(t *testing.T, write func(w http.ResponseWriter, r *http.Request)) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		write(w, r)
	}))
	t.Cleanup(server.Close)
	return server
}

func say(w http.ResponseWriter, text string) {
	_, _ = io.WriteString(w, text)
	_ = http.NewResponseController(w).Flush()
}

func TestStreamTellsMessagesFromTheRest(t *testing.T) {
	const wire = connectedEvent + ": heartbeat\n\nid: e-5\nevent: update\ndata: one\n\nid: e-6\n\nretry: 70\n\ndata: two\n\n"
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) { say(w, wire) })
	stream := e2etest.Subscribe(t, server.URL, e2etest.KeepRaw())

	want := e2etest.Connected{
		Status: "connected", ClientID: "me", Topics: []string{"a"}, Resume: "complete",
		ID: "e-4", Retry: 20 * time.Millisecond,
	}
	for range 2 {
		if got := stream.Connected(t); !reflect.DeepEqual(got, want) {
			t.Errorf("connected: %+v", got)
		}
	}
	if got := stream.LastID(); got != "e-4" {
		t.Errorf("the last ID at first is %q", got)
	}
	if event := stream.Expect(t, "one"); event.Name != "update" || stream.LastID() != "e-5" {
		t.Errorf("event %q, last ID %q", event.Name, stream.LastID())
	}
	stream.Expect(t, "two")
	if stream.LastID() != "e-6" {
		t.Errorf("the last ID is %q", stream.LastID())
	}
	if _, err := stream.Next(patience); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
	if err := stream.Ended(patience); !errors.Is(err, io.EOF) {
		t.Errorf("it ended by %v", err)
	}
	if stream.Retry() != 70*time.Millisecond || stream.Raw() != wire {
		t.Errorf("retry %v, raw %q", stream.Retry(), stream.Raw())
	}
}

func TestStreamTellsABrokenConnectionFromAnEnd(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		say(w, "data: one\n\n")
		panic(http.ErrAbortHandler)
	})
	for name, client := range map[string]*http.Client{"own": nil, "h1": e2etest.H1(t)} {
		var options []e2etest.Option
		if client != nil {
			options = append(options, e2etest.Via(client))
		}
		stream := e2etest.Subscribe(t, server.URL, options...)
		stream.Expect(t, "one")
		if _, err := stream.Next(patience); err == nil || errors.Is(err, io.EOF) || errors.Is(err, e2etest.ErrTimeout) {
			t.Errorf("%s: the end is %v", name, err)
		}
	}
}

func TestStreamWaitsAsLongAsAsked(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		say(w, "data: one\n\n")
		<-r.Context().Done()
	})
	stream := e2etest.Subscribe(t, server.URL)
	stream.Expect(t, "one")
	if _, err := stream.Next(10 * time.Millisecond); !errors.Is(err, e2etest.ErrTimeout) {
		t.Errorf("no event is %v", err)
	}
	if err := stream.Ended(10 * time.Millisecond); !errors.Is(err, e2etest.ErrTimeout) {
		t.Errorf("no end is %v", err)
	}
	stream.Close()
	if _, err := stream.Next(patience); err == nil || errors.Is(err, e2etest.ErrTimeout) {
		t.Errorf("after Close: %v", err)
	}
}

func TestRefusedSubscriptionIsAnErrorWithItsAnswer(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		say(w, `{"detail":"no"}`)
	})
	_, err := e2etest.Open(t.Context(), server.URL)
	refused, ok := errors.AsType[*e2etest.Refused](err)
	if !ok || refused.Status != http.StatusForbidden || refused.Body != `{"detail":"no"}` {
		t.Errorf("error %v", err)
	}
	client := e2etest.Reconnect(t, server.URL)
	for deadline := time.Now().Add(patience); client.Err() == nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if client.Err() == nil || len(client.Stop()) != 0 {
		t.Errorf("a refused EventSource goes on: %v", client.Err())
	}
}

func TestReconnectingClientComesBackWithItsLastID(t *testing.T) {
	const last = 20
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		say(w, "retry: 1\n\n")
		n := 0
		if id := r.Header.Get("Last-Event-ID"); id != "" {
			var err error
			if n, err = strconv.Atoi(strings.TrimPrefix(id, "e-")); err != nil {
				t.Error(err)
			}
		}
		if n++; n <= last {
			say(w, fmt.Sprintf("id: e-%d\ndata: %d\n\n", n, n))
		}
		switch n % 3 { // end in good order, break, or stay
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			<-r.Context().Done()
		}
	})
	client := e2etest.Reconnect(t, server.URL)
	for n := 1; n <= last; n++ {
		client.Await(t, patience, func(events []eventstream.Event) bool { return len(events) >= n })
		if n%3 == 2 {
			for !client.Cut() { // its first event may be here before it is known
				time.Sleep(time.Millisecond)
			}
		}
	}
	for i, event := range client.Stop() {
		if want := strconv.Itoa(i + 1); string(event.Data) != want {
			t.Errorf("event %d has data %q", i, event.Data)
		}
	}
}

func TestReconnectingClientOutlivesItsServer(t *testing.T) {
	var refusals atomic.Int32
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n := refusals.Add(1); n > 1 && n < 5 {
			panic(http.ErrAbortHandler) // before any answer, as if nobody listened
		}
		say(w, strings.Replace(connectedEvent, "retry: 20", "retry: 1", 1)+"data: "+r.Header.Get("Last-Event-ID")+"\n\n")
	})
	client := e2etest.Reconnect(t, server.URL)
	client.Await(t, patience, func(events []eventstream.Event) bool { return len(events) >= 2 })
	events, connects := client.Stop(), client.Connects()
	if string(events[0].Data) != "" || string(events[1].Data) != "e-4" || connects[1].ClientID != "me" {
		t.Errorf("events %v, connects %+v", events[:2], connects)
	}
}

func TestHTTP2ClientSharesAConnection(t *testing.T) {
	remotes := make(chan string, 2)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("protocol %s", r.Proto)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		say(w, "data: one\n\n")
		remotes <- r.RemoteAddr
		<-r.Context().Done()
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	client := e2etest.H2(t)
	for range 2 {
		stream := e2etest.Subscribe(t, server.URL, e2etest.Via(client))
		stream.Expect(t, "one")
		defer stream.Close()
	}
	if a, b := <-remotes, <-remotes; a != b {
		t.Errorf("connections from %s and %s", a, b)
	}
}

func TestStalledClientReadsNothing(t *testing.T) {
	written := make(chan error, 1)
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		controller := http.NewResponseController(w)
		_ = controller.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := w.Write(make([]byte, 64<<20))
		written <- err
	})
	e2etest.Stall(t, server.URL)
	if err := <-written; err == nil {
		t.Error("64 MB went to a client that reads nothing")
	}
}

func TestPublishReturnsTheAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, `{"id":%q,"receivers":%d}`, r.Header.Get("X-Test"), len(body))
	}))
	defer server.Close()
	var got struct {
		ID        string
		Receivers int
	}
	e2etest.Publish(t, server.URL, "hello", e2etest.Header("X-Test", "e-1")).Decode(t, &got)
	if got.ID != "e-1" || got.Receivers != 5 {
		t.Errorf("answer %+v", got)
	}
}
