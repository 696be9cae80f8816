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
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	leastWait = 100 * time.Millisecond // between two tries
	usualWait = 30 * time.Second       // after many of them
	mostWait  = time.Hour              // that a server may ask for
	largest   = 256 << 20              // bytes of a message
)

func main() {
	url := "http://localhost:8080/events?topic=news"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	err := listen(context.Background(), url, func(name, data string) {
		if name == "connected" {
			var connected struct{ Resume string }
			_ = json.Unmarshal([]byte(data), &connected)
			data = connected.Resume // "gap" if something was missed
		}
		fmt.Println(name, data)
	})
	if err != nil {
		log.Fatal(err)
	}
}

var (
	errRefused = errors.New("refused") // asking again would not help
	errOver    = errors.New("over")    // there is nothing more to come
)

// position is what a listener remembers from connection to connection.
type position struct {
	lastID string
	retry  time.Duration
	tries  int           // since the last event
	least  time.Duration // that the server wants us to wait
}

// listen calls event for each that arrives, and resumes where it was, until ctx ends or it is refused. It
// returns nil when the server says that there is nothing more to come.
func listen(ctx context.Context, url string, event func(name, data string)) error {
	at := position{retry: time.Second}
	for {
		err := at.connect(ctx, url, event)
		switch {
		case errors.Is(err, errOver):
			return nil
		case errors.Is(err, errRefused) || ctx.Err() != nil:
			return err
		}
		wait := at.wait()
		at.tries++
		log.Printf("%v; next try in %v", err, wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait doubles from try to try, to usualWait or what the server asks for. Chance keeps a crowd from coming
// back in one moment.
func (at *position) wait() time.Duration {
	wait := min(at.retry<<min(at.tries, 10), max(usualWait, at.retry)) // an hour can be doubled 20 times
	return max(at.least, wait*3/4+rand.N(wait/2+1))
}

// within returns a wait that a server asks for, brought within bounds.
func within(n uint64, unit time.Duration) time.Duration {
	return max(time.Duration(min(n, uint64(mostWait/unit)))*unit, leastWait)
}

// retryAfter reads seconds or a date.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return within(seconds, time.Second)
	}
	at, _ := http.ParseTime(header)
	return min(max(time.Until(at), 0), mostWait)
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
		at.least = retryAfter(response.Header.Get("Retry-After"))
		return errors.New(response.Status)
	case status == http.StatusNoContent:
		return errOver
	case status != http.StatusOK:
		return fmt.Errorf("%w: %s", errRefused, response.Status)
	}
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if media != "text/event-stream" {
		return fmt.Errorf("%w: an answer of type %q is no event stream", errRefused, media)
	}

	var name string
	var data []string
	size, id := 0, at.lastID // which counts once its event is whole
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, largest)
	for first := true; lines.Scan(); first = false {
		line := lines.Text()
		if first {
			line = strings.TrimPrefix(line, "\uFEFF")
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "": // ends the event
			at.lastID = id
			if data != nil {
				at.tries = 0
				event(cmp.Or(name, "message"), strings.Join(data, "\n"))
			}
			name, data, size = "", nil, 0
		case field == "id" && !strings.Contains(value, "\x00"):
			id = value // an empty one clears the last
		case field == "event":
			name = value
		case field == "data":
			data, size = append(data, value), size+len(value)
		case field == "retry":
			if n, err := strconv.ParseUint(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
				at.retry = within(n, time.Millisecond)
			}
		}
		if size > largest {
			break
		}
	}
	if size > largest || errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%w: a message is too large", errRefused) // it would come again
	}
	return cmp.Or(lines.Err(), errors.New("the connection ended"))
}
