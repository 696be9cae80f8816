package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Fields are the fields of a message in form B. A field that was left out is nil.
type Fields struct {
	Topic          jsontext.Value `json:"topic"`
	ClientID       *string        `json:"client_id"`
	User           *string        `json:"user"`
	Broadcast      *bool          `json:"broadcast"`
	Event          *string        `json:"event"`
	MessageKey     *string        `json:"key"`
	Data           jsontext.Value `json:"data"`
	Retry          *int64         `json:"retry"`
	Ephemeral      *bool          `json:"ephemeral"`
	IdempotencyKey *string        `json:"idempotency_key"`
}

// fieldTypes are the fields, and what a value of each has to be.
var fieldTypes = []struct{ name, must string }{
	{"topic", `a string, as "news", or an array of strings`},
	{"client_id", `a string, as "42"`},
	{"user", `a string, as "42"`},
	{"broadcast", "true or false, without quotes"},
	{"event", `a string, as "update"`},
	{"key", `a string, as "BTC"`},
	{"data", "any JSON"},
	{"retry", fmt.Sprintf("a whole number of milliseconds from %d to %d, without quotes, as 5000",
		MinRetry, MaxRetry)},
	{"ephemeral", "true or false, without quotes"},
	{"idempotency_key", `a string, as "42"`},
}

// messageFields names the fields for error messages.
var messageFields = func() string {
	var names []string
	for _, field := range fieldTypes {
		names = append(names, field.name)
	}
	return strings.Join(names, ", ")
}()

func isField(name string) bool { return fieldType(name) != "" }

// fieldType returns what a value of the field has to be; "" for a name that is no field.
func fieldType(name string) string {
	for _, field := range fieldTypes {
		if field.name == name {
			return field.must
		}
	}
	return ""
}

// MaxMessages is how many messages an array may hold.
const MaxMessages = 10_000

// JSON reads messages in form B: one object, or an array of objects.
func JSON(body []byte) (drafts []Draft, isArray bool, err error) {
	if len(body) == 0 || body[0] != '[' {
		d, err := Object(body)
		return []Draft{d}, false, err
	}
	drafts, err = array(body)
	return drafts, true, err
}

// array reads an array of messages, one by one: of an array with too many no more is stored than allowed.
func array(body []byte) (drafts []Draft, err error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		return nil, Explain(err)
	}
	for d.PeekKind() != ']' {
		if len(drafts) == MaxMessages {
			return nil, sizeError("the array has more than %d messages; send several arrays, or NDJSON", MaxMessages)
		}
		object, err := d.ReadValue()
		if err != nil {
			return nil, Explain(err)
		}
		draft, err := Object(object)
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", len(drafts)+1, err)
		}
		drafts = append(drafts, draft)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, Explain(err)
	}
	if _, err := d.ReadToken(); err != io.EOF { //nolint:errorlint // a decoder returns it bare
		return nil, fmt.Errorf("the JSON is not valid at byte %d: there is more behind the array", d.InputOffset())
	}
	return drafts, nil
}

// Object reads one message in form B.
func Object(object []byte) (Draft, error) {
	var f Fields
	if jsontext.Value(object).Kind() == 'n' { // null leaves all fields as they are
		return Draft{}, errNoObject
	}
	if err := json.Unmarshal(object, &f, Strict); err != nil {
		return Draft{}, Explain(err)
	}
	d, err := f.Draft()
	if err == nil && d.HasRetry {
		err = checkRetry(d.Retry)
	}
	return d, err
}

// Strict are the rules for reading [Fields]. Names match exactly; no field is unknown or there twice; none is
// null, but for raw values such as data. Null would leave a field as it was: a target of null would be none.
// What names stand within data is none of our business.
var Strict = json.JoinOptions(
	json.RejectUnknownMembers(true),
	jsontext.AllowDuplicateNames(true),
	json.WithUnmarshalers(json.JoinUnmarshalers(
		json.UnmarshalFromFunc(func(_ *jsontext.Decoder, value *jsontext.Value) error {
			return readOnce(*value != nil)
		}),
		json.UnmarshalFromFunc(func(d *jsontext.Decoder, value **string) error { return read(d, value) }),
		json.UnmarshalFromFunc(func(d *jsontext.Decoder, value **int64) error { return read(d, value) }),
		json.UnmarshalFromFunc(func(d *jsontext.Decoder, value **bool) error { return read(d, value) }),
	)),
)

// read checks that a field may be read into the value.
func read[T any](d *jsontext.Decoder, value **T) error {
	if d.PeekKind() == 'n' {
		return errNull
	}
	return readOnce(*value != nil)
}

// readOnce refuses a field that has been read already. Any other is read as usual.
func readOnce(already bool) error {
	if already {
		return errTwice
	}
	return errors.ErrUnsupported
}

var (
	errNoObject = errors.New("a message must be a JSON object")

	errNull  = errors.New("null")
	errTwice = errors.New("twice")
)

// Draft makes a message of the fields. It leaves the bounds of retry to the caller.
func (f *Fields) Draft() (Draft, error) {
	to, err := f.addresses()
	if err != nil {
		return Draft{}, err
	}
	m := &hub.Message{To: to, Event: value(f.Event), Key: value(f.MessageKey), Ephemeral: value(f.Ephemeral)}
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
	key := value(f.IdempotencyKey)
	return Draft{m, key}, checkKey(key)
}

// value returns the value of a field; the zero value if it was left out.
func value[T any](field *T) (v T) {
	if field != nil {
		v = *field
	}
	return v
}

var errTopicKind = errors.New(
	"topic must be a string or an array of strings; where it is not the target, leave it out")

func (f *Fields) addresses() ([]hub.Address, error) {
	target := Target{ClientID: f.ClientID, User: f.User, Broadcast: value(f.Broadcast)}
	switch f.Topic.Kind() {
	case 0:
	case '"':
		var one string
		_ = json.Unmarshal(f.Topic, &one) // it is known to be a valid string
		target.Topics, target.HasTopic = []string{one}, true
	case '[':
		target.HasTopic = true
		var err error
		if target.Topics, err = topicsOf(f.Topic); err != nil {
			return nil, err
		}
	default:
		return nil, errTopicKind
	}
	return target.Addresses()
}

// topicsOf reads an array of topics, which is known to be valid JSON. It stores no more than a message may
// have, however many there are.
func topicsOf(array jsontext.Value) (topics []string, err error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(array), jsontext.AllowDuplicateNames(true))
	n := 0
	_, _ = d.ReadToken()
	for d.PeekKind() != ']' {
		token, err := d.ReadToken()
		if err != nil || token.Kind() != '"' {
			return nil, errTopicKind
		}
		if n++; n <= MaxTargets {
			topics = append(topics, token.String())
		}
	}
	if n > MaxTargets {
		return nil, tooManyTargets(n)
	}
	return topics, nil
}

// Explain says in a publisher's words what is wrong with JSON that [Strict] refuses.
func Explain(err error) error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, json.ErrUnknownName):
		errors.As(err, &semantic)
		return fmt.Errorf("unknown field %q; the fields are %s", semantic.JSONPointer.LastToken(), messageFields)
	case errors.As(err, &semantic) && semantic.JSONPointer == "":
		return errNoObject
	case errors.Is(err, errTwice):
		return fmt.Errorf("field %q is there twice", semantic.JSONPointer.LastToken())
	case errors.Is(err, errNull):
		return fmt.Errorf("field %q is null; leave it out or give it a value", semantic.JSONPointer.LastToken())
	case errors.As(err, &semantic):
		return explainType(semantic)
	case errors.As(err, &syntactic):
		return fmt.Errorf("the JSON is not valid at byte %d: %w", syntactic.ByteOffset, syntactic.Err)
	}
	return errors.New("the body ended before the JSON was complete")
}

// explainType says what a field is, and what it should be.
func explainType(err *json.SemanticError) error {
	name := err.JSONPointer.LastToken()
	must := fieldType(name)
	if must == "" { // a field of the channel alone
		must = "a string"
	}
	is := "has a value of the wrong type"
	for _, k := range kinds {
		if strings.ContainsRune(k.of, rune(err.JSONKind)) {
			is = "is " + k.name
		}
	}
	return fmt.Errorf("field %q %s; it must be %s", name, is, must)
}

// kind is a name for kinds of JSON values.
type kind struct{ of, name string }

var kinds = []kind{
	{`"`, "a string"}, {"0", "a number"}, {"tf", "true or false"}, {"{", "an object"}, {"[", "an array"},
}
