//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	readBuffer = 256 << 10
	dialers    = 16 // connections being made at a time
)

// dialRaw subscribes over plain HTTP/1.1. One thread per processor reads.
func (f *Fleet) dialRaw(ctx context.Context, target Target) error {
	f.share(min(runtime.NumCPU(), len(f.streams)))
	fds := make([]int, len(f.streams))
	for i := range fds {
		fds[i] = -1
	}
	var readers []*reader
	for _, t := range f.tallies {
		r, err := newReader(f, t)
		if err != nil {
			return err
		}
		readers = append(readers, r)
		f.wg.Go(r.run)
	}
	f.close = func() {
		for _, r := range readers {
			r.stop()
		}
		f.wg.Wait()
		for _, fd := range fds {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for i := range f.streams {
		g.Go(func() (err error) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if fds[i], err = connect(target.addr(i)); err != nil {
				return err
			}
			if _, err := unix.Write(fds[i], h1Request(target, i)); err != nil {
				return fmt.Errorf("sending a request: %w", err)
			}
			return readers[i%len(readers)].add(fds[i], i/len(readers))
		})
	}
	return g.Wait()
}

// h1Request returns the request of client i.
func h1Request(target Target, i int) []byte {
	path, fields := target.Path(i)
	b := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n", path, target.addr(i))
	for _, f := range fields {
		b = fmt.Appendf(b, "%s: %s\r\n", f.Name, f.Value)
	}
	return append(b, "\r\n"...)
}

// addr returns the address that client i connects to.
func (t Target) addr(i int) string { return t.Addrs[i%len(t.Addrs)] }

// unixOption is a socket's.
type unixOption struct{ level, name, value int }

// connect opens a blocking socket without Nagle's delay, and with these options before it connects.
func connect(addr string, options ...unixOption) (fd int, err error) {
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return -1, err
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening a socket: %w", err)
	}
	options = append(options, unixOption{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1})
	for _, o := range options {
		err = errors.Join(err, unix.SetsockoptInt(fd, o.level, o.name, o.value))
	}
	to := &unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connecting to %s: %w", addr, err)
	}
	return fd, nil
}

// reader is a thread that reads the sockets of one tally.
type reader struct {
	fleet *Fleet
	tally *tally
	epoll int
	wake  int // an eventfd that ends the thread
}

func newReader(f *Fleet, t *tally) (*reader, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating an epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("creating an eventfd: %w", err)
	}
	r := &reader{fleet: f, tally: t, epoll: epoll, wake: wake}
	return r, r.add(wake, -1)
}

// add lets the thread read a socket, which is the tally's stream i.
func (r *reader) add(fd, i int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd), Pad: int32(i)}
	if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("adding a socket: %w", err)
	}
	return nil
}

func (r *reader) stop() {
	unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // an eventfd takes it
}

func (r *reader) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer unix.Close(r.wake)
	defer unix.Close(r.epoll)
	events := make([]unix.EpollEvent, 512)
	buf := make([]byte, readBuffer)
	for {
		n, err := unix.EpollWait(r.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for _, event := range events[:max(n, 0)] {
			if event.Pad < 0 {
				return
			}
			r.read(int(event.Fd), r.tally.streams[event.Pad], buf)
		}
	}
}

func (r *reader) read(fd int, s *stream, buf []byte) {
	n, err := rawRead(fd, buf)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil {
		err = s.readHTTP(buf[:n], now())
	}
	if err != nil {
		r.fleet.endLocked(s, err)
		unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, fd, nil) //nolint:errcheck // it is there
	}
}

// rawRead reads a socket that never blocks, without telling Go's scheduler.
func rawRead(fd int, buf []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
