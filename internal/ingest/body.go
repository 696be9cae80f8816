package ingest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
)

// Gunzip decodes a body as it arrives. It holds no more than gzip's window, however much the body stands
// for. What is no gzip, or not all of it, is an [Error]; errors of the body itself are passed on.
func Gunzip(body io.Reader) io.Reader { return &gunzip{body: faithful{Reader: body}} }

type gunzip struct {
	body    faithful
	decoder *gzip.Reader // nil before the first read: it waits for the first bytes
}

// Read implements io.Reader.
func (g *gunzip) Read(p []byte) (n int, err error) {
	if g.decoder == nil {
		g.decoder, err = gzip.NewReader(&g.body)
		if err != nil {
			g.decoder = nil
		}
	}
	if err == nil {
		n, err = g.decoder.Read(p)
	}
	switch {
	case err == nil, err == io.EOF: //nolint:errorlint // readers return it bare
		return n, err
	case g.body.err != nil:
		return n, g.body.err
	}
	return n, &Error{err: fmt.Errorf("the body is called gzip, but can't be decoded: %w", err)}
}

// faithful remembers the error of a reader, other than the proper end.
type faithful struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (f *faithful) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

const byteOrderMark = "\xEF\xBB\xBF"

// MarkBytes is the length of a byte order mark, by which a text may be shorter than its body.
const MarkBytes = len(byteOrderMark)

// Text is a body without the byte order mark that may stand at its start.
type Text struct {
	body  io.Reader
	begun bool   // whether it is known if there is a mark
	head  []byte // read, and not yet passed on
	err   error  // of the read that ended the head; nil for none
	empty bool   // whether nothing has been passed on
}

// NewText returns the text of a body.
func NewText(body io.Reader) *Text { return &Text{body: body, empty: true} }

// Empty reports whether nothing has been read so far.
func (t *Text) Empty() bool { return t.empty }

// Read implements io.Reader. At the start it waits for no more than it takes to tell whether there is a mark.
func (t *Text) Read(p []byte) (n int, err error) {
	if !t.begun && len(p) < MarkBytes { // there is no room to look for the mark
		t.head = make([]byte, MarkBytes)
		n, t.err = t.begin(t.head)
		t.head = t.head[:n]
	}
	switch {
	case len(t.head) > 0:
		n = copy(p, t.head)
		t.head = t.head[n:]
	case t.err != nil:
		err = t.err
	case !t.begun:
		n, err = t.begin(p)
	default:
		n, err = t.body.Read(p)
	}
	t.empty = t.empty && n == 0
	return n, err
}

// begin reads until it is known whether the body begins with a mark, into p, which has room for one.
func (t *Text) begin(p []byte) (n int, err error) {
	t.begun = true
	for more := 0; err == nil && n < MarkBytes && strings.HasPrefix(byteOrderMark, string(p[:n])); n += more {
		more, err = t.body.Read(p[n:])
	}
	if bytes.HasPrefix(p[:n], []byte(byteOrderMark)) {
		n = copy(p, p[MarkBytes:n])
	}
	return n, err
}
