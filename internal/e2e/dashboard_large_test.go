package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// fakeHub answers as the admin endpoint of a Caddy with very many clients would. It lives on the
// dashboard's own files.
type fakeHub struct {
	clients int
	mu      sync.Mutex // guards largest
	largest int        // limit that was asked for
}

func (f *fakeHub) handler(root string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /sse/", http.StripPrefix("/sse/", http.FileServer(http.Dir(root))))
	mux.HandleFunc("GET /sse/hubs", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"hubs":[{"name":"default","broker":"redis","up":true,"clients":%d,"connections":123456,"limited":12,"refused":3,`+
			`"reconnects":4321,"gaps":17,"messages_published":%d,"messages_sent":%d,"messages_dropped":5,"history_bytes":52428800,"topics":50000,`+
			`"dropped_by_reason":{"slow_client":5,"malformed":0},"disconnects":{"left":73000,"slow_client":2},`+
			`"delivery":{"count":100,"sum_seconds":0.2,"buckets":[{"le":0.001,"count":60},{"le":0.0025,"count":100}]}}]}`,
			f.clients, f.grown(40), f.grown(2_000_000))
	})
	mux.HandleFunc("GET /sse/hubs/default/clients", f.page("clients", func(i int) any {
		return map[string]any{
			"client_id": fmt.Sprintf("%022d", i), "user": "user" + strconv.Itoa(i%9), "topics": []string{"news", fmt.Sprintf("orders/%d/*", i)},
			"since": "2026-11-22T12:00:00Z", "queued": i % 3,
		}
	}))
	mux.HandleFunc("GET /sse/hubs/default/topics", f.page("topics", func(i int) any {
		return map[string]any{"topic": fmt.Sprintf("orders/%d/*", i), "clients": 1, "kept": i % 5}
	}))
	return mux
}

// grown is a number that grows at an uneven rate.
func (f *fakeHub) grown(perSecond float64) int64 {
	t := float64(time.Now().UnixMilli()%1_000_000) / 1000
	return int64(perSecond * (t + 0.7*math.Sin(t)))
}

func (f *fakeHub) page(name string, item func(i int) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.URL.Query().Get("after"))
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		f.mu.Lock()
		f.largest = max(f.largest, limit)
		f.mu.Unlock()
		answer := map[string]any{"next": ""}
		var items []any
		for i := after; i < min(after+limit, f.clients); i++ {
			items = append(items, item(i))
		}
		answer[name] = items
		if after+limit < f.clients {
			answer["next"] = strconv.Itoa(after + limit)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func (f *fakeHub) largestPage() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.largest
}

func TestDashboardShowsFiftyThousandClientsInPages(t *testing.T) {
	e2etest.NotAboutStreams(t)
	hub := &fakeHub{clients: 50_000}
	server := httptest.NewServer(hub.handler(filepath.Join(e2etest.RepoRoot(t), "dashboard")))
	t.Cleanup(server.Close)
	page := dashboard{t, e2etest.Chromium(t)}
	page.load(server.URL + "/sse/#hub=default")
	page.await(`$("#clients tbody").rows.length === 100 && $("#topics tbody").rows.length === 100`)
	page.await(`metric("clients") === "50000" && $("#clients-range").textContent === "1 to 100"`)

	// The page must stay quick: no task of its own may hold up the user.
	page.script(`window.longest = 0; new PerformanceObserver((list) => {
		for (const task of list.getEntries()) longest = Math.max(longest, task.duration);
	}).observe({ type: "longtask" })`)
	for i := 1; i <= 20; i++ {
		page.run(chromedp.Click(`[data-pager=clients] [data-go=next]`))
		page.await(fmt.Sprintf(`$("#clients-range").textContent === "%s to %s"`, thousands(i*100+1), thousands(i*100+100)))
	}
	page.run(chromedp.Click(`[data-pager=clients] [data-go=previous]`))
	page.await(`$("#clients-range").textContent === "1,901 to 2,000" && $("#clients tbody th").textContent === "0000000000000000001900"`)
	if n := get[int](page, `$("#clients tbody").rows.length`); n != 100 {
		t.Errorf("%d rows are there", n)
	}
	if ms := get[float64](page, `longest`); ms > 2000 { // the machine may be busy
		t.Errorf("the page froze for %v ms", ms)
	}
	if largest := hub.largestPage(); largest != 100 {
		t.Errorf("it asked for %d at once", largest)
	}

	if os.Getenv("SSE_TEST_SCREENSHOTS") == "" {
		return
	}
	page.await(`$("[data-rate=messages_sent] path.line").getAttribute("d").split("L").length > 6`)
	for _, scheme := range []string{"light", "dark"} {
		for name, width := range map[string]int64{"desktop": 1280, "phone": 390} {
			page.run(chromedp.EmulateViewport(width, 1800))
			page.prefer(scheme)
			page.await(`document.documentElement.scrollWidth <= innerWidth`)
			e2etest.Screenshot(page.ctx, t, "dashboard-"+name+"-"+scheme)
			page.script(`scrollTo(0, 1e6)`)
			e2etest.Screenshot(page.ctx, t, "dashboard-"+name+"-"+scheme+"-end")
			page.script(`scrollTo(0, 0)`)
		}
	}
}

func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
