//go:build linux

package limit

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// start serves until the tests' process ends: the loop knows no other end.
func start(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go Serve(l.(*net.TCPListener))
	return "http://" + l.Addr().String()
}

func publish(t *testing.T, url, body string) {
	t.Helper()
	response, err := http.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if answer, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || string(answer) != "ok" {
		t.Fatalf("publishing was answered %s %q, %v", response.Status, answer, err)
	}
}

func subscribe(t *testing.T, url string) *bufio.Scanner {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	return lines
}

// expect reads up to the next data.
func expect(t *testing.T, stream *bufio.Scanner, want string) {
	t.Helper()
	for stream.Scan() {
		if data, found := strings.CutPrefix(stream.Text(), "data: "); found {
			if data != want {
				t.Fatalf("%.50q came; want %.50q", data, want)
			}
			return
		}
	}
	t.Fatalf("the stream ended: %v", stream.Err())
}

func TestEveryClientOfATopicGetsEveryMessage(t *testing.T) {
	url := start(t)
	a, b, other := subscribe(t, url+"/?topic=a"), subscribe(t, url+"/?topic=a"), subscribe(t, url+"/?topic=b")
	publish(t, url+"/?topic=a", "one")
	publish(t, url+"/?topic=a", "two")
	publish(t, url+"/?topic=b", "three")
	for _, stream := range []*bufio.Scanner{a, b} {
		expect(t, stream, "one")
		expect(t, stream, "two")
	}
	expect(t, other, "three")
}

func TestClientThatLeftIsForgotten(t *testing.T) {
	url := start(t)
	response, err := http.Get(url + "/?topic=a")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	stays := subscribe(t, url+"/?topic=a")
	for _, message := range []string{"one", "two", "three"} {
		publish(t, url+"/?topic=a", message)
		expect(t, stays, message)
	}
}

// The bare loop waits for a socket that is full: it loses nothing, whatever that costs.
func TestFullSocketIsWaitedFor(t *testing.T) {
	url := start(t)
	slow := subscribe(t, url+"/?topic=a")
	message := strings.Repeat("x", 1<<19)
	const messages = 40 // more than the kernel keeps
	published := make(chan bool)
	go func() {
		defer close(published)
		for range messages {
			publish(t, url+"/?topic=a", message)
		}
	}()
	select {
	case <-published:
		t.Error("nobody waited")
	case <-time.After(200 * time.Millisecond):
	}
	for range messages {
		expect(t, slow, message)
	}
	<-published
}
