package e2etest

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"
)

// Gzip returns a text as a body with Content-Encoding: gzip.
func Gzip(t testing.TB, text string) string {
	t.Helper()
	var coded bytes.Buffer
	w := gzip.NewWriter(&coded)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return coded.String()
}
