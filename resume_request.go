package sse

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// The parameters of an answer's URL.
const (
	streamParameter = "sse_stream"
	statusParameter = "sse_status"
)

// resumeRequest is what a request says of answers that are kept.
type resumeRequest struct {
	owner string // who asks; empty for whoever
	keyed bool   // keys and names count

	byID   bool
	id     string
	after  uint64 // the number of the last event that the client has had
	counts bool   // it has sent that number, even if it is 0
	byName bool
	name   string
	status bool // it asks for the state only

	refusal *problem.Problem
}

// originalOf returns the request's URL before all rewrites.
func originalOf(r *http.Request) *url.URL {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL
	}
	return r.URL
}

// filled returns a value of the config for one request.
func filled(r *http.Request, value string) string {
	return r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).ReplaceAll(value, "")
}

// ask finds out what a request says.
func (h *Resume) ask(r *http.Request) (q resumeRequest) {
	if h.bind == bindNone {
		q.keyed = true
	} else {
		q.owner = filled(r, h.bind)
		q.keyed = q.owner != ""
	}
	var query url.Values
	if original := originalOf(r); strings.Contains(original.RawQuery, "sse_") {
		query = original.Query()
	}
	q.status = r.Method == http.MethodGet && query.Has(statusParameter)
	if r.Method != http.MethodPost && query.Has(streamParameter) {
		q.byID, q.id = true, query.Get(streamParameter)
		if !answers.IsID(q.id) {
			q.refusal = malformed("sse_stream is none of an answer's ID")
		}
	}
	if r.Method == http.MethodGet || r.Method == http.MethodPost {
		q.askFor(r.Header.Get("Last-Event-ID"))
	}
	if !q.byID && q.keyed && r.Method != http.MethodPost {
		q.name = h.lookup.name(r.URL.Path, func(value string) string { return filled(r, value) })
		q.byName = q.name != ""
	}
	q.status = q.status && (q.byID || q.byName)
	return q
}

// askFor takes in the ID of the last event that a client has had.
func (q *resumeRequest) askFor(lastEventID string) {
	if lastEventID == "" || q.refusal != nil {
		return
	}
	id, after, err := answers.ParseEventID(lastEventID)
	switch {
	case err != nil:
		q.refusal = malformed("Last-Event-ID is malformed; send one as it came")
	case q.byID && id != q.id:
		q.refusal = malformed("Last-Event-ID and sse_stream name different answers; send one of them")
	case id == "":
		return
	}
	q.byID, q.id, q.after, q.counts = true, id, after, true
}

func malformed(detail string) *problem.Problem {
	return problem.New(http.StatusBadRequest, "%s", detail)
}

// refuse answers with a problem.
func (h *Resume) refuse(w http.ResponseWriter, p *problem.Problem) error { return problem.Write(w, p) }

// mayStream reports whether the answer to a request may be a stream that is kept.
func mayStream(r *http.Request) bool {
	if r.Header.Get("Upgrade") != "" || strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return false
	}
	if r.Method == http.MethodPost {
		return true
	}
	for _, accept := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(accept, ",") {
			if _, known := kindOf(item); known {
				return true
			}
		}
	}
	return false
}

// kindOf returns the form of an answer of that media type, if it is one that is kept. Parameters do not count.
func kindOf(media string) (answers.Kind, bool) {
	media, _, _ = strings.Cut(media, ";")
	switch strings.ToLower(strings.TrimSpace(media)) {
	case "text/event-stream":
		return answers.Events, true
	case "application/x-ndjson":
		return answers.Lines, true
	}
	return 0, false
}

// ownURL returns the URL of an answer's own request. It stays on this host, whatever the path.
func ownURL(r *http.Request) string {
	original := originalOf(r)
	own := url.URL{Path: original.Path, RawPath: original.RawPath, RawQuery: original.RawQuery}
	text := own.EscapedPath()
	if !strings.HasPrefix(text, "/") {
		text = "/" + text
	}
	if strings.HasPrefix(text, "//") {
		text = "/." + text
	}
	if own.RawQuery != "" {
		text += "?" + own.RawQuery
	}
	return text
}

// contentLocation returns where an answer can be had.
func contentLocation(a *answers.Answer) string {
	separator := "?"
	if strings.Contains(a.URL, "?") {
		separator = "&"
	}
	return a.URL + separator + streamParameter + "=" + a.ID
}

// readBody reads the body of a request into memory. It returns false if the body is larger than may be kept;
// then r.Body has all of it still.
func (h *Resume) readBody(r *http.Request) (body []byte, ok bool, err error) {
	if r.ContentLength == 0 || r.Body == nil {
		return nil, true, nil
	}
	if r.ContentLength > h.MaxBody {
		return nil, false, nil
	}
	var read bytes.Buffer
	read.Grow(int(min(max(0, r.ContentLength)+bytes.MinRead, 64<<10))) // the rest as it comes
	_, err = read.ReadFrom(io.LimitReader(r.Body, h.MaxBody+1))
	body = read.Bytes()
	if err != nil {
		status := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		return nil, false, caddyhttp.Error(status, err)
	}
	if int64(len(body)) > h.MaxBody {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
		return nil, false, nil
	}
	return body, true, nil
}

// request describes a request that goes upstream.
func (h *Resume) request(r *http.Request, asked resumeRequest, body []byte) *answers.Request {
	request := &answers.Request{Owner: asked.owner, URL: ownURL(r), Host: r.Host, Bounds: h.bounds()}
	if !asked.keyed {
		return request
	}
	if h.Key != "" {
		request.Key, request.Body = filled(r, h.Key), sha256.Sum256(body)
	}
	if field, inBody := strings.CutPrefix(h.Name, jsonName); inBody {
		request.Name = jsonText(body, field)
	} else if h.Name != "" {
		request.Name = filled(r, h.Name)
	}
	return request
}

// jsonText returns the text of a member of a JSON object; "" if it is missing, is none, or is there twice.
func jsonText(body []byte, member string) (text string) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return ""
	}
	seen := false
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return ""
		}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return ""
		}
		if name != member {
			continue
		}
		if seen || json.Unmarshal(value, &text) != nil {
			return ""
		}
		seen = true
	}
	if _, err := decoder.Token(); err != nil { // the closing brace
		return ""
	}
	return text
}
