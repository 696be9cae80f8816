package ingest

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"github.com/caddy-sse/caddy-sse/hub"
)

// errNoForm is the error for what curl -d sends: it calls whatever it is given a form.
var errNoForm = errors.New("the body is no form with a message; to send it as data, name its target in the " +
	"URL, as ?topic=news; a form has the fields of a message, as topic=news&data=hello")

// Form reads one message in form B from an application/x-www-form-urlencoded body.
func Form(body []byte) (Draft, error) {
	form, err := url.ParseQuery(string(body))
	if !slices.ContainsFunc(slices.Collect(maps.Keys(form)), isField) {
		return Draft{}, errNoForm
	}
	if err != nil {
		return Draft{}, fmt.Errorf("the form can't be read: %w", err)
	}
	target := Target{Topics: form["topic"], HasTopic: form.Has("topic")}
	m := &hub.Message{}
	key := ""
	for name, values := range form {
		value := values[0]
		if len(values) > 1 && name != "topic" {
			return Draft{}, fmt.Errorf("field %q is there twice", name)
		}
		switch name {
		case "topic":
		case "client_id":
			target.ClientID = &value
		case "user":
			target.User = &value
		case "broadcast":
			target.Broadcast, err = ParseBool(value)
		case "event":
			m.Event = value
		case "key":
			m.Key = value
		case "data":
			m.Data = []byte(value)
		case "retry":
			m.HasRetry = true
			m.Retry, err = ParseRetry(value)
		case "ephemeral":
			m.Ephemeral, err = ParseBool(value)
		case "idempotency_key":
			key, err = value, checkKey(value)
		default:
			return Draft{}, fmt.Errorf("unknown field %q; the fields are %s", name, messageFields)
		}
		if err != nil {
			return Draft{}, fmt.Errorf("field %q: %w", name, err)
		}
	}
	if !form.Has("data") {
		return Draft{}, errors.New("data is missing; give the message data, if only empty data")
	}
	m.To, err = target.Addresses()
	return Draft{m, key}, err
}
