package stream

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout bounds how long sent data may stay unacknowledged (TCP_USER_TIMEOUT, RFC 5482).
func (s *Socket) setUserTimeout(d time.Duration) {
	_ = s.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

// blocked reports whether the socket takes no more bytes now.
func (s *Socket) blocked() bool {
	if s == nil {
		return true
	}
	blocked := true
	_ = s.raw.Control(func(fd uintptr) { blocked = isFull(int(fd)) })
	return blocked
}

func isFull(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 0
}

// acked returns how many bytes the peer has acknowledged in all; of a Unix socket, a number that changes when the peer
// has read some.
func (s *Socket) acked() (bytes uint64) {
	if s == nil {
		return 0
	}
	if _, local := s.conn.(*net.UnixConn); local {
		_ = s.raw.Control(func(fd uintptr) {
			waiting, _ := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
			bytes = uint64(max(0, waiting))
		})
		return bytes
	}
	_ = s.raw.Control(func(fd uintptr) { bytes = ackedBy(int(fd)) })
	return bytes
}

func ackedBy(fd int) uint64 {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return info.Bytes_acked
}

// duplicate returns another descriptor of the socket, which lives on when the connection is closed; -1 if there
// can't be one.
func (s *Socket) duplicate() (fd int) {
	fd = -1
	_ = s.raw.Control(func(original uintptr) {
		if duplicate, err := unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fd = duplicate
		}
	})
	return fd
}
