package ingest

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Fields are the fields of a message in form B.
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

// messageFields names the fields for error messages.
const messageFields = "topic, client_id, user, broadcast, event, data, retry, ephemeral, idempotency_key"

// JSON reads messages in form B: one object, or an array of objects.
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

// Object reads one message in form B.
func Object(object []byte) (Draft, error) {
	var f Fields
	if err := json.Unmarshal(object, &f, Strict); err != nil {
		return Draft{}, Explain(err)
	}
	return f.Draft()
}

// Strict are the rules for reading [Fields]. Names match exactly; no field is unknown or there twice; none is
// null, but for raw values such as data. Null would leave a field as it was: a target of null would be none.
var Strict = json.JoinOptions(
	json.RejectUnknownMembers(true),
	json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, value any) error {
		if _, raw := value.(*jsontext.Value); !raw && d.PeekKind() == 'n' {
			return errNull
		}
		return errors.ErrUnsupported // read it as usual
	})),
)

var errNull = errors.New("null")

// Draft makes a message of the fields.
func (f *Fields) Draft() (Draft, error) {
	to, err := f.addresses()
	if err != nil {
		return Draft{}, err
	}
	m := &hub.Message{To: to, Event: f.Event, Ephemeral: f.Ephemeral}
	if f.Retry != nil {
		m.Retry, m.HasRetry = *f.Retry, true
	}
	switch f.Data.Kind() {
	case 0:
		return Draft{}, errors.New("data is missing; give the message data, if only an empty string")
	case '"':
		var text string
		_ = json.Unmarshal(f.Data, &text) // it is known to be a valid string
		m.Data = []byte(text)
	default:
		if err := f.Data.Compact(); err != nil {
			return Draft{}, Explain(err)
		}
		m.Data = f.Data
	}
	return Draft{m, f.IdempotencyKey}, checkKey(f.IdempotencyKey)
}

var errTopicKind = errors.New(
	"topic must be a string or an array of strings; where it is not the target, leave it out")

func (f *Fields) addresses() ([]hub.Address, error) {
	target := Target{ClientID: f.ClientID, User: f.User, Broadcast: f.Broadcast}
	switch f.Topic.Kind() {
	case 0:
	case '"':
		var one string
		_ = json.Unmarshal(f.Topic, &one) // it is known to be a valid string
		target.Topics, target.HasTopic = []string{one}, true
	case '[':
		target.HasTopic = true
		if err := json.Unmarshal(f.Topic, &target.Topics, Strict); err != nil {
			return nil, errTopicKind
		}
	default:
		return nil, errTopicKind
	}
	return target.Addresses()
}

// Explain says in a publisher's words what is wrong with JSON that [Strict] refuses.
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
