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

// gunzipped is a body that is read as what it was before it was compressed.
type gunzipped struct {
	body io.ReadCloser
	text *gzip.Reader // nil at first: to make it is to read
}

func (g *gunzipped) Read(p []byte) (n int, err error) {
	if g.text == nil {
		if g.text, err = gzip.NewReader(g.body); err != nil {
			return 0, err
		}
		g.text.Multistream(false)
	}
	return g.text.Read(p)
}

func (g *gunzipped) Close() error { return g.body.Close() }
