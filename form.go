package sse

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// forms are what a client may get instead of an event stream, by their names in a query.
var forms = map[string]hub.Form{
	"sse": hub.Events, "envelope": hub.Envelopes, "ndjson": hub.Lines, "json": hub.Answer,
}

// How many messages an answer in JSON has at most, unless the request says, and if it does; and how long it may wait.
const (
	usualAnswer = 100
	maxAnswer   = 1000
	maxWait     = time.Minute
)

// wishes are how a client wants to read: from where, and in what form.
type wishes struct {
	since hub.Since
	form  hub.Form
	limit int
	wait  time.Duration
}

// wishes reads how a client wants to read. What the route's own config takes from the query is not for us.
func (route *subscribeRoute) wishes(r *http.Request, query url.Values) (wants wishes, p *problem.Problem) {
	ours := func(name string) (value string, given bool) {
		values := query[name]
		if len(values) == 0 || slices.Contains(route.urls.named, name) {
			return "", false
		}
		return values[len(values)-1], true
	}
	refuse := func(err error) (wishes, *problem.Problem) {
		return wishes{}, problem.New(http.StatusBadRequest, "%v", err)
	}
	wants = wishes{form: acceptedForm(r.Header), limit: usualAnswer}
	if name, given := ours("format"); given {
		form, known := forms[name]
		if !known {
			return refuse(fmt.Errorf("format is sse, envelope, ndjson or json, not %q", name))
		}
		wants.form = form
	}
	from := route.since
	if from == nil {
		from = &since{Since: hub.Since{All: wants.form == hub.Answer}}
	}
	if text, given := ours("since"); given {
		parsed, err := parseSince(text)
		if err != nil {
			return refuse(err)
		}
		from = &parsed
	}
	wants.since = from.at(time.Now())
	for _, option := range []struct {
		name string
		read func(string) error
	}{{"limit", wants.readLimit}, {"wait", wants.readWait}} {
		text, given := ours(option.name)
		if given && wants.form != hub.Answer {
			return refuse(fmt.Errorf("%s is for one answer in JSON; add format=json, or leave it out", option.name))
		}
		if given {
			if err := option.read(text); err != nil {
				return refuse(err)
			}
		}
	}
	return wants, nil
}

func (wants *wishes) readLimit(text string) (err error) {
	if wants.limit, err = strconv.Atoi(text); err != nil || wants.limit < 1 || wants.limit > maxAnswer {
		return fmt.Errorf("limit is a number of messages from 1 to %d, not %q", maxAnswer, text)
	}
	return nil
}

func (wants *wishes) readWait(text string) (err error) {
	if wants.wait, err = caddy.ParseDuration(text); err != nil || wants.wait < 0 || wants.wait > maxWait {
		return fmt.Errorf("wait is a duration such as 30s, up to 60s, not %q", text)
	}
	return nil
}

// acceptedForm returns the form that an Accept header asks for: the first that it names, unless it names event streams.
func acceptedForm(header http.Header) hub.Form {
	form := hub.Events
	for accepted := range strings.SplitSeq(strings.Join(header.Values("Accept"), ","), ",") {
		kind, parameters, err := mime.ParseMediaType(accepted)
		if q, given := strconv.ParseFloat(parameters["q"], 64); err != nil || given == nil && q == 0 {
			continue
		}
		switch {
		case kind == "text/event-stream":
			return hub.Events
		case form != hub.Events:
		case kind == "application/json":
			form = hub.Answer
		case kind == "application/x-ndjson":
			form = hub.Lines
		}
	}
	return form
}
