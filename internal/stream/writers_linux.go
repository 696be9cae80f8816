package stream

import (
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/caddy-sse/caddy-sse/hub"
	"golang.org/x/sys/unix"
)

// writers write all direct streams of a hub: a few goroutines that give turns to those that have something
// to do, and one that waits for their sockets, and for handler streams' to hang up. They start with the first stream,
// and end with the last once the hub is closed.
type writers struct {
	running sync.WaitGroup // the goroutines

	mu      sync.Mutex         // guards all below
	streams map[uint64]watched // by their clients' serial numbers
	each    []*writer
	sockets *os.File // an epoll instance; nil until the first stream
	retired bool
}

// watched is a stream that is told what its socket reports. It is not to wait for anything then.
type watched interface{ post(news uint32) }

// add enters a client's stream, which may then be watched. It returns the writer that is assigned to it, nil if there
// is none.
func (w *writers) add(c *hub.Client, s watched) *writer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.retired || w.sockets == nil && w.startLocked() != nil {
		return nil
	}
	w.streams[c.Serial()] = s
	return w.each[c.Serial()%uint64(len(w.each))]
}

// remove forgets a client's stream, which has ended.
func (w *writers) remove(c *hub.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.streams, c.Serial())
	w.stopIfUnusedLocked()
}

// retire says that no more streams will come.
func (w *writers) retire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retired = true
	w.stopIfUnusedLocked()
}

// wait returns when the last stream has ended, or after that long.
func (w *writers) wait(atMost time.Duration) {
	ended := make(chan struct{})
	go func() {
		w.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(atMost):
	}
}

func (w *writers) startLocked() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	sockets := os.NewFile(uintptr(fd), "epoll") // which Go's own poller waits for
	conn, err := sockets.SyscallConn()
	if err != nil {
		_ = sockets.Close()
		return err
	}
	w.sockets = sockets
	w.streams = make(map[uint64]watched)
	w.running.Go(func() { w.listen(conn) })
	for range max(1, runtime.GOMAXPROCS(0)-1) { // publishers have work to do, too
		one := &writer{wake: make(chan struct{}, 1), buffer: make([]byte, 0, maxGathered)}
		w.each = append(w.each, one)
		w.running.Go(one.run)
	}
	return nil
}

func (w *writers) stopIfUnusedLocked() {
	if !w.retired || len(w.streams) > 0 || w.sockets == nil {
		return
	}
	_ = w.sockets.Close()
	w.sockets = nil
	for _, one := range w.each {
		one.stop()
	}
}

// watch has a client's stream told when its peer hangs up, and of what else is asked for. The client's stream has been
// added, and not removed; so for unwatch.
func (w *writers) watch(c *hub.Client, socket int, more uint32) error {
	return w.control(unix.EPOLL_CTL_ADD, socket, &unix.EpollEvent{
		Events: unix.EPOLLRDHUP | unix.EPOLLET | more,
		Fd:     int32(c.Serial()), Pad: int32(c.Serial() >> 32), // data of ours
	})
}

// unwatch ends that for a socket that stays open.
func (w *writers) unwatch(socket int) { _ = w.control(unix.EPOLL_CTL_DEL, socket, nil) }

func (w *writers) control(op, socket int, event *unix.EpollEvent) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	conn, err := w.sockets.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	err = conn.Control(func(epoll uintptr) { done = unix.EpollCtl(int(epoll), op, socket, event) })
	if err != nil {
		return err
	}
	return done
}

// listen passes on what sockets report, until there are no more.
func (w *writers) listen(conn syscall.RawConn) {
	events := make([]unix.EpollEvent, 256)
	for {
		n := 0
		err := conn.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return // closed
		}
		w.report(events[:n])
	}
}

func (w *writers) report(events []unix.EpollEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, event := range events {
		s := w.streams[uint64(uint32(event.Pad))<<32|uint64(uint32(event.Fd))]
		switch {
		case s == nil: // it has ended meanwhile
		case event.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0:
			s.post(hungUp)
		default:
			s.post(writable)
		}
	}
}

// writer is one goroutine that writes to sockets.
type writer struct {
	wake chan struct{}

	mu      sync.Mutex // guards all below
	line    []*directStream
	idle    bool // it waits for wake
	stopped bool

	// All below belong to the goroutine.
	batch    []*hub.Message // what a stream has taken
	gathered []*hub.Message // whose chunks stand in buffer
	buffer   []byte
}

// enqueue puts a stream in line for a turn, unless it stands there already.
func (w *writer) enqueue(s *directStream) {
	if !s.queued.CompareAndSwap(false, true) {
		return
	}
	w.mu.Lock()
	w.line = append(w.line, s)
	wake := w.idle
	w.idle = false
	w.mu.Unlock()
	if wake {
		w.wake <- struct{}{}
	}
}

func (w *writer) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.idle {
		w.idle = false
		w.wake <- struct{}{}
	}
}

// run gives turns. A stream that has more to write stands in line again, behind the others: meanwhile messages
// gather, and go out in one write.
func (w *writer) run() {
	var turns, again []*directStream
	for {
		var stopped bool
		if turns, stopped = w.next(turns, again); stopped {
			return
		}
		again = again[:0]
		for i, s := range turns {
			s.queued.Store(false)
			if s.turn(w) && s.queued.CompareAndSwap(false, true) {
				again = append(again, s)
			}
			turns[i] = nil
			clear(w.batch)
		}
	}
}

// next waits until streams stand in line, besides those that have another turn, and returns them all. It reports
// whether the writer has stopped.
func (w *writer) next(done, again []*directStream) (turns []*directStream, stopped bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.line) == 0 && len(again) == 0 {
		if w.stopped {
			return nil, true
		}
		w.idle = true
		w.mu.Unlock()
		w.forget()
		<-w.wake
		w.mu.Lock()
	}
	turns = append(w.line, again...)
	w.line = done[:0]
	return turns, false
}

// forget lets go of messages that nobody may need any more.
func (w *writer) forget() {
	clear(w.gathered)
	w.gathered = w.gathered[:0]
}

const (
	// maxGathered is up to how many bytes small chunks are copied together, to be sent by one call.
	maxGathered = 64 << 10
	// minAlone is from how many bytes on a chunk is sent as it is.
	minAlone = 16 << 10
)

// write sends the chunks of messages, from skip bytes into the first on, until the socket takes no more. It
// returns what is left. An error is the end of the connection.
func (w *writer) write(fd int, messages []*hub.Message, skip int) (rest []*hub.Message, skipped int, err error) {
	for len(messages) > 0 {
		piece, n := w.gather(messages)
		sent, err := send(fd, piece[skip:])
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		if skip += sent; skip == len(piece) {
			messages, skip = messages[n:], 0
			continue
		}
		for skip >= len(messages[0].Chunk()) {
			skip -= len(messages[0].Chunk())
			messages = messages[1:]
		}
	}
	return messages, skip, nil
}

// gather returns the bytes of as many messages as are to be sent at once, and how many those are. Clients that
// are sent the same share the work.
func (w *writer) gather(messages []*hub.Message) (piece []byte, n int) {
	size := 0
	for n < len(messages) && len(messages[n].Chunk()) < minAlone && size+len(messages[n].Chunk()) <= maxGathered {
		size += len(messages[n].Chunk())
		n++
	}
	if n <= 1 {
		return messages[0].Chunk(), 1
	}
	if slices.Equal(w.gathered, messages[:n]) {
		return w.buffer, n
	}
	w.gathered = append(w.gathered[:0], messages[:n]...)
	w.buffer = w.buffer[:0]
	for _, m := range messages[:n] {
		w.buffer = append(w.buffer, m.Chunk()...)
	}
	return w.buffer, n
}

// send writes to a socket without waiting, and without a signal if its peer is gone. As it waits for nothing, unless
// the machine is out of memory, Go's scheduler need not know of the call, which costs a quarter less then.
func send(fd int, p []byte) (n int, err error) {
	for {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(sent), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
