//go:build linux

// Package limit is the least that a fan-out can be: one thread that, for each message, writes the same bytes to one
// socket after the other. It has no queues, keeps nothing, and waits for whoever does not read. What other servers
// cost is told as a multiple of it.
//
// It speaks as much HTTP as the load client needs: GET with ?topic= is a stream, POST with ?topic= publishes the body.
package limit

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
	answer     = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)

type server struct {
	epoll    int
	listener int
	conns    map[int]*conn
	topics   map[string][]int // the sockets of each
	sent     uint64
	frame    []byte // scratch
	buf      []byte // scratch
}

type conn struct {
	topic string // of a stream; "" for others
	in    []byte // what there is of a request
}

// Serve serves whoever connects to a listener, until an error ends it.
func Serve(l *net.TCPListener) error {
	file, err := l.File()
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // not before: its descriptor is in use
	s := &server{
		listener: int(file.Fd()), conns: make(map[int]*conn), topics: make(map[string][]int), buf: make([]byte, 64<<10),
	}
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("creating an epoll: %w", err)
	}
	if err := unix.SetNonblock(s.listener, true); err != nil {
		return err
	}
	if err := s.watch(s.listener); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting: %w", err)
		}
		for _, event := range events[:max(n, 0)] {
			if fd := int(event.Fd); fd == s.listener {
				s.accept()
			} else {
				s.read(fd)
			}
		}
	}
}

func (s *server) watch(fd int) error {
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (s *server) accept() {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) //nolint:errcheck // it is a TCP socket
		s.conns[fd] = new(conn)
		if s.watch(fd) != nil {
			s.drop(fd)
		}
	}
}

func (s *server) drop(fd int) {
	topic := s.conns[fd].topic
	for i, other := range s.topics[topic] {
		if other == fd {
			last := len(s.topics[topic]) - 1
			s.topics[topic][i] = s.topics[topic][last]
			s.topics[topic] = s.topics[topic][:last]
			break
		}
	}
	delete(s.conns, fd)
	unix.Close(fd)
}

func (s *server) read(fd int) {
	n, err := unix.Read(fd, s.buf)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	c := s.conns[fd]
	if n <= 0 {
		s.drop(fd)
		return
	}
	c.in = append(c.in, s.buf[:n]...)
	size := s.request(fd, c)
	c.in = append(c.in[:0], c.in[size:]...)
}

// request serves the request that begins what a connection sent, and returns its size; 0 while it is not whole.
func (s *server) request(fd int, c *conn) (size int) {
	end := bytes.Index(c.in, []byte("\r\n\r\n"))
	if end < 0 {
		return 0
	}
	end += 4
	head := c.in[:end]
	_, path, _ := bytes.Cut(head[:bytes.IndexByte(head, '\r')], []byte(" "))
	path = path[:max(0, bytes.IndexByte(path, ' '))]
	_, topic, _ := bytes.Cut(path, []byte("?topic="))
	if head[0] != 'P' {
		c.topic = string(topic)
		s.topics[c.topic] = append(s.topics[c.topic], fd)
		write(fd, []byte(streamHead))
		return end
	}
	length := contentLength(head)
	if len(c.in) < end+length {
		return 0
	}
	s.publish(string(topic), c.in[end:end+length])
	write(fd, []byte(answer))
	return end + length
}

func contentLength(head []byte) int {
	_, rest, _ := strings.Cut(string(head), "\r\nContent-Length: ")
	digits, _, _ := strings.Cut(rest, "\r")
	n, _ := strconv.Atoi(digits)
	return n
}

// publish is the loop that all is about.
func (s *server) publish(topic string, data []byte) {
	s.sent++
	event := fmt.Sprintf("id: %016x-%d\ndata: %s\n\n", 1, s.sent, data)
	s.frame = fmt.Appendf(s.frame[:0], "%x\r\n%s\r\n", len(event), event)
	for _, fd := range s.topics[topic] {
		write(fd, s.frame)
	}
}

// write writes all of it, and waits while the socket is full. Errors are left to the next read.
func write(fd int, b []byte) {
	for len(b) > 0 {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch {
		case errno == unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1) //nolint:errcheck // write tells
		case errno != 0 && errno != unix.EINTR:
			return
		case errno == 0:
			b = b[n:]
		}
	}
}
