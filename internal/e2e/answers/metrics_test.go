package answers

import (
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

func TestAnswersAreCounted(t *testing.T) {
	t.Parallel()
	site := start(t, keyed+"\n max_bytes 64KiB\n on_abandon cancel 1s\n ttl 1s")
	await := func(want float64, name string, label ...string) {
		t.Helper()
		e2etest.Await(t, name+strings.Join(label, ""), func() bool { return site.metric(t, name, label...) == want })
	}
	site.model.On("/json", func(c *modeltest.Call) {
		c.Header().Set("Content-Type", "application/json")
		c.Say("{}")
	})
	site.model.On("/long", modeltest.Plain(50_000, 0))

	done, call := begin(t, site, 2, key("k1"))
	await(1, "caddy_sse_answers", `state="live"`)
	await(0, "caddy_sse_answer_attached_total")
	ask(t, site.URL("/chat"), key("k1")).has(t, 1, 2)
	await(1, "caddy_sse_answer_attached_total")
	openAs(t, done.url, e2etest.LastEventID(done.event(1))).has(t, 2, 2)
	await(1, "caddy_sse_answer_resumes_total", `result="complete"`)
	call.End()
	done.ends(t)
	await(1, "caddy_sse_answers_total", `result="done"`)

	stopped, _ := begin(t, site, 1)
	stop(t, stopped.url)
	await(1, "caddy_sse_answers_total", `result="stopped"`)
	abandoned, _ := begin(t, site, 1)
	abandoned.Close()
	await(1, "caddy_sse_answers_total", `result="abandoned"`)
	_ = ask(t, site.URL("/long")).Ended(patience)
	await(1, "caddy_sse_answers_total", `result="aborted"`)
	e2etest.Send(t, "POST", site.URL("/json"), "{}")
	await(1, "caddy_sse_answers_total", `result="passed"`)
	site.refused(t, 404, "POST", site.URL("/chat"), "{}", e2etest.LastEventID("sse"+strings.Repeat("A", 26)+".1"))
	await(1, "caddy_sse_answer_resumes_total", `result="unknown"`)

	// In the end nothing is kept.
	await(0, "caddy_sse_answers")
	await(0, "caddy_sse_answer_bytes")
}
