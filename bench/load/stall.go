//go:build linux

package load

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Stalled are clients that subscribed and then read nothing.
type Stalled struct{ fds []int }

// Stall subscribes n of them, with a small receive buffer, over segments of the size that Ethernet has: loopback's
// own are so large that the kernel would take megabytes for each before a server noticed anything.
func Stall(target Target, n int) (s *Stalled, err error) {
	s = new(Stalled)
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for i := range n {
		fd, err := connect(target.addr(i), unixOption{unix.SOL_SOCKET, unix.SO_RCVBUF, 4096},
			unixOption{unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1460})
		if err != nil {
			return s, err
		}
		s.fds = append(s.fds, fd)
		if _, err := unix.Write(fd, h1Request(target, i)); err != nil {
			return s, fmt.Errorf("sending a request: %w", err)
		}
		if n, err := unix.Read(fd, make([]byte, 64)); err != nil || n == 0 {
			return s, errors.Join(errors.New("a client that was to stall got no answer"), err)
		}
	}
	return s, nil
}

// Close ends them.
func (s *Stalled) Close() {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
}
