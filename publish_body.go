package sse

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// openBody makes text of the body: decoded, and without a byte order mark.
func (p *post) openBody() *problem.Problem {
	var body io.Reader = &p.body
	switch coding := strings.Join(p.request.Header.Values("Content-Encoding"), ", "); strings.ToLower(coding) {
	case "", "identity":
	case "gzip", "x-gzip": // two names of one (RFC 9110, section 8.4.1.3)
		p.coded, body = true, ingest.Gunzip(&p.body)
	default:
		refusal := problem.New(http.StatusUnsupportedMediaType,
			"a body with Content-Encoding %q can't be decoded here; send it as it is, or with gzip", coding)
		refusal.AcceptEncoding = "gzip"
		return refusal
	}
	p.text = ingest.NewText(body)
	return nil
}

// mediaType returns the media type of the body, without parameters; empty for none. Parameters may be wrong,
// or there twice: none of them means anything here.
func mediaType(r *http.Request) string {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// maxArray bounds a whole body in form B, in messages of the largest size.
const maxArray = 16

// readBody reads a whole body.
func (p *post) readBody() ([]byte, *problem.Problem) {
	limit := int64(p.config.MaxSize)
	if p.to == nil {
		limit *= maxArray
	}
	if !p.coded && p.request.ContentLength > limit+int64(ingest.MarkBytes) {
		return nil, bodyTooLarge(limit)
	}
	body, err := p.readUpTo(limit + 1)
	switch {
	case err != nil:
		return nil, p.unreadable(err)
	case int64(len(body)) > limit:
		return nil, bodyTooLarge(limit)
	}
	return body, nil
}

// firstRead is how much room a body is given before any of it has come, whatever it says of its length: that is said
// quickly.
const firstRead = 4 << 10

// readUpTo reads a body to its end, or so many bytes of it.
func (p *post) readUpTo(most int64) (body []byte, err error) {
	size := p.request.ContentLength + 1 // the last one is for its end
	if size <= 0 || size > firstRead {
		size = firstRead
	}
	body = make([]byte, 0, size)
	for err == nil && int64(len(body)) < most {
		if len(body) == cap(body) {
			body = slices.Grow(body, 1)
		}
		var n int
		n, err = p.text.Read(body[len(body):min(int64(cap(body)), most)])
		body = body[:len(body)+n]
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return body, err
}

func bodyTooLarge(limit int64) *problem.Problem {
	return problem.New(http.StatusRequestEntityTooLarge,
		"the body has more than %d bytes; send less at once", limit)
}

// decode returns the messages of a whole body. A refusal says which Content-Type it should have had.
func (p *post) decode(body []byte) (drafts []ingest.Draft, isArray bool, refusal *problem.Problem) {
	if p.to != nil {
		return []ingest.Draft{{Message: p.formA(body)}}, false, nil
	}
	text := bytes.TrimLeft(body, " \t\r\n")
	looksJSON := len(text) > 0 && (text[0] == '{' || text[0] == '[')
	switch media := mediaType(p.request); {
	case media == "application/json":
		drafts, isArray, err := ingest.JSON(text)
		if err != nil {
			return nil, isArray, malformedBody(err)
		}
		return drafts, isArray, nil
	case media == "multipart/form-data":
		return nil, false, problem.New(http.StatusUnsupportedMediaType,
			"multipart forms are not taken; send application/x-www-form-urlencoded or application/json")
	case looksJSON && (slices.Contains(otherNamesOfNDJSON, media) || isJSONLines(text)):
		return nil, false, problem.New(http.StatusBadRequest,
			"the body looks like one JSON message on each line; send it with Content-Type: application/x-ndjson")
	case looksJSON:
		return nil, false, problem.New(http.StatusBadRequest,
			"the body looks like JSON; send it with Content-Type: application/json")
	case media == "application/x-www-form-urlencoded":
		d, err := ingest.Form(body)
		if err != nil {
			return nil, false, problem.New(http.StatusBadRequest, "%v", err)
		}
		return []ingest.Draft{d}, false, nil
	}
	return nil, false, problem.New(http.StatusBadRequest,
		"no target; name one in the URL, as ?topic=news, or send a message with its target as application/json")
}

// otherNamesOfNDJSON are other names for application/x-ndjson.
var otherNamesOfNDJSON = []string{
	"application/ndjson", "application/jsonl", "application/jsonlines", "application/x-jsonl",
	"application/x-jsonlines", "application/json-lines", "text/x-ndjson",
}

// isJSONLines reports whether a body is an object with the beginning of another behind it.
func isJSONLines(body []byte) bool {
	if body[0] != '{' {
		return false
	}
	decoder := jsontext.NewDecoder(bytes.NewReader(body))
	return decoder.SkipValue() == nil && decoder.PeekKind() == '{'
}

// formA makes a message in form A: data for the target of the URL or the route.
func (p *post) formA(data []byte) *hub.Message {
	m := p.defaults
	m.To, m.Data = p.to, data
	return &m
}

// countedBody is a body that knows whether it was read to its end.
type countedBody struct {
	io.ReadCloser
	ended bool
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}
