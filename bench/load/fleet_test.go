//go:build linux

package load

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// faulty is a hub that loses, repeats and swaps messages as it is told, and cuts clients off.
type faulty struct {
	mu        sync.Mutex // guards the rest
	clients   map[int]chan []byte
	published int
	fault     func(client, message int, send func()) // nil = none
	cut       int                                    // message at which client 0 is cut off; 0 = never
}

func (h *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		message, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.publish(message)
		fmt.Fprintln(w, "ok")
		return
	}
	id, err := strconv.Atoi(r.URL.Query().Get("i"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	messages := make(chan []byte, 1<<16)
	h.mu.Lock()
	h.clients[id] = messages
	h.mu.Unlock()
	flusher := http.NewResponseController(w)
	if flusher.Flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case message, more := <-messages:
			if !more {
				return
			}
			if _, err := fmt.Fprintf(w, "data: %s\n\n", message); err != nil || flusher.Flush() != nil {
				return
			}
		}
	}
}

func (h *faulty) publish(message []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published++
	for id, messages := range h.clients {
		if h.cut == h.published && id == 0 {
			close(messages)
			delete(h.clients, id)
			continue
		}
		send := func() { messages <- message }
		if h.fault == nil {
			send()
		} else {
			h.fault(id, h.published, send)
		}
	}
}

// over returns a hub and how a fleet reaches it over a protocol.
func over(t *testing.T, protocol string) (h *faulty, target Target, publish Load) {
	t.Helper()
	h = &faulty{clients: make(map[int]chan []byte)}
	plain := httptest.NewServer(h)
	t.Cleanup(plain.Close)
	target = Target{
		Addrs: []string{plain.Listener.Addr().String()},
		Path:  func(i int) (string, []Field) { return "/?i=" + strconv.Itoa(i), nil },
	}
	publish = Load{
		Addr: target.Addrs[0], Size: 60, Publishers: 2, Warmup: 20 * time.Millisecond, Measure: 100 * time.Millisecond,
		Began: func() {}, Ended: func() { h.await(enough) },
		Request: func(b []byte, _ int, payload []byte) []byte {
			return fmt.Appendf(b, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(payload), payload)
		},
	}
	if protocol != "h1" {
		secure := httptest.NewUnstartedServer(h)
		secure.EnableHTTP2 = true
		secure.StartTLS()
		t.Cleanup(secure.Close)
		target.Addrs, target.TLS = []string{secure.Listener.Addr().String()}, true
	}
	if protocol == "h2" {
		target.StreamsPerConn = 3
	}
	return h, target, publish
}

const (
	crowd  = 10
	enough = 30 // messages that a run has at least, however busy the machine is
)

// await waits for so many messages to be published.
func (h *faulty) await(n int) {
	for {
		h.mu.Lock()
		published := h.published
		h.mu.Unlock()
		if published >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func dial(t *testing.T, target Target, publish Load) *Fleet {
	t.Helper()
	f, err := Dial(t.Context(), target, Options{Clients: crowd, Publishers: publish.Publishers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	if err := f.Sync(t.Context(), publish); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFleetCountsExactlyWhatAServerDoes(t *testing.T) {
	for _, protocol := range []string{"h1", "tls", "h2"} {
		for name, test := range map[string]struct {
			fault            func(client, message int, send func())
			lost, outOfOrder int
		}{
			"nothing":     {},
			"one lost":    {func(c, m int, send func()) { unless(c == 3 && m == 10, send) }, 1, 0},
			"many lost":   {func(_, m int, send func()) { unless(m == 10 || m == 11, send) }, 2 * crowd, 0},
			"one doubled": {func(c, m int, send func()) { send(); unless(c != 5 || m != 10, send) }, 0, 1},
		} {
			t.Run(protocol+", "+name, func(t *testing.T) {
				t.Parallel() // most of the time goes into waiting for what is lost
				h, target, publish := over(t, protocol)
				f := dial(t, target, publish)
				h.mu.Lock()
				h.fault = test.fault
				h.mu.Unlock()
				r, err := f.Run(t.Context(), publish)
				if err != nil {
					t.Fatal(err)
				}
				if r.Lost != test.lost || r.OutOfOrder != test.outOfOrder || r.CutOff != 0 {
					t.Errorf("%d lost, %d out of order, %d cut off; want %d, %d, 0", r.Lost, r.OutOfOrder, r.CutOff, test.lost, test.outOfOrder)
				}
				if r.Deliveries == 0 || r.Published == 0 || r.P99 <= 0 || r.P50 > r.P99 {
					t.Errorf("the run came to %+v", r)
				}
			})
		}
	}
}

func unless(not bool, do func()) {
	if !not {
		do()
	}
}

func TestSwappedMessagesAreOutOfOrderAndNotLost(t *testing.T) {
	h, target, publish := over(t, "h1")
	publish.Publishers = 1
	f := dial(t, target, publish)
	var held func()
	h.mu.Lock()
	h.fault = func(c, m int, send func()) {
		if c == 2 && m == 10 {
			held = send
			return
		}
		if send(); c == 2 && m == 11 {
			held()
		}
	}
	h.mu.Unlock()
	if r, err := f.Run(t.Context(), publish); err != nil || r.Lost != 0 || r.OutOfOrder != 1 {
		t.Errorf("%d lost, %d out of order, %v", r.Lost, r.OutOfOrder, err)
	}
}

func TestWhatComesLateBeforeARunDoesNotCount(t *testing.T) {
	h, target, publish := over(t, "h1")
	held := make(map[int]func())
	h.mu.Lock()
	h.fault = func(c, m int, send func()) { // the first message comes just before the second
		if m == 1 {
			held[c] = send
			return
		}
		if late := held[c]; late != nil {
			late()
			delete(held, c)
		}
		send()
	}
	h.mu.Unlock()
	f := dial(t, target, publish)
	if r, err := f.Run(t.Context(), publish); err != nil || r.Lost != 0 || r.OutOfOrder != 0 {
		t.Errorf("%d lost, %d out of order, %v", r.Lost, r.OutOfOrder, err)
	}
}

func TestClientThatIsCutOffIsCounted(t *testing.T) {
	h, target, publish := over(t, "h1")
	f := dial(t, target, publish)
	h.mu.Lock()
	h.cut = h.published + 5
	h.mu.Unlock()
	if r, err := f.Run(t.Context(), publish); err != nil || r.CutOff != 1 || r.Lost == 0 {
		t.Errorf("%d cut off, %d lost, %v", r.CutOff, r.Lost, err)
	}
}

func TestClosedLoopWaitsForTheSlowestClient(t *testing.T) {
	h, target, publish := over(t, "h1")
	publish.Pace = Closed
	f := dial(t, target, publish)
	const delay = 20 * time.Millisecond
	h.mu.Lock()
	h.fault = func(c, _ int, send func()) {
		if c == 3 {
			time.AfterFunc(delay, send)
		} else {
			send()
		}
	}
	h.mu.Unlock()
	r, err := f.Run(t.Context(), publish)
	most := uint64(publish.Publishers) * uint64(r.Elapsed/delay+1)
	if err != nil || r.Lost != 0 || r.Published == 0 || r.Published > most {
		t.Errorf("%d published, %d lost, %v; want at most %d published", r.Published, r.Lost, err, most)
	}
}

func TestTimedLoadKeepsItsPace(t *testing.T) {
	_, target, publish := over(t, "h1")
	publish.Pace, publish.PerSecond, publish.Measure = Timed, 100, 2*time.Second
	f := dial(t, target, publish)
	r, err := f.Run(t.Context(), publish)
	due := int(r.Elapsed.Seconds() * 100)
	if err != nil || r.Elapsed < publish.Measure || int(r.Published) < due/2 || int(r.Published) > due*3/2 {
		t.Errorf("%d messages in %v at 100/s, %v", r.Published, r.Elapsed, err)
	}
}

func TestServerThatRefusesIsAnError(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusServiceUnavailable)
	}))
	defer refusing.Close()
	_, target, publish := over(t, "h1")
	publish.Addr, publish.Ended = refusing.Listener.Addr().String(), func() {}
	if _, err := Nobody(2).Run(t.Context(), publish); err == nil {
		t.Error("publishing goes on as if it were taken")
	}
	target.Addrs = []string{publish.Addr}
	if _, err := Dial(t.Context(), target, Options{Clients: 1, Publishers: 1}); err == nil {
		t.Error("clients are taken for subscribed")
	}
}
