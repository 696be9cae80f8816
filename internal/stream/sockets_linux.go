package stream

import (
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caddy-sse/caddy-sse/hub"
)

// sockets are those that a group's streams are told news of: one goroutine waits for all of them. It starts with the
// first and ends with the last.
type sockets struct {
	running sync.WaitGroup

	mu      sync.Mutex         // guards all below
	streams map[uint64]watched // by their clients' serial numbers
	writers []*writer          // by shard; each is used by that shard alone
	epoll   *os.File           // nil while there are no streams
}

// watched is a stream that is told what its socket reports. It is not to wait for anything then.
type watched interface{ reported(hub.News) }

// add enters a client's stream, which may then be watched.
func (w *sockets) add(c *hub.Client, s watched) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epoll == nil {
		if err := w.startLocked(); err != nil {
			return err
		}
	}
	for len(w.writers) <= c.Shard() {
		w.writers = append(w.writers, new(writer))
	}
	w.streams[c.Serial()] = s
	return nil
}

// remove forgets a client's stream, which has ended.
func (w *sockets) remove(c *hub.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.streams, c.Serial()); len(w.streams) == 0 && w.epoll != nil {
		_ = w.epoll.Close()
		w.epoll = nil
	}
}

// Wait returns when the last stream has ended that had left its request, or after that long.
func (w *sockets) Wait(atMost time.Duration) {
	ended := make(chan struct{})
	go func() {
		w.running.Wait()
		close(ended)
	}()
	timeout := time.NewTimer(atMost)
	defer timeout.Stop()
	select {
	case <-ended:
	case <-timeout.C:
	}
}

func (w *sockets) startLocked() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	epoll := os.NewFile(uintptr(fd), "epoll") // which Go's own poller waits for
	conn, err := epoll.SyscallConn()
	if err != nil {
		_ = epoll.Close()
		return err
	}
	w.epoll = epoll
	w.streams = make(map[uint64]watched)
	w.running.Go(func() { w.listen(conn) })
	return nil
}

// watch has a client's stream told when its peer hangs up, and of what else is asked for. The client's stream has been
// added, and not removed; so for unwatch.
func (w *sockets) watch(c *hub.Client, socket int, more uint32) error {
	return w.control(unix.EPOLL_CTL_ADD, socket, &unix.EpollEvent{
		Events: unix.EPOLLRDHUP | unix.EPOLLET | more,
		Fd:     int32(c.Serial()), Pad: int32(c.Serial() >> 32), // data of ours
	})
}

// unwatch ends that for a socket that stays open.
func (w *sockets) unwatch(socket int) { _ = w.control(unix.EPOLL_CTL_DEL, socket, nil) }

func (w *sockets) control(op, socket int, event *unix.EpollEvent) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	conn, err := w.epoll.SyscallConn()
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
func (w *sockets) listen(conn syscall.RawConn) {
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

func (w *sockets) report(events []unix.EpollEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, event := range events {
		s := w.streams[uint64(uint32(event.Pad))<<32|uint64(uint32(event.Fd))]
		switch {
		case s == nil: // it has ended meanwhile
		case event.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0:
			s.reported(hungUp)
		default:
			s.reported(writable)
		}
	}
}

// writer gathers what one shard sends. Clients that are sent the same share the work.
type writer struct {
	gathered []*hub.Frame // whose chunks stand in buffer
	buffer   []byte
}

func (w *sockets) writer(c *hub.Client) *writer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writers[c.Shard()]
}

const (
	// maxGathered is up to how many bytes small chunks are copied together, to be sent by one call.
	maxGathered = 64 << 10
	// minAlone is from how many bytes on a chunk is sent as it is.
	minAlone = 16 << 10
)

// write sends the chunks of frames until the socket takes no more. It returns how many it has sent, wholly or in part,
// and of the last one how many bytes if it was in part; else 0. An error is the end of the connection.
func (w *writer) write(fd int, frames []*hub.Frame) (taken, part int, err error) {
	for taken < len(frames) {
		piece, n := w.gather(frames[taken:])
		sent, err := send(fd, piece)
		if err == unix.EAGAIN {
			return taken, 0, nil
		}
		if err != nil {
			return taken, 0, err
		}
		if sent == len(piece) {
			taken += n
			continue
		}
		for sent >= len(frames[taken].Chunk()) {
			sent -= len(frames[taken].Chunk())
			taken++
		}
		if sent > 0 {
			taken++
		}
		return taken, sent, nil
	}
	return taken, 0, nil
}

// gather returns the bytes of as many frames as are to be sent at once, and how many those are.
func (w *writer) gather(frames []*hub.Frame) (piece []byte, n int) {
	size := 0
	for n < len(frames) && len(frames[n].Chunk()) < minAlone && size+len(frames[n].Chunk()) <= maxGathered {
		size += len(frames[n].Chunk())
		n++
	}
	if n <= 1 {
		return bytesOf(frames[0].Chunk()), 1
	}
	if slices.Equal(w.gathered, frames[:n]) {
		return w.buffer, n
	}
	w.gathered = append(w.gathered[:0], frames[:n]...)
	w.buffer = w.buffer[:0]
	for _, f := range frames[:n] {
		w.buffer = append(w.buffer, f.Chunk()...)
	}
	return w.buffer, n
}

func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

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
