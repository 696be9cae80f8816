package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience is how long tests wait for what ought to happen soon. It is long
// because they load a machine that others may use too.
const patience = 60 * time.Second

// publishers is how many publishers a follower can tell apart.
const publishers = 8

// fleet is many subscribers, each of which sees to it that it gets every message
// once and in order. They are cheap enough for thousands of them to keep up with
// a server on the same machine: one goroutine each, and no parsing but that of
// the lines needed.
type fleet struct {
	followers []*follower
	running   sync.WaitGroup
	ended     atomic.Int64 // followers whose stream is over

	mu     sync.Mutex // guards faults
	faults []string   // the first few
}

// follower is one subscriber. Its fields but got belong to its goroutine until
// done.
type follower struct {
	fleet *fleet
	name  string
	close func()
	ready chan struct{} // closed at the event connected, or the end before it
	done  chan struct{} // closed when the stream has ended
	got   atomic.Int64  // messages that came, each the right one

	line  []byte            // what has come of a line
	event string            // the name of the event that is coming
	next  [publishers]int64 // by publisher, the number of its message to come
	hello string            // the data of the event connected
	retry []int             // every delay told, in milliseconds
	end   error             // how the stream ended; nil is in good order
}

func newFleet(t testing.TB) *fleet {
	f := new(fleet)
	t.Cleanup(f.disband)
	return f
}

// dial adds n subscribers over HTTP/1.1 connections of their own and waits
// until they are connected.
func (f *fleet) dial(t testing.TB, url string, n int) {
	t.Helper()
	target, err := neturl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	buffer := max(8<<10, min(64<<10, 32<<20/n)) // 32 MiB for all of them
	f.add(t, n, "h1", func(x *follower) error {
		conn, err := net.Dial("tcp", target.Host)
		if err != nil {
			return err
		}
		x.close = func() { _ = conn.Close() }
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", target.RequestURI(), target.Host)
		if err != nil {
			return err
		}
		r := bufio.NewReaderSize(conn, buffer)
		if err := readStreamHeader(r); err != nil {
			return err
		}
		f.running.Go(func() { x.follow(func() error { return x.readChunks(r) }) })
		return nil
	})
}

// via adds n subscribers over the connections of an HTTP client and waits until
// they are connected.
func (f *fleet) via(t testing.TB, client *http.Client, url string, n int, name string) {
	t.Helper()
	f.add(t, n, name, func(x *follower) error {
		ctx, cancel := context.WithCancel(context.Background())
		x.close = cancel
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			_ = response.Body.Close()
			return errors.New(response.Status)
		}
		f.running.Go(func() {
			defer response.Body.Close()
			x.follow(func() error { return x.readAll(response.Body) })
		})
		return nil
	})
}

// add connects n followers, some at a time.
func (f *fleet) add(t testing.TB, n int, name string, connect func(*follower) error) {
	t.Helper()
	const atATime = 32
	added := make([]*follower, n)
	errs := make(chan error, n)
	var next atomic.Int64
	var dialers sync.WaitGroup
	for range min(n, atATime) {
		dialers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				x := &follower{
					fleet: f, name: fmt.Sprintf("%s-%d", name, i), close: func() {},
					ready: make(chan struct{}), done: make(chan struct{}),
				}
				added[i] = x
				if err := connect(x); err != nil {
					x.close()
					errs <- fmt.Errorf("connecting %s: %w", x.name, err)
					return
				}
			}
		})
	}
	dialers.Wait()
	select {
	case err := <-errs:
		for _, x := range added {
			if x != nil {
				x.close()
			}
		}
		t.Fatal(err)
	default:
	}
	f.followers = append(f.followers, added...)
	deadline := time.After(patience)
	for _, x := range added {
		select {
		case <-x.ready:
		case <-deadline:
			t.Fatalf("%s is not connected within %v", x.name, patience)
		}
	}
	f.check(t)
}

// disband closes every connection and waits until nothing of the fleet is left.
func (f *fleet) disband() {
	for _, x := range f.followers {
		x.close()
	}
	f.running.Wait()
}

// check fails the test if anything was missing, came twice or out of order, or
// if a stream has ended.
func (f *fleet) check(t testing.TB) {
	t.Helper()
	if n := f.ended.Load(); n > 0 {
		t.Errorf("%d of %d streams have ended", n, len(f.followers))
		for _, x := range f.followers {
			select {
			case <-x.done:
				t.Fatalf("for example %s, after %d messages: %v", x.name, x.got.Load(), x.end)
			default:
			}
		}
	}
	f.checkOrder(t)
}

// checkOrder is check for streams that may have ended.
func (f *fleet) checkOrder(t testing.TB) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.faults) > 0 {
		t.Fatalf("among others: %s", strings.Join(f.faults, "; "))
	}
}

// await waits until every follower has got n messages in all, with none missing
// and no stream ended.
func (f *fleet) await(t testing.TB, n int64) {
	t.Helper()
	begin, deadline := time.Now(), time.Now().Add(patience)
	for _, x := range f.followers {
		for x.got.Load() < n {
			f.check(t)
			if time.Now().After(deadline) {
				t.Fatalf("%s has got %d of %d messages %v after the last was published", x.name, x.got.Load(), n, time.Since(begin))
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	f.check(t)
	for _, x := range f.followers {
		if got := x.got.Load(); got != n {
			t.Fatalf("%s has got %d messages of %d", x.name, got, n)
		}
	}
}

// received returns how many messages all followers have got together.
func (f *fleet) received() (n int64) {
	for _, x := range f.followers {
		n += x.got.Load()
	}
	return n
}

func (f *fleet) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.faults) < 5 {
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

func (x *follower) follow(read func() error) {
	x.end = read()
	select {
	case <-x.ready:
	default:
		close(x.ready)
	}
	x.close()
	x.fleet.ended.Add(1)
	close(x.done)
}

// readStreamHeader reads an answer's head and insists on a chunked 200.
func readStreamHeader(r *bufio.Reader) error {
	var head []byte
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("reading the head after %q: %w", head, err)
		}
		head = append(head, line...)
		if len(line) <= 2 {
			break
		}
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || !bytes.Contains(head, []byte("Transfer-Encoding: chunked\r\n")) {
		return fmt.Errorf("not a stream: %q", head)
	}
	return nil
}

// readChunks takes a chunked body. It returns nil at its last chunk.
func (x *follower) readChunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("between two chunks: %w", err)
		}
		size, err := strconv.ParseUint(string(bytes.TrimSuffix(line, []byte("\r\n"))), 16, 31)
		if err != nil {
			return fmt.Errorf("reading a chunk's size: %w", err)
		}
		last := size == 0
		for left := int(size); left > 0; {
			if _, err := r.Peek(1); err != nil {
				return fmt.Errorf("within a chunk: %w", err)
			}
			part, _ := r.Peek(min(left, r.Buffered()))
			x.take(part)
			left -= len(part)
			_, _ = r.Discard(len(part))
		}
		if _, err := r.Discard(len("\r\n")); err != nil {
			return fmt.Errorf("at the end of a chunk: %w", err)
		}
		if last {
			return nil
		}
	}
}

// readAll takes a body whose framing is somebody else's.
func (x *follower) readAll(body io.Reader) error {
	part := make([]byte, 8<<10)
	for {
		n, err := body.Read(part)
		x.take(part[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// maxLine is how much of a line is kept. What comes behind it is filling.
const maxLine = 256

// take splits what has come into lines.
func (x *follower) take(part []byte) {
	for {
		i := bytes.IndexByte(part, '\n')
		if i < 0 {
			x.line = append(x.line, part[:min(len(part), max(0, maxLine-len(x.line)))]...)
			return
		}
		line := part[:i]
		if len(x.line) > 0 {
			x.line = append(x.line, line[:min(len(line), max(0, maxLine-len(x.line)))]...)
			line, x.line = x.line, x.line[:0]
		}
		x.takeLine(line)
		part = part[i+1:]
	}
}

func (x *follower) takeLine(line []byte) {
	switch {
	case len(line) == 0:
		x.event = ""
	case line[0] == 'd' && x.event == "":
		x.takeNumber(line[len("data: "):])
	case line[0] == 'i': // an ID, which is opaque
	case line[0] == 'd' && x.event == "connected":
		x.hello = string(line[len("data: "):])
		close(x.ready)
	case line[0] == 'e':
		x.event = string(line[len("event: "):])
	case line[0] == 'r':
		ms, err := strconv.Atoi(string(line[len("retry: "):]))
		if err != nil {
			x.fleet.fault("%s got %q", x.name, line)
		}
		x.retry = append(x.retry, ms)
	case line[0] == ':': // a heartbeat
	default:
		x.fleet.fault("%s got the event %q with %q", x.name, x.event, line)
	}
}

// takeNumber takes the data of a message: see [numbered].
func (x *follower) takeNumber(data []byte) {
	var n int64
	for _, c := range data[2:min(len(data), 20)] {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	p := data[0] - '0'
	if n != x.next[p] {
		x.fleet.fault("%s got number %d of publisher %d in place of %d", x.name, n, p, x.next[p])
	}
	x.next[p] = n + 1
	x.got.Add(1)
}
