package soak

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// values are the numbers that were published under keys: of each key the newest has to arrive, and never an older one
// after a newer.
type values struct {
	mu     sync.Mutex // guards the rest
	newest map[string]int
}

// next returns the text of the next value of a key.
func (v *values) next(key string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.newest[key]++
	return fmt.Sprintf("%s/%d", key, v.newest[key])
}

// last returns the text of the newest value of a key.
func (v *values) last(key string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return fmt.Sprintf("%s/%d", key, v.newest[key])
}

// judge returns what is wrong with the values that a reader got. After a gap it gets what is kept, which may be older
// where the log lost its end, is another one, or is followed by an instance that lags.
func (v *values) judge(events []eventstream.Event) (findings []string) {
	seen := make(map[string]int)
	for _, e := range events {
		if e.Name == "gap" {
			clear(seen)
			continue
		}
		key, text, _ := strings.Cut(string(e.Data), "/")
		n, err := strconv.Atoi(text)
		switch {
		case err != nil:
			findings = append(findings, fmt.Sprintf("%q came, which is no value", e.Data))
		case n < seen[key]:
			findings = append(findings, fmt.Sprintf("%q came after the newer value %d", e.Data, seen[key]))
		}
		seen[key] = n
	}
	for _, key := range keys {
		if last := v.last(key); fmt.Sprintf("%s/%d", key, seen[key]) != last {
			findings = append(findings, fmt.Sprintf("the value %d is its last of %s, and %q is missing", seen[key], key, last))
		}
	}
	return findings
}
