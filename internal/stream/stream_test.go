package stream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/stream"
)

// site is an HTTP server that streams a hub.
type site struct {
	t      *testing.T
	hub    *hub.Hub
	group  *stream.Group
	server *httptest.Server
	direct bool
	// timeout is write_timeout; a second unless a test sets it.
	timeout time.Duration
	wrap    func(http.ResponseWriter) http.ResponseWriter
	behind  func(net.Conn) net.Conn

	mu   sync.Mutex // guards ends
	ends []error    // why streams ended
}

// patience is how long a test waits for what is to happen at once.
const patience = 10 * time.Second

func serve(t *testing.T, direct bool) *site {
	return serveBehind(t, direct, nil)
}

// serveBehind serves through connections that are wrapped, below TLS.
func serveBehind(t *testing.T, direct bool, wrap func(net.Conn) net.Conn) *site {
	s := &site{t: t, hub: hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 1000}}), direct: direct, timeout: time.Second}
	s.group = &stream.Group{Hub: s.hub, Left: func(_ *hub.Client, cause error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ends = append(s.ends, cause)
	}}
	s.server = httptest.NewUnstartedServer(s)
	s.server.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(stream.KeepConn(ctx, conn), caddyhttp.ServerCtxKey, new(caddyhttp.Server))
	}
	s.behind = wrap
	if wrap != nil {
		s.server.Listener = &wrappingListener{s.server.Listener, wrap}
	}
	s.server.EnableHTTP2 = true
	s.server.StartTLS()
	t.Cleanup(func() {
		s.hub.Drain()
		time.AfterFunc(time.Second, s.hub.Abort)
		s.hub.WaitEmpty(patience)
		s.group.Wait(patience)
		s.server.Close()
		if n, _ := s.hub.Size(); n != 0 {
			t.Errorf("%d clients are left", n)
		}
	})
	return s
}

// plain begins to listen without TLS, too.
func (s *site) plain() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	if s.behind != nil {
		listener = &wrappingListener{listener, s.behind}
	}
	server := &http.Server{Handler: s, ConnContext: s.server.Config.ConnContext}
	go server.Serve(listener)
	s.t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.wrap != nil {
		w = s.wrap(w)
	}
	sub := hub.Subscription{
		Subscriber: hub.Subscriber{ClientID: hub.NewEpoch(), Topics: []string{"a"}, ClientOptions: &hub.ClientOptions{
			Queue: 256, QueueBytes: 1 << 20, SlowClient: hub.SlowClient(r.FormValue("slow")), WriteTimeout: s.timeout,
		}},
		LastEventID: r.FormValue("id"),
	}
	one := s.group.New(w, r, s.timeout)
	c, welcome, err := s.hub.Join(sub, one)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if s.direct {
		one.AllowDirect()
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	if clean, err := one.Serve(c, []byte("id: "+welcome.ID+"\nevent: connected\ndata: "+string(welcome.Resume)+"\n\n")); err != nil || !clean {
		panic(http.ErrAbortHandler)
	}
}

func (s *site) publish(text string) {
	p := s.hub.Position()
	p.Position.Major++
	m := &hub.Message{To: hub.Topics("a"), Data: []byte(text), Position: p.Position}
	s.hub.Wait(s.t.Context(), s.hub.Deliver(m))
}

// eventually waits for something that is to come true soon.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func (s *site) awaitClients(n int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprint(n, " clients"), func() bool { got, _ := s.hub.Size(); return got == n })
}

func (s *site) awaitEnd(n int, cause error) {
	s.t.Helper()
	eventually(s.t, fmt.Sprint("end ", n), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.ends) >= n
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.ends[n-1]; !errors.Is(got, cause) {
		s.t.Errorf("the stream ended for %v; want %v", got, cause)
	}
}

// listener reads a stream.
type listener struct {
	t    *testing.T
	body *bufio.Scanner
	stop func()
}

func (s *site) listen(client *http.Client, url string) *listener {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = response.Body.Close() })
	body := bufio.NewScanner(response.Body)
	body.Buffer(nil, 16<<20)
	l := &listener{s.t, body, cancel}
	l.want("none")
	return l
}

// next returns the next data; "" at the end.
func (l *listener) next() string {
	for l.body.Scan() {
		if data, ok := strings.CutPrefix(l.body.Text(), "data: "); ok {
			return data
		}
	}
	return ""
}

func (l *listener) want(texts ...string) {
	l.t.Helper()
	for _, text := range texts {
		if got := l.next(); got != text {
			l.t.Fatalf("got %.80q; want %.80q", got, text)
		}
	}
}

// each runs a test over every kind of stream.
func each(t *testing.T, test func(t *testing.T, s *site, client *http.Client, url string)) {
	t.Run("direct", func(t *testing.T) {
		s := serve(t, true)
		test(t, s, new(http.Client), "http://"+s.plain())
	})
	t.Run("handler", func(t *testing.T) {
		s := serve(t, false)
		test(t, s, new(http.Client), "http://"+s.plain())
	})
	t.Run("h2", func(t *testing.T) {
		s := serve(t, true)
		test(t, s, s.server.Client(), s.server.URL)
	})
}

func TestMessagesComeInOrderSmallAndLarge(t *testing.T) {
	each(t, func(_ *testing.T, s *site, client *http.Client, url string) {
		l := s.listen(client, url)
		var want []string
		for i := range 2000 {
			text := strconv.Itoa(i)
			if i%100 == 50 {
				text += strings.Repeat("x", 20_000*(i/100))
			}
			want = append(want, text)
		}
		go func() {
			for _, text := range want {
				s.publish(text)
			}
		}()
		l.want(want...)
		l.stop()
		s.awaitEnd(1, hub.ErrGone)
	})
}

func TestDrainEndsAStreamInOrder(t *testing.T) {
	each(t, func(t *testing.T, s *site, client *http.Client, url string) {
		l := s.listen(client, url)
		s.publish("acknowledged")
		s.hub.Drain()
		l.want("acknowledged", "")
		if err := l.body.Err(); err != nil {
			t.Errorf("the stream did not end in good order: %v", err)
		}
		s.awaitEnd(1, hub.ErrDraining)
	})
}

// stalled opens a stream that nobody reads, over plain HTTP/1.1.
func stalled(t *testing.T, address, query string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprintf(conn, "GET /?%s HTTP/1.1\r\nHost: x\r\n\r\n", query)
	return conn
}

func TestWhoDoesNotReadHoldsUpNobodyAndEndsByWriteTimeout(t *testing.T) {
	t.Parallel()
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct ", direct), func(t *testing.T) {
			t.Parallel()
			s := serve(t, direct)
			s.timeout = 4 * time.Second
			address := s.plain()
			good := s.listen(new(http.Client), "http://"+address)
			stalled(t, address, "")
			s.awaitClients(2)
			long := strings.Repeat("x", 50_000)
			for i := range 400 { // 20 MB: more than all buffers on the way hold
				began := time.Now()
				s.publish(strconv.Itoa(i) + long)
				good.want(strconv.Itoa(i) + long)
				if took := time.Since(began); took > s.timeout*3/4 {
					t.Fatalf("a publisher waited %v", took)
				}
			}
			s.awaitEnd(1, hub.ErrStuck)
			s.awaitClients(1)
		})
	}
}

func TestWhoReadsOnGetsAllThatIsKept(t *testing.T) {
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct ", direct), func(t *testing.T) {
			s := serve(t, direct)
			address := s.plain()
			conn := stalled(t, address, "")
			s.awaitClients(1)
			long := strings.Repeat("x", 20_000)
			const n = 900 // fewer than are kept
			for i := range n {
				s.publish(strconv.Itoa(i) + long)
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close() // not the body, which would wait for its end
			body := bufio.NewScanner(response.Body)
			body.Buffer(nil, 1<<20)
			l := &listener{t: t, body: body}
			l.want("none")
			for i := range n {
				l.want(strconv.Itoa(i) + long)
			}
		})
	}
}

// bomb is a response whose wrapper panics.
type bomb struct {
	http.ResponseWriter
	writes int
}

func (b *bomb) Write(p []byte) (int, error) {
	if b.writes++; b.writes == 3 {
		panic(http.ErrAbortHandler)
	}
	return b.ResponseWriter.Write(p)
}

func (b *bomb) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func TestAWrapperThatPanicsEndsItsClientOnly(t *testing.T) {
	s := serve(t, true)
	address := s.plain()
	good := s.listen(new(http.Client), "http://"+address)
	s.wrap = func(w http.ResponseWriter) http.ResponseWriter { return &bomb{ResponseWriter: w} }
	bad := s.listen(new(http.Client), "http://"+address)
	for i := range 100 {
		s.publish(strconv.Itoa(i))
		good.want(strconv.Itoa(i))
	}
	s.awaitEnd(1, hub.ErrAborted)
	s.awaitClients(1)
	bad.stop()
}

func TestWhoLeavesIsNoticedThoughItSentMore(t *testing.T) {
	for _, direct := range []bool{true, false} {
		s := serve(t, direct)
		conn := stalled(t, s.plain(), "")
		s.awaitClients(1)
		fmt.Fprint(conn, "more")
		_ = conn.Close()
		s.awaitEnd(1, hub.ErrGone)
		s.awaitClients(0)
	}
}
