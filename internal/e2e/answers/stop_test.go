package answers

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

func stop(t *testing.T, target string, options ...e2etest.Option) {
	t.Helper()
	got := e2etest.Send(t, http.MethodDelete, target, "", options...)
	if got.Status != http.StatusNoContent || got.Body != "" {
		t.Errorf("DELETE is answered with %d %s", got.Status, got.Body)
	}
}

func TestDeleteStopsTheModel(t *testing.T) {
	t.Parallel()
	site := start(t, named)
	for n, byName := range []bool{false, true} {
		name := fmt.Sprintf("c%d", n)
		first, call := beginAt(t, site, "/api/chat", 3, e2etest.Post(`{"id":"`+name+`"}`))
		second := openAs(t, first.url)
		second.has(t, 1, 3)
		target := first.url
		if byName {
			target = site.URL("/api/chat/" + name + "/stream")
		}
		stop(t, target)
		call.Gone(t)
		// Readers end in good order, without an error.
		first.ends(t)
		second.ends(t)
		if status := first.status(t); status.State != "stopped" || status.Events != 3 {
			t.Errorf("the status is %+v", status)
		}
		if got := e2etest.Send(t, "GET", first.url, "", e2etest.LastEventID(first.event(3))); got.Status != 204 {
			t.Errorf("who comes back is answered with %d", got.Status)
		}
		stop(t, target)
	}
	stop(t, site.URL("/api/chat?sse_stream=sseAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	stop(t, site.URL("/api/chat/unknown/stream"))
	if calls := site.model.Calls(); calls != 2 {
		t.Errorf("the model was asked %d times", calls)
	}
}

func TestDeleteBeforeTheFirstByte(t *testing.T) {
	t.Parallel()
	site := start(t, named)
	site.model.Silent()
	got := make(chan e2etest.Answer, 1)
	go func() {
		answer, _ := e2etest.Do(t.Context(), "POST", site.URL("/api/chat"), `{"id":"c1"}`)
		got <- answer
	}()
	call := site.model.Asked(t)
	stop(t, site.URL("/api/chat/c1/stream"))
	call.Gone(t)
	if answer := <-got; answer.Status >= 500 {
		t.Errorf("who asked is answered with %d %s", answer.Status, answer.Body)
	}
}

func TestDeleteOfAnythingElseGoesUpstream(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	site.model.On("/files/1", func(c *modeltest.Call) {
		c.Header().Set("Content-Type", "application/json")
		c.Begin(http.StatusAccepted)
	})
	if got := e2etest.Send(t, "DELETE", site.URL("/files/1?sse_streams=1"), ""); got.Status != http.StatusAccepted {
		t.Errorf("DELETE is answered with %d", got.Status)
	}
}

func TestAbandonedAnswersAreCancelled(t *testing.T) {
	t.Parallel()
	site := start(t, "on_abandon cancel 1s")
	first, call := begin(t, site, 2)
	second := openAs(t, first.url)
	second.has(t, 1, 2)
	first.Close()
	tokens(call, 3, 3)
	second.has(t, 3, 3) // somebody reads it
	second.Close()
	call.Gone(t)
	late := openAs(t, first.url, e2etest.LastEventID(first.event(2)))
	late.has(t, 3, 3)
	late.aborts(t, 4, "abandoned")
	if status := first.status(t); status.State != "aborted" || status.Reason != "abandoned" {
		t.Errorf("the status is %+v", status)
	}
}

func TestAbandonedAnswersAreFinishedIfWished(t *testing.T) {
	t.Parallel()
	site := start(t, "on_abandon finish\n max_live 1")
	first, call := begin(t, site, 2)
	first.Close()
	tokens(call, 3, 4)
	call.End()
	first.awaitState(t, "done")
	late := openAs(t, first.url, e2etest.LastEventID(first.event(2)))
	late.has(t, 3, 4)
	late.ends(t)
}

func TestMaxLiveCancelsTheOldestWithoutAReader(t *testing.T) {
	t.Parallel()
	site := start(t, "on_abandon finish\n max_live 2")
	read, readCall := begin(t, site, 1)
	var calls []*modeltest.Call
	var left []answer
	for range 3 {
		reader, call := begin(t, site, 1)
		reader.Close()
		left, calls = append(left, reader), append(calls, call)
	}
	calls[0].Gone(t)
	left[0].awaitState(t, "aborted")
	if status := left[0].status(t); status.Reason != "abandoned" {
		t.Errorf("the status is %+v", status)
	}
	for _, live := range append(left[1:], read) {
		if status := live.status(t); status.State != "live" {
			t.Errorf("one with a place is %+v", status)
		}
	}
	for _, call := range append(calls[1:], readCall) {
		call.End()
	}
	read.ends(t)
}

func TestBoundsOfOneAnswer(t *testing.T) {
	t.Parallel()
	site := start(t, "max_bytes 4KiB\n max_time 3s")
	site.model.On("/long", modeltest.Plain(5000, 0))
	long := ask(t, site.URL("/long"))
	n := 0
	for {
		event, err := long.Next(patience)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if event.Name != "error" {
			continue
		}
		if event.ID != long.event(n) {
			t.Errorf("the error has the ID %q, want %q", event.ID, long.event(n))
		}
		break
	}
	long.ends(t)
	const most = 4<<10 + 200 // with the error
	if status := long.status(t); status.State != "aborted" || status.Reason != "max_bytes" || status.Bytes > most {
		t.Errorf("the status is %+v", status)
	}
	slow, call := begin(t, site, 2)
	call.Gone(t)
	slow.aborts(t, 3, "max_time")
}

func TestOldestOfTheEndedGiveWay(t *testing.T) {
	t.Parallel()
	site := start(t, "max_total 40KiB")
	site.model.On("/chat", modeltest.Plain(600, 0)) // of about 10 KiB each
	live, call := beginAt(t, site, "/live", 5)
	var kept []answer
	for range 8 {
		reader := ask(t, site.URL("/chat"))
		reader.has(t, 1, 600)
		reader.Expect(t, "[DONE]")
		reader.ends(t)
		kept = append(kept, reader)
	}
	site.refused(t, 404, "GET", kept[0].url, "")
	last := openAs(t, kept[7].url)
	last.has(t, 1, 600)
	again := openAs(t, live.url)
	again.has(t, 1, 5)
	call.End()
}

// Of an answer that gave way it is known still that it was, and how long.
func TestAnswersThatGaveWayAreGone(t *testing.T) {
	t.Parallel()
	site := start(t, "max_total 100KiB")
	site.model.On("/chat", modeltest.Plain(600, 0))
	var kept []answer
	for range 8 {
		reader := ask(t, site.URL("/chat"))
		reader.has(t, 1, 600)
		reader.Expect(t, "[DONE]")
		reader.ends(t)
		kept = append(kept, reader)
	}
	first := kept[0]
	for _, got := range []e2etest.Answer{
		site.refused(t, 410, "GET", first.url, ""),
		site.refused(t, 410, "GET", site.URL("/chat"), "", e2etest.LastEventID(first.event(600))),
		site.refused(t, 410, "POST", site.URL("/chat"), "{}", e2etest.LastEventID(first.event(1))),
	} {
		if !strings.Contains(got.Body, `"oldest":602`) { // the next that there would be
			t.Errorf("it tells %s", got.Body)
		}
	}
	site.refused(t, 400, "GET", site.URL("/chat"), "", e2etest.LastEventID(first.event(602)))
	got := e2etest.Send(t, "GET", site.URL("/chat"), "", e2etest.LastEventID(first.event(601)))
	if got.Status != 204 {
		t.Errorf("who has had all is answered with %d", got.Status)
	}
	if status := first.status(t); status.State != "done" || status.Events != 601 {
		t.Errorf("its status is %+v", status)
	}
	if gone := site.metric(t, "caddy_sse_answer_resumes_total", `result="gone"`); gone != 2 {
		t.Errorf("%v requests are counted as gone", gone)
	}
	stop(t, first.url)
}
