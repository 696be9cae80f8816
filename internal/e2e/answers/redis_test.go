package answers

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

// pair runs two instances that one Redis joins, before one model.
func pair(t *testing.T, redis *e2etest.Redis, options string) (a, b site) {
	t.Helper()
	model := modeltest.Start(t)
	global := "sse {\n broker redis " + redis.URL() + "\n }"
	return startWith(t, model, global, options), startWith(t, model, global, options)
}

// oneHost is how clients know both instances, as behind a load balancer. Keys and names are those of a host.
var oneHost = e2etest.Header("Host", "127.0.0.1")

// on returns what an answer is on another instance.
func (a answer) on(s site) answer {
	_, path, _ := strings.Cut(a.url, "/chat")
	return answer{nil, s.URL("/chat" + path), a.id}
}

func TestReaderLandsOnAnotherInstance(t *testing.T) {
	t.Parallel()
	a, b := pair(t, e2etest.RedisServer(t), "")
	first, call := begin(t, a, 5)
	first.Close()
	tokens(call, 6, 7)
	elsewhere := openAs(t, b.URL("/chat"), e2etest.Post(`{"stream":true}`), e2etest.LastEventID(first.event(3)))
	elsewhere.has(t, 4, 7)
	reload := openAs(t, first.on(b).url)
	reload.has(t, 1, 7)
	// An ID ahead of what the instance has read is waited for.
	tokens(call, 8, 30)
	owners := openAs(t, first.url, e2etest.LastEventID(first.event(7)))
	owners.has(t, 8, 30)
	ahead := openAs(t, b.URL("/chat"), e2etest.LastEventID(first.event(30)))
	b.refused(t, 400, "GET", b.URL("/chat"), "", e2etest.LastEventID(first.event(1000))) // while its owner lives, too
	tokens(call, 31, 2000)
	call.End()
	for from, reader := range map[int]answer{8: elsewhere, 9: reload, 31: ahead} {
		if from == 9 {
			from = 8
		}
		reader.has(t, from, 2000)
		reader.ends(t)
	}
	all := e2etest.LastEventID(first.event(2000))
	if got := e2etest.Send(t, "GET", first.on(b).url, "", all); got.Status != 204 {
		t.Errorf("who has had all is answered with %d", got.Status)
	}
	late := openAs(t, first.on(b).url, e2etest.LastEventID(first.event(1990)))
	late.has(t, 1991, 2000)
	late.ends(t)
	if status := first.on(b).status(t); status.State != "done" || status.Events != 2000 {
		t.Errorf("on the other instance the status is %+v", status)
	}
	b.refused(t, 400, "GET", b.URL("/chat"), "", e2etest.LastEventID(first.event(2001)))
	b.refused(t, 404, "GET", b.URL("/chat"), "", e2etest.LastEventID("sse"+strings.Repeat("A", 26)+".1"))
	if calls := a.model.Calls(); calls != 1 {
		t.Errorf("the model was asked %d times", calls)
	}
}

// Somebody reads it, on whatever instance: it is not abandoned. Nobody does: it is.
func TestAbandonedIsWhatNobodyReadsOnAnyInstance(t *testing.T) {
	t.Parallel()
	a, b := pair(t, e2etest.RedisServer(t), "on_abandon cancel 2s")
	first, call := begin(t, a, 1)
	elsewhere := openAs(t, first.on(b).url)
	elsewhere.has(t, 1, 1)
	first.Close()
	n := 1
	for began := time.Now(); time.Since(began) < 5*time.Second; n++ {
		tokens(call, n+1, n+1)
		elsewhere.has(t, n+1, n+1)
	}
	if call.HasLeft() {
		t.Fatal("the model was cancelled under a reader")
	}
	elsewhere.Close()
	call.Gone(t)
}

func TestDeleteFromAnotherInstance(t *testing.T) {
	t.Parallel()
	a, b := pair(t, e2etest.RedisServer(t), "bind none\n name {header.X-Run-Id}\n lookup {query.runId}")
	for _, byName := range []bool{false, true} {
		first, call := begin(t, a, 2, oneHost, e2etest.Header("X-Run-Id", "r1"))
		elsewhere := openAs(t, b.URL("/chat?runId=r1"), oneHost)
		if elsewhere.id != first.id {
			t.Fatal("another answer was found")
		}
		elsewhere.has(t, 1, 2)
		if byName {
			stop(t, b.URL("/chat?runId=r1"), oneHost)
		} else {
			stop(t, first.on(b).url)
		}
		call.Gone(t)
		first.ends(t)
		elsewhere.ends(t)
	}
}

func TestTwoInstancesAskOnce(t *testing.T) {
	t.Parallel()
	a, b := pair(t, e2etest.RedisServer(t), keyed)
	a.model.On("/chat", modeltest.Plain(200, time.Millisecond))
	for round := range 5 {
		var asking sync.WaitGroup
		bodies := make(chan string, 10)
		for i := range cap(bodies) {
			asking.Go(func() {
				target := []site{a, b}[i%2].URL("/chat")
				got, err := e2etest.Do(t.Context(), "POST", target, "{}", oneHost, key(fmt.Sprint("k", round)))
				if err != nil {
					t.Error(err)
				}
				bodies <- got.Body
			})
		}
		asking.Wait()
		first := <-bodies
		for range cap(bodies) - 1 {
			if body := <-bodies; body != first || !strings.Contains(body, "[DONE]") {
				t.Fatalf("one got %.200q, another %.200q", first, body)
			}
		}
		if calls := a.model.Calls(); calls != round+1 {
			t.Fatalf("the model was asked %d times by request %d", calls, round+1)
		}
	}
	b.refused(t, 422, "POST", b.URL("/chat"), "another", oneHost, key("k0"))
}

func TestOwnerIsKilled(t *testing.T) {
	t.Parallel()
	a, b := pair(t, e2etest.RedisServer(t), "")
	first, call := begin(t, a, 3)
	elsewhere := openAs(t, first.on(b).url)
	elsewhere.has(t, 1, 3)
	a.Kill()
	call.Gone(t)
	if _, err := first.Next(patience); err == nil || err == io.EOF {
		t.Errorf("the owner's reader ended with %v", err)
	}
	elsewhere.aborts(t, 4, "owner_lost")
	// Who comes back is told the same, once.
	again := openAs(t, first.on(b).url, e2etest.LastEventID(first.event(2)))
	again.has(t, 3, 3)
	again.aborts(t, 4, "owner_lost")
	if got := e2etest.Send(t, "GET", first.on(b).url, "", e2etest.LastEventID(first.event(4))); got.Status != 204 {
		t.Errorf("who has had the error is answered with %d", got.Status)
	}
	if calls := a.model.Calls(); calls != 1 {
		t.Errorf("the model was asked %d times", calls)
	}
}

// An owner that is killed may have given its readers what nobody else knows of.
func TestOwnerIsKilledWithWhatItHasNotToldOthers(t *testing.T) {
	t.Parallel()
	redis, model := e2etest.RedisServer(t), modeltest.Start(t)
	line := e2etest.NewProxy(t, redis.Addr())
	a := startWith(t, model, "sse {\n broker redis "+line.URL()+"\n }", "")
	b := startWith(t, model, "sse {\n broker redis "+redis.URL()+"\n }", "")
	first, call := begin(t, a, 5)
	elsewhere := openAs(t, first.on(b).url)
	elsewhere.has(t, 1, 5)
	elsewhere.Close()
	line.Hold()
	tokens(call, 6, 20)
	first.has(t, 6, 20)
	a.Kill()
	for _, had := range []int{20, 6, 5} {
		back := openAs(t, b.URL("/chat"), e2etest.LastEventID(first.event(had)))
		back.aborts(t, had+1, "owner_lost")
	}
	if got := e2etest.Send(t, "GET", first.on(b).url, "", e2etest.LastEventID(first.event(21))); got.Status != 204 {
		t.Errorf("who has had the error is answered with %d", got.Status)
	}
}

// Who reads from the owner notices nothing, and nothing comes twice.
func TestRedisIsFrozen(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	a, b := pair(t, redis, "")
	first, call := begin(t, a, 3)
	elsewhere := openAs(t, first.on(b).url)
	elsewhere.has(t, 1, 3)
	redis.Freeze()
	n, slowest := 3, time.Duration(0)
	for began := time.Now(); time.Since(began) < 4*time.Second; n++ {
		said := time.Now()
		tokens(call, n+1, n+1)
		first.has(t, n+1, n+1)
		slowest = max(slowest, time.Since(said))
	}
	if slowest > 2*time.Second {
		t.Errorf("a token took %v", slowest)
	}
	// New ones are not kept waiting either.
	second, call2 := beginAt(t, a, "/other", 2)
	redis.Thaw()
	tokens(call, n+1, n+20)
	call.End()
	first.has(t, n+1, n+20)
	first.ends(t)
	elsewhere.has(t, 4, n+20)
	elsewhere.ends(t)
	call2.End()
	second.ends(t)
}

func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	a, _ := pair(t, redis, keyed)
	redis.Kill()
	// Keys hold on this instance.
	first, call := begin(t, a, 3, key("k"))
	same := ask(t, a.URL("/chat"), key("k"))
	same.has(t, 1, 3)
	stop(t, first.url)
	call.Gone(t)
	first.ends(t)
	same.ends(t)
}

// So many calls would be one per 50 ms, and a few to begin and to end.
func TestCallsOfRedisAreFew(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	a, b := pair(t, redis, "")
	commands := func() (n int) {
		t.Helper()
		info, err := redis.Do(patience, "INFO", "commandstats")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(info) {
			name, rest, _ := strings.Cut(line, ":calls=")
			if strings.HasPrefix(name, "cmdstat_x") || strings.HasPrefix(name, "cmdstat_eval") {
				var calls int
				_, _ = fmt.Sscan(strings.SplitN(rest, ",", 2)[0], &calls)
				n += calls
			}
		}
		return n
	}
	a.model.On("/chat", modeltest.Plain(500, 4*time.Millisecond))
	_ = b // it reads nothing, as nobody asks it to
	before, began := commands(), time.Now()
	reader := ask(t, a.URL("/chat"))
	reader.has(t, 1, 500)
	reader.Expect(t, "[DONE]")
	reader.ends(t)
	took := time.Since(began)
	idle, idleBegan := commands(), time.Now()
	e2etest.Await(t, "as long without an answer", func() bool { return time.Since(idleBegan) > took })
	others := commands() - idle // of the hubs themselves
	if n, most := idle-before-others, int(took/(50*time.Millisecond))+20; n > most {
		t.Errorf("%d calls in %v, want %d at most", n, took, most)
	}
}
