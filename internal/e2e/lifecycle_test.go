package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// version is a config in which nearly everything depends on a number.
func version(i int, global string) string {
	return tlsSite(siteOptions{
		global: global,
		hub: fmt.Sprintf("history %d %dm\nhistory_bytes %dMiB\nmax_clients %d\ndrain_spread %dms",
			100+i, 10+i, 20+i, 1000+i, 1000+i),
		route: fmt.Sprintf("heartbeat %ds\nretry %dms\nwrite_timeout %ds\nqueue %d 1MiB\nmax_topics %d",
			20+i, 2000+i, 10+i, 200+i, 50+i),
		site: fmt.Sprintf("header X-Version %d\nrespond /version-%d \"here\"\nencode gzip", i, i),
	})
}

// reloadTo loads a version of the config and waits until it is the one that
// answers.
func reloadTo(t *testing.T, server *e2etest.Server, i int, global string) {
	t.Helper()
	if err := server.Reload(version(i, global)); err != nil {
		t.Fatal(err)
	}
	e2etest.Await(t, "the new config", func() bool {
		answer, err := e2etest.Do(t.Context(), http.MethodGet, server.URL(fmt.Sprintf("/version-%d", i)), "")
		return err == nil && answer.Body == "here" && answer.Header.Get("X-Version") == fmt.Sprint(i)
	})
}

func TestStreamsOfAllProtocolsLiveThroughTenReloadsUnderLoad(t *testing.T) {
	server := e2etest.Start(t, version(0, ""), awaitTLS)
	plain, secure := server.URL("/events?topic=load"), server.Expand("https://localhost:{{tls}}/events?topic=load")
	f := newFleet(t)
	f.dial(t, plain, 200)
	for i := range 4 {
		f.via(t, e2etest.H2(t), secure, 25, fmt.Sprintf("h2-%d", i))
	}
	for i := range 2 {
		f.via(t, e2etest.H3(t), secure, 10, fmt.Sprintf("h3-%d", i))
	}
	l := startLoad(t, plain, 2, 200)
	for i := range 10 {
		l.awaitMore(t, 20)
		reloadTo(t, server, i+1, "")
	}
	l.awaitMore(t, 20)
	total := l.stop(t)
	f.await(t, total)
	t.Logf("%d messages to %d streams over 10 reloads", total, len(f.followers))
}

func TestAGracePeriodEndsNoStreamOfHTTP1And2(t *testing.T) {
	t.Parallel()
	const grace = "grace_period 300ms"
	server := e2etest.Start(t, version(0, grace), awaitTLS)
	plain, secure := server.URL("/events?topic=load"), server.Expand("https://localhost:{{tls}}/events?topic=load")
	f := newFleet(t)
	h1, h2 := e2etest.H1(t), e2etest.H2(t)
	var l *load
	for i := range 3 {
		// Only streams that the old config has begun are waited for when it ends.
		f.dial(t, plain, 20)
		f.via(t, h1, secure, 20, "h1 over TLS")
		f.via(t, h2, secure, 20, "h2")
		if i == 2 {
			l = startLoad(t, plain, 2, 200)
			l.awaitMore(t, 20)
		}
		reloadTo(t, server, i+1, grace)
		e2etest.Await(t, "the end of the grace period", func() bool { // of the server with TLS; direct streams are no request's
			return strings.Count(server.Log(), "server graceful shutdown 0s timeout") > i
		})
	}
	l.awaitMore(t, 20)
	f.await(t, l.stop(t))
}

func TestChangedHistoryAppliesToNewClientsAndDropsNobody(t *testing.T) {
	t.Parallel()
	site := func(history string) string { return tlsSite(siteOptions{hub: history}) }
	server := e2etest.Start(t, site(""), awaitTLS)
	url := server.URL("/events?topic=load")
	f := newFleet(t)
	f.dial(t, url, 20)
	var ids []string
	publish := func(n int) {
		t.Helper()
		for range n {
			var told struct{ ID string }
			decodeLoosely(t, e2etest.Publish(t, url, numbered(0, int64(len(ids)), 0)), &told)
			ids = append(ids, told.ID)
		}
		f.await(t, int64(len(ids)))
	}
	reload := func(history string) {
		t.Helper()
		if err := server.Reload(site(history)); err != nil {
			t.Fatal(err)
		}
	}
	// resumes fails the test unless whoever has seen the message i last is told so and gets those from first on.
	resumes := func(i int, want string, first int) {
		t.Helper()
		stream := e2etest.Subscribe(t, url, e2etest.LastEventID(ids[i]))
		defer stream.Close()
		if got := stream.Connected(t).Resume; got != want {
			t.Errorf("after message %d of %d, resume is %q; want %q", i, len(ids), got, want)
		}
		for n := first; n < len(ids); n++ {
			stream.Expect(t, numbered(0, int64(n), 0))
		}
	}
	publish(20)
	resumes(0, "complete", 1)
	reload("history 5")
	resumes(0, "gap", 15)
	resumes(13, "gap", 15)
	resumes(14, "complete", 15)
	publish(3)
	resumes(17, "complete", 18)
	resumes(16, "gap", 18)
	reload("history 100")
	publish(20)
	resumes(17, "complete", 18) // what is kept grows again
	resumes(16, "gap", 18)
	reload("history off")
	resumes(41, "gap", len(ids))
	resumes(42, "complete", len(ids)) // it has seen everything
	publish(1)
	resumes(42, "gap", len(ids))
	reload("history 100 300ms")
	publish(2)
	time.Sleep(300 * time.Millisecond) // the age itself
	resumes(43, "gap", len(ids))
	f.check(t)
}

func TestLoweredMaxClientsKeepsConnectedClients(t *testing.T) {
	t.Parallel()
	site := func(most int) string { return tlsSite(siteOptions{hub: fmt.Sprintf("max_clients %d", most)}) }
	server := e2etest.Start(t, site(20), awaitTLS)
	url := server.URL("/events?topic=load")
	f := newFleet(t)
	f.dial(t, url, 20)
	refused := func() {
		t.Helper()
		_, err := e2etest.Open(t.Context(), url)
		refused, ok := errors.AsType[*e2etest.Refused](err)
		if !ok || refused.Status != http.StatusServiceUnavailable || refused.Header.Get("Retry-After") == "" {
			t.Errorf("want 503 with Retry-After, got %v", err)
		}
	}
	refused()
	if err := server.Reload(site(10)); err != nil {
		t.Fatal(err)
	}
	refused()
	e2etest.Publish(t, url, numbered(0, 0, 0))
	f.await(t, 1)
	for _, x := range f.followers[:10] { // they leave, and there is no room still
		x.close()
		<-x.done
	}
	refused()
	if err := server.Reload(site(11)); err != nil {
		t.Fatal(err)
	}
	var eleventh *e2etest.Stream
	e2etest.Await(t, "room for one", func() (ok bool) { // the server may still be noticing who left
		var err error
		eleventh, err = e2etest.Open(t.Context(), url)
		return err == nil
	})
	defer eleventh.Close()
	refused()
}

func TestHubWithoutRoutesClosesItsClients(t *testing.T) {
	t.Parallel()
	const both = `
{
	sse {
		hub chat
	}
}
http://127.0.0.1:{{port}} {
	sse /events {
		publish {
			open
		}
	}
	CHAT
}
`
	with := strings.Replace(both, "CHAT", "sse /chat {\nhub chat\npublish {\nopen\n}\n}\nsse /chat2 {\nhub chat\n}", 1)
	one := strings.Replace(both, "CHAT", "sse /chat2 {\nhub chat\n}", 1)
	without := strings.Replace(both, "CHAT", "", 1)
	server := e2etest.Start(t, with)
	stays := e2etest.Subscribe(t, server.URL("/events?topic=a"))
	chat := e2etest.Subscribe(t, server.URL("/chat?topic=a"))
	chat2 := e2etest.Subscribe(t, server.URL("/chat2?topic=a"))
	id := chat.Connected(t).ID
	e2etest.Publish(t, server.URL("/chat?topic=a"), "hello")
	chat.Expect(t, "hello")
	chat2.Expect(t, "hello")

	if err := server.Reload(one); err != nil { // the route is gone, the hub is not
		t.Fatal(err)
	}
	if got := e2etest.Subscribe(t, server.URL("/chat2?topic=a"), e2etest.LastEventID(id)).Connected(t); got.Resume != "complete" {
		t.Errorf("resume is %q; want complete", got.Resume)
	}
	if err := chat.Ended(0); !errors.Is(err, e2etest.ErrTimeout) {
		t.Fatalf("a client of the route that is gone has ended: %v", err)
	}
	if err := server.Reload(without); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []*e2etest.Stream{chat, chat2} {
		if err := stream.Ended(patience); !errors.Is(err, io.EOF) {
			t.Errorf("the stream has ended with %v; want its proper end", err)
		}
	}
	e2etest.Publish(t, server.URL("/events?topic=a"), "goes on")
	stays.Expect(t, "goes on")

	if err := server.Reload(with); err != nil { // a hub of that name is another
		t.Fatal(err)
	}
	if got := e2etest.Subscribe(t, server.URL("/chat?topic=a"), e2etest.LastEventID(id)).Connected(t); got.Resume != "gap" {
		t.Errorf("resume is %q; want gap", got.Resume)
	}
}
