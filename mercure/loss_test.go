package mercure

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// A client that is too slow for what is kept loses updates in mid-stream. It is not told by an event: its stream ends,
// and when it comes back the header says so. With gap_event it is told, and goes on.
func TestALossInMidStreamEndsTheStream(t *testing.T) {
	t.Parallel()
	for _, gapEvent := range []string{"off", "on"} {
		t.Run("gap_event "+gapEvent, func(t *testing.T) {
			t.Parallel()
			s := serve(t, inMemory+"history 5\nheartbeat 0s\nslow_client drop_oldest\nqueue 5\ngap_event "+gapEvent)
			// It reads nothing for a while, through buffers of the usual size, which soon empty once it does.
			conn, err := net.Dial("tcp", s.Expand("127.0.0.1:{{port}}"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "GET %s?topic=a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", Path)
			e2etest.Await(t, "it is there", func() bool {
				return strings.Contains(s.get(s.AdminURL("/sse/hubs")).Body, `"clients":1`)
			})
			publisher, client := bearer(publishing("*")), e2etest.Via(e2etest.H1(t))
			filler := strings.Repeat("x", 10<<10) // a larger one would be cut in its middle
			for i := range 800 {                  // more than they hold
				update := form("topic", "a", "id", fmt.Sprint("id-", i), "data", filler)
				if answer := s.post(update, publisher, client); answer.Status != http.StatusOK {
					t.Fatalf("publishing: %d", answer.Status)
				}
			}
			if gapEvent == "off" {
				_ = conn.SetReadDeadline(time.Now().Add(patience))
				text, err := io.ReadAll(conn)
				if err != nil {
					t.Fatalf("the stream did not end: %v after %d bytes: %.300q", err, len(text), text)
				}
				if strings.Contains(string(text), "gap") {
					t.Error("the client was told a gap")
				}
				return
			}
			s.publish("topic", "a", "data", "last")
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			var text strings.Builder
			for buffer := make([]byte, 1<<20); !strings.Contains(text.String(), "data: last"); {
				n, err := conn.Read(buffer)
				if err != nil {
					t.Fatalf("the stream ended: %v after %d bytes: %.300q", err, text.Len(), text.String())
				}
				text.Write(buffer[:n])
			}
			if !strings.Contains(text.String(), "event: gap\n") {
				t.Error("the client was not told the gap")
			}
		})
	}
}

// What is known to be trimmed is told by the header, and what is kept since is sent.
func TestRule40ACursorWhoseUpdatesAreTrimmed(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory+"history 2")
	id := s.publish("topic", "a", "data", "1")
	for i := 2; i <= 5; i++ {
		s.publish("topic", "a", "data", fmt.Sprint(i))
	}
	stream := s.subscribe([]string{"a"}, e2etest.LastEventID(id))
	if told := cursorOfAnswer(stream); told != earliest {
		t.Errorf("the answer tells %q", told)
	}
	wantTexts(t, stream, "4", "5")
	other := s.subscribe([]string{"b"}, e2etest.LastEventID(id))
	if told := cursorOfAnswer(other); told != id {
		t.Errorf("of another topic nothing is lost, but the answer tells %q", told)
	}
}

// A refused request says so before its body is read, and a stalled one does not delay the exit.
func TestAPublisherThatStallsDoesNotDelayTheExit(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	body, stalled := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.hub(), body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", formContent)
	request.Header.Set("Authorization", "Bearer "+publishing("*"))
	answered := make(chan error)
	client := e2etest.H1(t)
	go func() {
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		answered <- err
	}()
	if _, err := io.WriteString(stalled, "topic=a&data="); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	_ = stalled.Close() // the client waits for its own body, too
	<-answered
}
