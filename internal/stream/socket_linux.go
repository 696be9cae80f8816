package stream

import (
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout bounds how long sent data may stay unacknowledged (TCP_USER_TIMEOUT, RFC 5482).
func (s *Socket) setUserTimeout(d time.Duration) {
	_ = s.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

// blocked reports whether the socket takes no more bytes now. Where that can't be told, it is so.
func (s *Socket) blocked() bool { return !s.known() || s.full() }

// full reports whether the socket is known to take no more bytes now.
func (s *Socket) full() (full bool) {
	if s.known() {
		_ = s.raw.Control(func(fd uintptr) { full = isFull(int(fd)) })
	}
	return full
}

func isFull(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 0
}

// tellsProgress reports whether acked goes on with each byte that gets through, rather than with each write.
func (s *Socket) tellsProgress() (tells bool) {
	if s.known() {
		_ = s.raw.Control(func(fd uintptr) {
			_, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			tells = err == nil
		})
	}
	return tells
}

// acked returns how many bytes the peer has acknowledged in all; of a Unix socket, a number that changes when the peer
// has read what one write has written.
func (s *Socket) acked() (bytes uint64) {
	if s.known() {
		_ = s.raw.Control(func(fd uintptr) { bytes = ackedBy(int(fd)) })
	}
	return bytes
}

func ackedBy(fd int) uint64 {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		waiting, _ := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return uint64(max(0, waiting))
	}
	return info.Bytes_acked
}

// duplicate returns another descriptor of the socket, which lives on when the connection is closed; -1 if there
// can't be one.
func (s *Socket) duplicate() (fd int) {
	fd = -1
	if !s.known() {
		return fd
	}
	_ = s.raw.Control(func(original uintptr) {
		if duplicate, err := unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fd = duplicate
		}
	})
	return fd
}
