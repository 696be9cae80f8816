package answers

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

// leaveMany begins answers whose readers leave at once, and waits until all are under way without them.
func leaveMany(t *testing.T, site site, count int) {
	t.Helper()
	var readers sync.WaitGroup
	places := make(chan struct{}, 20)
	for range count {
		readers.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			stream, err := e2etest.Open(t.Context(), site.URL("/chat"), e2etest.Post("{}"))
			if err != nil {
				t.Error(err)
				return
			}
			stream.Close()
		})
	}
	readers.Wait()
}

func TestExitWaitsForNoModel(t *testing.T) {
	t.Parallel()
	site := startWith(t, modeltest.Start(t), "", "", e2etest.Plain())
	const count = 500
	leaveMany(t, site, count)
	if calls, left := site.model.Calls(), site.model.Left(); calls != count || left != 0 {
		t.Errorf("%d models speak, and %d were cancelled", calls, left)
	}
	began := time.Now()
	site.Stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the exit took %v", took)
	}
	e2etest.Await(t, "all are cancelled", func() bool { return site.model.Left() == count })
}

// A reader must not take half an answer for a whole one.
func TestExitCutsReaders(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	first, call := begin(t, site, 3)
	second := openAs(t, first.url)
	second.has(t, 1, 3)
	site.Stop()
	call.Gone(t)
	for _, reader := range []answer{first, second} {
		if event, err := reader.Next(patience); err == nil || err == io.EOF || errors.Is(err, e2etest.ErrTimeout) {
			t.Errorf("after the exit came %q %q, %v", event.Name, event.Data, err)
		}
	}
	// After a restart nobody knows it, and the model is not asked.
	site.Restart()
	site.refused(t, 404, "POST", site.URL("/chat"), `{"stream":true}`, e2etest.LastEventID(first.event(3)))
}

func TestReloadsDisturbNobody(t *testing.T) {
	t.Parallel()
	site := start(t, "bind none\n key {header.Idempotency-Key}")
	first, call := begin(t, site, 3, key("k"))
	gone := openAs(t, first.url)
	gone.has(t, 1, 3)
	gone.Close()
	n := 3
	for range 10 {
		if err := site.Reload(caddyfile(site.model, "", "bind none\n key {header.Idempotency-Key}")); err != nil {
			t.Fatal(err)
		}
		tokens(call, n+1, n+1)
		n++
		first.has(t, n, n)
	}
	late := openAs(t, first.url, e2etest.LastEventID(first.event(3)))
	late.has(t, 4, n)
	same := ask(t, site.URL("/chat"), key("k"))
	same.has(t, 1, n)
	call.End()
	for _, reader := range []answer{first, late, same} {
		reader.ends(t)
	}
	if calls := site.model.Calls(); calls != 1 {
		t.Errorf("the model was asked %d times", calls)
	}
	// And Stop of an answer that began before a reload.
	second, call := begin(t, site, 1)
	if err := site.Reload(caddyfile(site.model, "", "")); err != nil {
		t.Fatal(err)
	}
	stop(t, second.url)
	call.Gone(t)
	second.ends(t)
}

// A config without the directive leaves no answers without an owner.
func TestReloadThatRemovesTheDirective(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	first, call := begin(t, site, 2)
	left, call2 := begin(t, site, 1)
	left.Close()
	if err := site.Reload(`
http://127.0.0.1:{{port}} {
	respond "moved"
}`); err != nil {
		t.Fatal(err)
	}
	call.Gone(t)
	call2.Gone(t)
	if event, err := first.Next(patience); err == nil || err == io.EOF {
		t.Errorf("after the reload came %q %q, %v", event.Name, event.Data, err)
	}
}

func TestLongAnswerAndReaderThatTakesNothing(t *testing.T) {
	t.Parallel()
	site := start(t, "max_bytes 64MiB")
	const count = 60_000
	call := make(chan *modeltest.Call, 1)
	site.model.On("/chat", func(c *modeltest.Call) {
		c.Begin(200)
		call <- c
		modeltest.Plain(count, 0)(c)
	})
	first := ask(t, site.URL("/chat"))
	<-call
	stalled := e2etest.Stall(t, first.url)
	first.has(t, 1, count)
	first.Expect(t, "[DONE]")
	first.ends(t)
	late := openAs(t, first.url, e2etest.LastEventID(first.event(count-10)))
	late.has(t, count-9, count)
	late.Expect(t, "[DONE]")
	late.ends(t)

	// It gets all of it, once it reads.
	_ = stalled.SetReadDeadline(time.Now().Add(patience))
	_ = stalled.(*net.TCPConn).SetReadBuffer(1 << 20)
	whole := openAs(t, first.url)
	if err := whole.Ended(patience); err != io.EOF {
		t.Fatal(err)
	}
	want := int64(len(whole.Raw()))
	if n, err := io.Copy(io.Discard, io.LimitReader(stalled, want)); n < want {
		t.Errorf("the reader that took nothing gets %d bytes of more than %d, %v", n, want, err)
	}
}

func TestReadersThatLeftKeepNoDescriptor(t *testing.T) {
	t.Parallel()
	files := func(site site) int {
		all, err := os.ReadDir("/proc/" + pid(site) + "/fd")
		if err != nil {
			e2etest.Lack(t, "/proc")
		}
		return len(all)
	}
	site := start(t, "")
	first, call := begin(t, site, 10)
	second := openAs(t, first.url)
	second.has(t, 1, 10)
	second.Close()
	before := files(site)
	var readers sync.WaitGroup
	for range 20 {
		readers.Go(func() {
			for range 50 {
				stream, err := e2etest.Open(t.Context(), first.url)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := stream.Next(patience); err != nil {
					t.Error(err)
				}
				stream.Close()
			}
		})
	}
	readers.Wait()
	const slack = 5 // the runtime's and Caddy's own comings and goings
	e2etest.Await(t, "no descriptor is kept", func() bool { return files(site) <= before+slack })
	call.End()
	first.ends(t)
}

func TestEndOfTheProcessByForce(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	first, call := begin(t, site, 1)
	site.Kill()
	call.Gone(t)
	if _, err := first.Next(patience); err == nil || err == io.EOF {
		t.Errorf("the reader's stream ended with %v", err)
	}
}
