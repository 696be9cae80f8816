//go:build linux

package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

const linesPerChunk = 64

// PublishLines publishes messages as the lines of one NDJSON body for a while, and returns how many there were when
// the server has answered for all of them. A server that is slower than we are is waited for by the sockets.
func PublishLines(ctx context.Context, addr, path string, size int, during time.Duration) (published int, elapsed time.Duration, err error) {
	p, err := DialPublisher(addr)
	if err != nil {
		return 0, 0, err
	}
	defer p.Close()
	began := time.Now()
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n", path, addr)
	if err := p.send([]byte(head)); err != nil {
		return 0, 0, err
	}
	var lines, chunk []byte
	for ctx.Err() == nil && time.Since(began) < during {
		lines = lines[:0]
		for range linesPerChunk {
			lines = appendPayload(lines, header{number: uint32(published), due: now()}, size)
			lines = append(lines, '\n')
			published++
		}
		chunk = fmt.Appendf(chunk[:0], "%x\r\n%s\r\n", len(lines), lines)
		if err := p.send(chunk); err != nil {
			return 0, 0, err
		}
	}
	status, err := p.Do([]byte("0\r\n\r\n"))
	if err != nil {
		return 0, 0, err
	}
	var answer struct{ Published int }
	body := p.buf[bytes.Index(p.buf, []byte("\r\n\r\n")):p.end]
	if err := json.Unmarshal(body, &answer); err != nil || status != 200 || answer.Published != published {
		return 0, 0, fmt.Errorf("%d messages were answered %d: %q", published, status, p.buf[:p.end])
	}
	return published, time.Since(began), nil
}
