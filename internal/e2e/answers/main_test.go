// Package answers tests sse_resume from outside: the real binary, Caddy's own reverse_proxy, real clients, and
// a model that the tests play.
package answers

import (
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

// site is a Caddy with sse_resume before a reverse_proxy, and the model behind it.
type site struct {
	*e2etest.Server
	model *modeltest.Model
}

// start runs a site with these options of sse_resume.
func start(t *testing.T, options string) site {
	t.Helper()
	return startWith(t, modeltest.Start(t), "", options)
}

// startWith runs one with global options, too.
func startWith(t *testing.T, model *modeltest.Model, global, options string, more ...e2etest.ServerOption) site {
	t.Helper()
	return site{e2etest.Start(t, caddyfile(model, global, options), more...), model}
}

func caddyfile(model *modeltest.Model, global, options string) string {
	return fmt.Sprintf(`
{
	%s
}
http://127.0.0.1:{{port}} {
	sse_resume {
		%s
	}
	reverse_proxy %s
}`, global, options, model.Addr())
}

// answer is what one reader gets of an answer.
type answer struct {
	*e2etest.Stream
	url string // of the stream, as Content-Location tells it
	id  string // of the stream
}

var streamID = regexp.MustCompile(`^sse[A-Z0-9]{26}$`)

// ask opens a stream by a POST, or by what the options say, and learns its ID from its Content-Location.
func ask(t *testing.T, target string, options ...e2etest.Option) answer {
	t.Helper()
	return openAs(t, target, append([]e2etest.Option{e2etest.Post(`{"stream":true}`)}, options...)...)
}

func openAs(t *testing.T, target string, options ...e2etest.Option) answer {
	t.Helper()
	stream := e2etest.Subscribe(t, target, append(options, e2etest.KeepRaw())...)
	base, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	location, err := base.Parse(stream.Response.Header.Get("Content-Location"))
	if err != nil {
		t.Fatal(err)
	}
	id := location.Query().Get("sse_stream")
	if !streamID.MatchString(id) {
		t.Fatalf("Content-Location is %q", stream.Response.Header.Get("Content-Location"))
	}
	return answer{stream, location.String(), id}
}

// event returns the ID of the nth event, from 1.
func (a answer) event(n int) string { return fmt.Sprintf("%s.%d", a.id, n) }

// has takes the events from the nth to the last and fails the test unless each comes once and in order, with
// the token of its number.
func (a answer) has(t *testing.T, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		event := a.Expect(t, modeltest.Token(n-1))
		if event.ID != a.event(n) {
			t.Fatalf("event %d has the ID %q, want %q", n, event.ID, a.event(n))
		}
	}
}

// ends fails the test unless nothing more comes and the stream ends in good order.
func (a answer) ends(t *testing.T) {
	t.Helper()
	if event, err := a.Next(patience); err != io.EOF {
		t.Fatalf("after the end came %q %q, %v", event.Name, event.Data, err)
	}
}

// aborts fails the test unless what comes next is the error of this code, with an ID of its own, and the end.
func (a answer) aborts(t *testing.T, n int, code string) {
	t.Helper()
	event, err := a.Next(patience)
	if err != nil || event.Name != "error" {
		t.Fatalf("instead of the error %s came %q %q, %v", code, event.Name, event.Data, err)
	}
	data := string(event.Data)
	if !strings.Contains(data, `"type":"stream_aborted"`) || !strings.Contains(data, `"code":"`+code+`"`) {
		t.Errorf("the error is %s, want the code %s", event.Data, code)
	}
	if event.ID != a.event(n) {
		t.Errorf("the error has the ID %q, want %q", event.ID, a.event(n))
	}
	a.ends(t)
}

// tokens has a model say the events from the nth to the last.
func tokens(call *modeltest.Call, first, last int) {
	for n := first; n <= last; n++ {
		call.Say("data: " + modeltest.Token(n-1) + "\n\n")
	}
}

// refused fails the test unless a request is answered with this status and a problem, without asking the model.
func (s site) refused(t *testing.T, status int, method, target, body string, options ...e2etest.Option) e2etest.Answer {
	t.Helper()
	calls := s.model.Calls()
	got := e2etest.Send(t, method, target, body, options...)
	if got.Status != status || got.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %s is answered with %d %s: %s, want %d and a problem", method, target, got.Status,
			got.Header.Get("Content-Type"), got.Body, status)
	}
	if s.model.Calls() != calls {
		t.Error("the model was asked")
	}
	return got
}

// status asks for what has become of an answer.
func (a answer) status(t *testing.T, options ...e2etest.Option) (status struct {
	State, Reason string
	Events, Bytes int
},
) {
	t.Helper()
	got := e2etest.Send(t, "GET", a.url+"&sse_status", "", options...)
	if got.Status != 200 {
		t.Fatalf("sse_status is answered with %d: %s", got.Status, got.Body)
	}
	got.Decode(t, &status)
	return status
}

// awaitState waits until an answer has come to this state.
func (a answer) awaitState(t *testing.T, state string) {
	t.Helper()
	e2etest.Await(t, "the answer is "+state, func() bool { return a.status(t).State == state })
}

// metric returns the sum of a metric, of those with this label if there is one, such as `result="done"`.
func (s site) metric(t *testing.T, name string, label ...string) (sum float64) {
	t.Helper()
	for line := range strings.Lines(e2etest.Send(t, "GET", s.AdminURL("/metrics"), "").Body) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		found, labels, _ := strings.Cut(series, "{")
		if found != name || !strings.Contains(labels, strings.Join(label, "")) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func pid(s site) string { return strconv.Itoa(s.PID()) }
