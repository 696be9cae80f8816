package ingest

import (
	"errors"
	"fmt"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Fields is a message in form B.
type Fields struct {
	Topic          jsontext.Value `json:"topic"`
	ClientID       *string        `json:"client_id"`
	User           *string        `json:"user"`
	Broadcast      bool           `json:"broadcast"`
	Event          string         `json:"event"`
	Data           jsontext.Value `json:"data"`
	Retry          *int64         `json:"retry"`
	Ephemeral      bool           `json:"ephemeral"`
	IdempotencyKey string         `json:"idempotency_key"`
}

const messageFields = "topic, client_id, user, broadcast, event, data, retry, ephemeral, idempotency_key"

// JSON reads an object, or an array of objects.
func JSON(body []byte) (drafts []Draft, isArray bool, err error) {
	if len(body) == 0 || body[0] != '[' {
		d, err := Object(body)
		return []Draft{d}, false, err
	}
	var objects []jsontext.Value
	if err := json.Unmarshal(body, &objects); err != nil {
		return nil, true, Explain(err)
	}
	for i, object := range objects {
		d, err := Object(object)
		if err != nil {
			return nil, true, fmt.Errorf("message %d: %w", i+1, err)
		}
		drafts = append(drafts, d)
	}
	return drafts, true, nil
}

// Object reads one message. Names are matched exactly, and none may be unknown or there twice.
func Object(object []byte) (Draft, error) {
	var j Fields
	if err := json.Unmarshal(object, &j, Strict); err != nil {
		return Draft{}, Explain(err)
	}
	return j.Draft()
}

// Strict are the rules that messages are read by: a field is known and has a value, or is left out. Null
// would leave fields as they were, and a target with null in it would be no target; as data it is JSON
// like any other, which is read later.
var Strict = json.JoinOptions(
	json.RejectUnknownMembers(true),
	json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, value any) error {
		if _, raw := value.(*jsontext.Value); !raw && d.PeekKind() == 'n' {
			return errNull
		}
		return errors.ErrUnsupported // as usual
	})),
)

var errNull = errors.New("null")

var errTopicKind = errors.New("topic must be a string or an array of strings; where it is not the target, leave it out")

// Draft makes a message of the fields.
func (j *Fields) Draft() (Draft, error) {
	target := Target{ClientID: j.ClientID, User: j.User, Broadcast: j.Broadcast}
	var one string
	switch j.Topic.Kind() {
	case 0:
	case '"':
		_ = json.Unmarshal(j.Topic, &one) // a string already parsed
		target.Topics, target.HasTopic = []string{one}, true
	case '[':
		target.HasTopic = true
		if err := json.Unmarshal(j.Topic, &target.Topics, Strict); err != nil {
			return Draft{}, errTopicKind
		}
	default:
		return Draft{}, errTopicKind
	}
	to, err := target.Addresses()
	if err != nil {
		return Draft{}, err
	}
	m := &hub.Message{To: to, Event: j.Event, Ephemeral: j.Ephemeral}
	if j.Retry != nil {
		m.Retry, m.HasRetry = *j.Retry, true
	}
	switch j.Data.Kind() {
	case 0:
		return Draft{}, errors.New("data is missing; give the message data, be it an empty string")
	case '"':
		var text string
		_ = json.Unmarshal(j.Data, &text) // a string already parsed
		m.Data = []byte(text)
	default:
		if err := j.Data.Compact(); err != nil {
			return Draft{}, Explain(err)
		}
		m.Data = j.Data
	}
	return Draft{m, j.IdempotencyKey}, checkKey(j.IdempotencyKey)
}

// Explain says what is wrong with JSON in words for whoever sent it.
func Explain(err error) error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, json.ErrUnknownName):
		errors.As(err, &semantic)
		return fmt.Errorf("unknown field %q; the fields are %s", semantic.JSONPointer.LastToken(), messageFields)
	case errors.Is(err, jsontext.ErrDuplicateName):
		errors.As(err, &syntactic)
		return fmt.Errorf("field %q is there twice", syntactic.JSONPointer.LastToken())
	case errors.As(err, &semantic) && semantic.JSONPointer == "":
		return errors.New("a message must be a JSON object")
	case errors.Is(err, errNull):
		return fmt.Errorf("field %q is null; leave it out or give it a value", semantic.JSONPointer.LastToken())
	case errors.As(err, &semantic):
		return fmt.Errorf("field %q has a value of the wrong type", semantic.JSONPointer.LastToken())
	case errors.As(err, &syntactic):
		return fmt.Errorf("the JSON is not valid at byte %d: %w", syntactic.ByteOffset, syntactic.Err)
	}
	return errors.New("the body ended before the JSON was complete")
}
