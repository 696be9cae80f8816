package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// exitBound is what the contract allows a process for its end. It is held against
// what users run, [e2etest.Plain].
const exitBound = 2 * time.Second

// terminate sends SIGTERM and waits for the end of the process, which must be
// clean, and soon enough that the machine may be busy, but nobody was waited for.
func terminate(t *testing.T, server *e2etest.Server) {
	t.Helper()
	if took := exitTime(t, server); took > 3*exitBound {
		t.Errorf("exit took %v; the contract says less than %v", took, exitBound)
	}
}

// exitTime is terminate for whoever judges the time.
func exitTime(t *testing.T, server *e2etest.Server) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Skipf("no SIGTERM on %s: %v", runtime.GOOS, err)
	}
	if err := server.Wait(patience); err != nil {
		t.Fatalf("after SIGTERM: %v", err)
	}
	took := time.Since(begin)
	t.Logf("the process was gone %v after SIGTERM", took)
	return took
}

// cutOff returns how many streams did not end in good order.
func (f *fleet) cutOff() (n int) {
	f.running.Wait()
	for _, x := range f.followers {
		if x.end != nil {
			n++
		}
	}
	return n
}

// checkFarewell fails the test unless every stream has ended in good order
// behind a delay of its own.
func (f *fleet) checkFarewell(t *testing.T, retry, spread time.Duration) {
	t.Helper()
	f.running.Wait()
	told := make(map[int]int)
	var delays []int
	for _, x := range f.followers {
		if x.end != nil {
			t.Fatalf("the stream of %s did not end in good order: %v", x.name, x.end)
		}
		if len(x.retry) != 2 || x.retry[0] != int(retry.Milliseconds()) {
			t.Fatalf("%s was told to wait for %v; want %v first and another at the end", x.name, x.retry, retry)
		}
		told[x.retry[1]]++
		delays = append(delays, x.retry[1])
	}
	low, high := int(retry.Milliseconds()), int((retry + spread).Milliseconds())
	if first, last := slices.Min(delays), slices.Max(delays); first < low || last > high {
		t.Errorf("delays from %d to %d ms; want them within %d and %d", first, last, low, high)
	}
	if len(delays) < 100 {
		return // chance has too much of a say
	}
	slices.Sort(delays)
	n, tenth := len(delays), int(spread.Milliseconds())/10
	if delays[n/5] > low+4*tenth || delays[n-1-n/5] < high-4*tenth || len(told) < n/4 {
		t.Errorf("%d delays are not spread over %d to %d ms: %d different ones, a fifth below %d, a fifth above %d",
			n, low, high, len(told), delays[n/5], delays[n-1-n/5])
	}
}

func TestOnSIGTERMClientsGetAllThatWasAcknowledgedAndADelay(t *testing.T) {
	server := e2etest.Start(t, tlsSite(siteOptions{}), awaitTLS, e2etest.Plain())
	f := newFleet(t)
	f.dial(t, server.URL("/events?topic=load"), 1000)
	for i := range 10 {
		f.via(t, e2etest.H2(t), server.Expand("https://localhost:{{tls}}/events?topic=load"), 100, fmt.Sprintf("h2-%d", i))
	}
	f.via(t, e2etest.H3(t), server.Expand("https://localhost:{{tls}}/events?topic=load"), 50, "h3")
	var acknowledged [publishers]int64
	var posting sync.WaitGroup
	for p := range acknowledged {
		client := e2etest.H1(t)
		posting.Go(func() {
			for n := int64(0); ; n++ {
				answer, err := e2etest.Do(t.Context(), http.MethodPost, server.URL("/events?topic=load"), numbered(p, n, 100), e2etest.Via(client))
				if err != nil || answer.Status != http.StatusOK {
					checkRefusal(t, answer, err)
					return
				}
				acknowledged[p]++
			}
		})
	}
	e2etest.Await(t, "messages under way", func() bool { return f.received() > 100_000 })
	terminate(t, server)
	posting.Wait()
	f.checkFarewell(t, 2*time.Second, 5*time.Second)
	f.checkOrder(t)
	for _, x := range f.followers {
		for p, n := range acknowledged {
			if x.next[p] < n {
				t.Fatalf("%s has got %d of %d acknowledged messages", x.name, x.next[p], n)
			}
		}
	}
	t.Logf("acknowledged: %d", acknowledged)
}

// checkRefusal fails the test if a publisher is not told, while the server goes
// down, that it may try again elsewhere.
func checkRefusal(t *testing.T, answer e2etest.Answer, err error) {
	t.Helper()
	if err == nil && (answer.Status != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "") {
		t.Errorf("while going down, a POST was answered with %d, Retry-After %q: %s",
			answer.Status, answer.Header.Get("Retry-After"), answer.Body)
	}
}

func TestOnSIGTERMTenThousandConnectionsAreGoneInTime(t *testing.T) {
	const n = 10_000
	needFiles(t, n)
	// The clients' ends of the connections are this machine's work too, and others may have some.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		server := e2etest.Start(t, openSite, e2etest.Plain())
		f := newFleet(t)
		f.dial(t, server.URL("/events?topic=load"), n)
		e2etest.Publish(t, server.URL("/events?topic=load"), numbered(0, 0, 100))
		took := exitTime(t, server)
		if (took > exitBound || f.cutOff() > 0) && attempt < attempts {
			continue
		}
		if took > exitBound {
			t.Errorf("in %d attempts, exit never took less than %v", attempts, exitBound)
		}
		f.checkFarewell(t, 2*time.Second, 5*time.Second)
		f.checkOrder(t)
		for _, x := range f.followers {
			if x.got.Load() != 1 {
				t.Fatalf("%s has not got the message", x.name)
			}
		}
		return
	}
}

func TestDrainSpreadAndRetryAreTheConfigs(t *testing.T) {
	server := e2etest.Start(t, tlsSite(siteOptions{hub: "drain_spread 400ms", route: "retry 1s"}), awaitTLS, e2etest.Plain())
	f := newFleet(t)
	f.dial(t, server.URL("/events?topic=load"), 100)
	terminate(t, server)
	f.checkFarewell(t, time.Second, 400*time.Millisecond)
}

func TestStalledClientsDoNotHoldTheExitUp(t *testing.T) {
	for name, stall := range map[string]func(t *testing.T, plain, secure string){
		"h1":          func(t *testing.T, plain, _ string) { e2etest.Stall(t, plain) },
		"h1 over TLS": func(t *testing.T, _, secure string) { stallHTTP(t, e2etest.H1(t), secure) },
		"h2":          func(t *testing.T, _, secure string) { stallHTTP(t, e2etest.H2(t), secure) },
		"h3":          func(t *testing.T, _, secure string) { stallHTTP(t, e2etest.H3(t), secure) },
	} {
		t.Run(name, func(t *testing.T) {
			server := e2etest.Start(t, tlsSite(siteOptions{route: patientRoute}), awaitTLS, e2etest.Plain())
			plain, secure := server.URL("/events?topic=load"), server.Expand("https://localhost:{{tls}}/events?topic=load")
			f := newFleet(t)
			f.dial(t, plain, 10)
			for range 5 {
				stall(t, plain, secure)
			}
			publishBeyondBuffers(t, plain)
			f.await(t, beyondBuffers)
			terminate(t, server)
			f.checkFarewell(t, 2*time.Second, 5*time.Second)
		})
	}
}

// patientRoute lets stalled clients stay.
const patientRoute = "write_timeout 5m\nqueue 100000 1GiB"

// beyondBuffers is how many messages publishBeyondBuffers publishes.
const beyondBuffers = 256

// publishBeyondBuffers publishes more than all the buffers hold that there are
// between the two ends of a connection.
func publishBeyondBuffers(t *testing.T, url string) {
	t.Helper()
	l, client := newLoad(url, 128<<10), e2etest.H1(t)
	for range beyondBuffers {
		if err := l.publish(client, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// stallHTTP subscribes and reads nothing of the body.
func stallHTTP(t *testing.T, client *http.Client, url string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
}

func TestEndlessPublishersDoNotHoldTheExitUp(t *testing.T) {
	server := e2etest.Start(t, tlsSite(siteOptions{}), awaitTLS, e2etest.Plain())
	stream := e2etest.Subscribe(t, server.URL("/events?topic=load"))
	stream.Connected(t)
	type result struct {
		name   string
		answer e2etest.Answer
		err    error
	}
	results := make(chan result)
	var bodies []*io.PipeReader
	post := func(name string, client *http.Client, url, contentType string, body func(write func(string) bool)) {
		reader, writer := io.Pipe()
		bodies = append(bodies, reader)
		go body(func(text string) bool {
			_, err := io.WriteString(writer, text)
			return err == nil
		})
		go func() {
			answer, err := postBody(t, client, url, contentType, reader)
			_ = reader.Close() // whoever writes is to know
			results <- result{name, answer, err}
		}()
	}
	endless := func(write func(string) bool) {
		for write("line\n") {
			time.Sleep(time.Millisecond)
		}
	}
	once := func(text string) func(func(string) bool) {
		return func(write func(string) bool) { write(text) }
	}
	plain, secure := server.URL("/events?topic=load"), server.Expand("https://localhost:{{tls}}/events?topic=load")
	for name, client := range map[string]*http.Client{"h1": e2etest.H1(t), "h2": e2etest.H2(t), "h3": e2etest.H3(t)} {
		url := secure
		if name == "h1" {
			url = plain
		}
		post(name+" NDJSON", client, url, "application/x-ndjson", endless)
		post(name+" event stream", client, url, "text/event-stream", func(write func(string) bool) {
			for write("data: x\n\n") {
				time.Sleep(time.Millisecond)
			}
		})
		post(name+" that has stopped within a line", client, url, "application/x-ndjson", once("one\ntwo\nthr"))
		post(name+" that has stopped within a message", client, url, "text/plain", once("half a messa"))
		post(name+" that sends nothing", client, url, "application/x-ndjson", func(func(string) bool) {})
	}
	seen := 0
	for ; seen < 500; seen++ {
		if _, err := stream.Next(patience); err != nil {
			t.Fatal(err)
		}
	}
	terminate(t, server)
	for {
		if _, err := stream.Next(patience); err != nil {
			break
		}
		seen++
	}
	published, cut := 0, 0
	for _, body := range bodies {
		_ = body.Close() // the HTTP client waits for it even where the answer is there
	}
	for range bodies {
		got := <-results
		if got.err != nil {
			cut++
			continue
		}
		checkRefusal(t, got.answer, got.err)
		if strings.Contains(got.name, "message") {
			continue // the body is one message
		}
		var told struct{ Published, Line *int }
		decodeLoosely(t, got.answer, &told)
		if told.Published == nil || told.Line == nil || *told.Line < *told.Published {
			t.Errorf("%s was not told how far it got: %s", got.name, got.answer.Body)
			continue
		}
		published += *told.Published
	}
	t.Logf("%d publishers were told of %d messages, %d were cut; %d messages came", len(bodies)-cut, published, cut, seen)
	if published > seen || published < seen && cut == 0 {
		t.Errorf("%d messages came of %d that publishers were told of", seen, published)
	}
}

func postBody(t *testing.T, client *http.Client, url, contentType string, body io.Reader) (answer e2etest.Answer, err error) {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		return answer, err
	}
	request.Header.Set("Content-Type", contentType)
	response, err := client.Do(request)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return e2etest.Answer{Status: response.StatusCode, Header: response.Header, Body: string(text)}, err
}

// While a stalled client keeps the process for a second, others still come.
func TestWhileGoingDownNoSubscriberIsAnswered(t *testing.T) {
	server := e2etest.Start(t, tlsSite(siteOptions{route: patientRoute}), awaitTLS)
	e2etest.Stall(t, server.URL("/events?topic=load"))
	publishBeyondBuffers(t, server.URL("/events?topic=load"))
	witness := e2etest.Subscribe(t, server.URL("/events?topic=other"))
	witness.Connected(t)
	address := server.Expand("127.0.0.1:{{port}}")
	var open []net.Conn // connections that have not asked for anything yet
	for range 50 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		open = append(open, conn)
	}
	h2 := e2etest.H2(t)
	secure := server.Expand("https://localhost:{{tls}}/events?topic=other")
	e2etest.Subscribe(t, secure, e2etest.Via(h2)).Connected(t) // so that there is a connection

	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Skip(err)
	}
	begin := time.Now()
	if err := witness.Ended(patience); !errors.Is(err, io.EOF) {
		t.Fatalf("the stream ended with %v", err)
	}
	drained := time.Since(begin) // from here on the server is going down
	for i, conn := range open {
		method := "GET"
		if i%10 == 9 {
			method = "HEAD"
		}
		fmt.Fprintf(conn, "%s /events?topic=other HTTP/1.1\r\nHost: %s\r\n\r\n", method, address)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(conn); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("while going down, %s was answered: %q, %v", method, got, err)
		}
		if stream, err := e2etest.Open(t.Context(), server.URL("/events?topic=other")); err == nil {
			stream.Close()
			t.Fatal("while going down, a new connection was accepted")
		} else if refused, ok := errors.AsType[*e2etest.Refused](err); ok {
			t.Fatalf("while going down, a new connection was answered: %v", refused)
		}
		if stream, err := e2etest.Open(t.Context(), secure, e2etest.Via(h2)); err == nil {
			stream.Close()
			t.Fatal("while going down, an HTTP/2 stream was accepted")
		} else if refused, ok := errors.AsType[*e2etest.Refused](err); ok {
			t.Fatalf("while going down, an HTTP/2 stream was answered: %v", refused)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := server.Wait(patience); err != nil {
		t.Fatal(err)
	}
	t.Logf("drained after %v, gone after %v", drained, time.Since(begin))
}

func TestAfterAKillClientsOfTheMemoryBrokerAreToldOfAGap(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, strings.Replace(openSite, "sse /events {", "sse /events {\nretry 100ms\n", 1))
	url := server.URL("/events?topic=load")
	clients := make([]*e2etest.Reconnecting, 10)
	for i := range clients {
		clients[i] = e2etest.Reconnect(t, url)
	}
	e2etest.Await(t, "connections", func() bool {
		return !slices.ContainsFunc(clients, func(c *e2etest.Reconnecting) bool { return len(c.Connects()) == 0 })
	})
	e2etest.Publish(t, url, "before")
	for _, c := range clients[:5] { // the others have an ID too: that of connected
		c.Await(t, patience, atLeast(1))
	}
	server.Kill()
	server.Restart()
	for i, c := range clients {
		e2etest.Await(t, "reconnection", func() bool { return len(c.Connects()) == 2 })
		if got := c.Connects()[1]; got.Resume != "gap" {
			t.Errorf("client %d was told %q; want gap", i, got.Resume)
		}
	}
	e2etest.Publish(t, url, "after")
	for _, c := range clients { // the kill may have come before the first message did
		c.Await(t, patience, func(events []eventstream.Event) bool {
			return len(events) > 0 && string(events[len(events)-1].Data) == "after"
		})
		c.Stop()
	}
}

// Each broker gives Redis half a second to answer its last publishes. One after the other, these would take
// 15 seconds.
func TestOnSIGTERMManyHubsDoNotAddUpWhatAFrozenRedisCosts(t *testing.T) {
	const hubs = 30
	redis := e2etest.RedisServer(t)
	var options, routes strings.Builder
	for n := range hubs {
		fmt.Fprintf(&options, "hub h%d {\nbroker redis %s\n}\n", n, redis.URL())
		fmt.Fprintf(&routes, "sse /h%d {\nhub h%d\npublish {\nopen\n}\n}\n", n, n)
	}
	server := e2etest.Start(t,
		"{\nsse {\n"+options.String()+"}\n}\nhttp://127.0.0.1:{{port}} {\n"+routes.String()+"}\n", e2etest.Plain())
	for n := range hubs {
		e2etest.Publish(t, server.URL(fmt.Sprintf("/h%d?topic=a", n)), "before")
	}
	redis.Freeze()
	var posting sync.WaitGroup
	for n := range hubs { // each has something to wait for
		posting.Go(func() {
			url := server.URL(fmt.Sprintf("/h%d?topic=a", n))
			_, _ = e2etest.Do(t.Context(), http.MethodPost, url, "while frozen")
		})
	}
	posting.Wait() // with 503: each broker has noticed
	terminate(t, server)
}
