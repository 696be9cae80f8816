package e2etest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Do sends one command over a connection of its own and returns the answer:
// "" for nil, and the parts of an array one per line. An error answer is an
// error.
func (r *Redis) Do(timeout time.Duration, command ...string) (string, error) {
	return do(r.Addr(), timeout, command...)
}

func do(addr string, timeout time.Duration, command ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(command))
	for _, word := range command {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return "", err
	}
	return readReply(bufio.NewReader(conn))
}

// readReply knows RESP version 2.
func readReply(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimSuffix(line[1:], "\r\n")
	switch kind {
	case '+', ':':
		return rest, nil
	case '-':
		return "", errors.New(rest)
	}
	length, err := strconv.Atoi(rest)
	switch {
	case err != nil:
		return "", err
	case length < 0:
		return "", nil
	case kind == '$':
		text := make([]byte, length+len("\r\n"))
		_, err := io.ReadFull(in, text)
		return string(text[:length]), err
	case kind != '*':
		return "", fmt.Errorf("not RESP: %q", line)
	}
	parts := make([]string, length)
	for i := range parts {
		if parts[i], err = readReply(in); err != nil {
			return "", err
		}
	}
	return strings.Join(parts, "\n"), nil
}
