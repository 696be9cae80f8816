// Command golang listens with nothing but the standard library:
//
//	go run ./examples/frameworks/golang [URL]
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const mostWait = 30 * time.Second // between two tries

func main() {
	url := "http://localhost:8080/events?topic=news"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	log.Fatal(listen(context.Background(), url, func(name, data string) {
		if name == "connected" {
			var connected struct{ Resume string }
			_ = json.Unmarshal([]byte(data), &connected)
			data = connected.Resume // "gap" if something was missed
		}
		fmt.Println(name, data)
	}))
}

// errRefused is an answer after which asking again would not help.
var errRefused = errors.New("refused")

// position is what a listener remembers from connection to connection.
type position struct {
	lastID string
	retry  time.Duration
	tries  int           // since the last event
	least  time.Duration // that the server wants us to wait
}

// listen calls event for each that arrives, and resumes where it was, until ctx ends or it is refused.
func listen(ctx context.Context, url string, event func(name, data string)) error {
	at := position{retry: time.Second}
	for {
		err := at.connect(ctx, url, event)
		if errors.Is(err, errRefused) || ctx.Err() != nil {
			return err
		}
		wait := min(at.retry<<min(at.tries, 10), mostWait)
		wait = max(at.least, wait*3/4+rand.N(wait/2+1))
		at.tries++
		log.Printf("%v; next try in %v", err, wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connect reads one connection to its end.
func (at *position) connect(ctx context.Context, url string, event func(name, data string)) error {
	at.least = 0
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return errors.Join(errRefused, err)
	}
	if at.lastID != "" {
		request.Header.Set("Last-Event-ID", at.lastID)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch status := response.StatusCode; {
	case status == http.StatusTooManyRequests || status >= http.StatusInternalServerError:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		at.least = time.Duration(seconds) * time.Second
		return errors.New(response.Status)
	case status != http.StatusOK:
		return fmt.Errorf("%w: %s", errRefused, response.Status)
	}

	var name string
	var data []string
	id := at.lastID // which counts once its event is whole
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 2<<20) // a message may have 1 MiB
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			data = append(data, value)
		case "retry":
			milliseconds, _ := strconv.Atoi(value)
			at.retry = time.Duration(milliseconds) * time.Millisecond
		case "": // an empty line ends the event, and a heartbeat begins with a colon
			at.lastID = id
			if data != nil {
				at.tries = 0
				event(cmp.Or(name, "message"), strings.Join(data, "\n"))
			}
			name, data = "", nil
		}
	}
	return cmp.Or(lines.Err(), errors.New("the connection ended"))
}
