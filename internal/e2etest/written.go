package e2etest

import (
	"bytes"
	"sync"
)

// Written is what a program or a command writes; it can be read meanwhile. The zero Written is empty.
type Written struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write implements io.Writer.
func (w *Written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

// String returns what was written so far.
func (w *Written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}
