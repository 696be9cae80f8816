//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Publisher is a connection that requests go out on, one after the other.
type Publisher struct {
	fd  int
	buf []byte // what has been read
	end int
}

// DialPublisher connects one.
func DialPublisher(addr string) (*Publisher, error) {
	fd, err := connect(addr)
	if err != nil {
		return nil, err
	}
	// A server that answers nothing for so long has failed.
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Publisher{fd: fd, buf: make([]byte, 16<<10)}, nil
}

// Close ends the connection.
func (p *Publisher) Close() { unix.Close(p.fd) }

// Do sends a whole request and returns the status of the answer. Any error means that the connection is of no more use.
func (p *Publisher) Do(request []byte) (status int, err error) {
	if err := p.send(request); err != nil {
		return 0, err
	}
	return p.answer()
}

func (p *Publisher) send(request []byte) error {
	for len(request) > 0 {
		n, err := unix.Write(p.fd, request)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
		request = request[n:]
	}
	return nil
}

// answer reads an answer to its end.
func (p *Publisher) answer() (status int, err error) {
	p.end = 0
	for {
		n, err := unix.Read(p.fd, p.buf[p.end:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("waiting for a publish to be answered: %w", err)
		case n == 0:
			return 0, fmt.Errorf("waiting for a publish to be answered: %w", io.ErrUnexpectedEOF)
		}
		p.end += n
		status, whole, err := parseAnswer(p.buf[:p.end])
		if whole || err != nil {
			return status, err
		}
		if p.end == len(p.buf) {
			p.buf = append(p.buf, make([]byte, len(p.buf))...)
		}
	}
}

// parseAnswer reports whether b is a whole answer.
func parseAnswer(b []byte) (status int, whole bool, err error) {
	headBytes, body, found := bytes.Cut(b, []byte("\r\n\r\n"))
	if !found {
		return 0, false, nil
	}
	head := strings.ToLower(string(headBytes))
	if len(head) < len("http/1.1 200") {
		return 0, false, fmt.Errorf("the answer began %q", head)
	}
	if status, err = strconv.Atoi(head[9:12]); err != nil {
		return 0, false, fmt.Errorf("the answer began %q", head[:12])
	}
	if status == 204 || status == 304 {
		return status, true, nil
	}
	if _, rest, found := strings.Cut(head, "\r\ncontent-length:"); found {
		digits, _, _ := strings.Cut(rest, "\r")
		length, err := strconv.Atoi(strings.TrimSpace(digits))
		return status, len(body) >= length, err
	}
	return status, bytes.HasSuffix(body, []byte("0\r\n\r\n")), nil
}
