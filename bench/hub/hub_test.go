package hub

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestEveryClientGetsWhatIsPublishedToItsTopic(t *testing.T) {
	server := httptest.NewServer(New())
	defer server.Close()
	var streams []*bufio.Reader
	for i := range 3 {
		response, err := http.Get(fmt.Sprintf("%s/?topic=%d", server.URL, i%2))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		streams = append(streams, bufio.NewReader(response.Body))
	}
	for n := range 100 { // more than a channel holds
		for topic := range 2 {
			response, err := http.Post(fmt.Sprintf("%s/?topic=%d", server.URL, topic), "", strings.NewReader(fmt.Sprint(topic, n)))
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
		}
		for i, stream := range streams {
			want := fmt.Sprintf("data: %s\n", fmt.Sprint(i%2, n))
			line, err := stream.ReadString('\n')
			if err != nil || line != want {
				t.Fatalf("%q came, %v; want %q", line, err, want)
			}
			if _, err := stream.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestClientThatLeftHoldsNobodyUp(t *testing.T) {
	hub := New()
	server := httptest.NewServer(hub)
	defer server.Close()
	response, err := http.Get(server.URL + "/?topic=a")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	for range 10 * queue {
		response, err := http.Post(server.URL+"/?topic=a", "", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
}
