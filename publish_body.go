package sse

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/go-json-experiment/json/jsontext"
)

// maxArray bounds a whole body, in messages of the largest size.
const maxArray = 16

// urlTarget returns whom a query names, nil if nobody. Of what stands there twice it can't be known which
// is meant.
func urlTarget(query url.Values) ([]hub.Address, *problem.Problem) {
	for _, name := range []string{"client_id", "user", "broadcast", "event", "retry", "ephemeral"} {
		if n := len(query[name]); n > 1 {
			return nil, problem.New(http.StatusBadRequest, "%s stands in the URL %d times; give it once", name, n)
		}
	}
	fields := ingest.Target{Topics: query["topic"], HasTopic: query.Has("topic")}
	if query.Has("client_id") {
		fields.ClientID = new(string)
		*fields.ClientID = query.Get("client_id")
	}
	if query.Has("user") {
		fields.User = new(string)
		*fields.User = query.Get("user")
	}
	if query.Has("broadcast") {
		on, err := ingest.ParseBool(cmp.Or(query.Get("broadcast"), "true"))
		if err != nil {
			return nil, problem.New(http.StatusBadRequest, "broadcast in the URL must be empty, true or false")
		}
		fields.Broadcast = on
	}
	to, err := fields.Addresses()
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "%v", err)
	}
	return to, nil
}

// readDefaults reads event, retry and ephemeral from the query, where they go with a target there.
func (p *post) readDefaults(query url.Values) *problem.Problem {
	for _, name := range []string{"event", "retry", "ephemeral"} {
		if query.Has(name) && p.to == nil {
			return problem.New(http.StatusBadRequest, "%s stands in the URL, but the target does not; put both in the URL or both in the body", name)
		}
	}
	p.defaults.Event = query.Get("event")
	var err error
	if query.Has("retry") {
		p.defaults.HasRetry = true
		if p.defaults.Retry, err = ingest.ParseRetry(query.Get("retry")); err != nil {
			return problem.New(http.StatusBadRequest, "%v", err)
		}
	}
	if query.Has("ephemeral") {
		if p.defaults.Ephemeral, err = ingest.ParseBool(cmp.Or(query.Get("ephemeral"), "true")); err != nil {
			return problem.New(http.StatusBadRequest, "ephemeral in the URL must be empty, true or false")
		}
	}
	return nil
}

// readBody reads a whole body.
func (p *post) readBody() ([]byte, *problem.Problem) {
	limit := int64(p.config.MaxSize)
	if p.to == nil {
		limit *= maxArray
	}
	if p.request.ContentLength > limit {
		return nil, bodyTooLarge(limit)
	}
	body, err := io.ReadAll(io.LimitReader(p.body, limit+1))
	switch {
	case err != nil:
		return nil, p.unreadable(err)
	case int64(len(body)) > limit:
		return nil, bodyTooLarge(limit)
	}
	return body, nil
}

func bodyTooLarge(limit int64) *problem.Problem {
	return problem.New(http.StatusRequestEntityTooLarge, "the body has more than %d bytes; send less at once", limit)
}

// decode returns the messages of a whole body.
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
			return nil, isArray, problem.New(http.StatusBadRequest, "%v", err)
		}
		return drafts, isArray, nil
	case media == "multipart/form-data":
		return nil, false, problem.New(http.StatusUnsupportedMediaType,
			"multipart forms are not taken; send application/x-www-form-urlencoded or application/json")
	case looksJSON && (slices.Contains(otherNamesOfNDJSON, media) || isJSONLines(text)):
		return nil, false, problem.New(http.StatusBadRequest,
			"the body looks like one JSON message on each line; send it with Content-Type: application/x-ndjson")
	case looksJSON:
		return nil, false, problem.New(http.StatusBadRequest, "the body looks like JSON; send it with Content-Type: application/json")
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

// otherNamesOfNDJSON are what others call application/x-ndjson.
var otherNamesOfNDJSON = []string{
	"application/ndjson", "application/jsonl", "application/jsonlines", "application/x-jsonl", "application/x-jsonlines",
	"application/json-lines", "text/x-ndjson",
}

// isJSONLines reports whether a body is an object with something behind it that begins like another.
func isJSONLines(body []byte) bool {
	if body[0] != '{' {
		return false
	}
	decoder := jsontext.NewDecoder(bytes.NewReader(body))
	return decoder.SkipValue() == nil && decoder.PeekKind() == '{'
}

// formA makes a message of data for the target of the URL.
func (p *post) formA(data []byte) *hub.Message {
	m := p.defaults
	m.To, m.Data = p.to, data
	return &m
}
