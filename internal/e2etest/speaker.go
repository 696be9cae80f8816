package e2etest

import (
	"bufio"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
)

// Speaker is a server that says what a test wants, byte for byte: for clients that must bear anything.
type Speaker struct {
	URL string

	mu    sync.Mutex // guards asked
	asked []*http.Request
}

// Speak starts a server on loopback that answers each connection with the next of the answers, head and all,
// and closes it. The last answer is for all that follow.
func Speak(t testing.TB, answers ...string) *Speaker {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Speaker{URL: "http://" + listener.Addr().String() + "/events"}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if request, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				s.mu.Lock()
				answer := answers[min(len(s.asked), len(answers)-1)]
				s.asked = append(s.asked, request)
				s.mu.Unlock()
				_, _ = conn.Write([]byte(answer))
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	return s
}

// Asked returns the requests so far.
func (s *Speaker) Asked() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// EventStream returns an answer for [Speak] that is an event stream.
func EventStream(text string) string {
	return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + text
}
