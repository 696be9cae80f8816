package sse

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-sse/caddy-sse/topic"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxTargets bounds how many topics one message may be published to.
const maxTargets = 100

// maxArray bounds a whole body, in messages of the largest size.
const maxArray = 16

// urlTarget returns whom a query names, nil if nobody. Of what stands there twice it can't be known which
// is meant.
func urlTarget(query url.Values) ([]Address, *problem) {
	for _, name := range []string{"client_id", "user", "broadcast", "event", "retry", "ephemeral"} {
		if n := len(query[name]); n > 1 {
			return nil, problemf(http.StatusBadRequest, "%s stands in the URL %d times; give it once", name, n)
		}
	}
	fields := targetFields{Topics: query["topic"], hasTopic: query.Has("topic")}
	if query.Has("client_id") {
		fields.ClientID = new(string)
		*fields.ClientID = query.Get("client_id")
	}
	if query.Has("user") {
		fields.User = new(string)
		*fields.User = query.Get("user")
	}
	if query.Has("broadcast") {
		on, err := parseBool(cmp.Or(query.Get("broadcast"), "true"))
		if err != nil {
			return nil, problemf(http.StatusBadRequest, "broadcast in the URL must be empty, true or false")
		}
		fields.Broadcast = on
	}
	to, err := fields.addresses()
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "%v", err)
	}
	return detached(to), nil
}

// detached copies the names of addresses, which are kept with the message: nothing else of what they came in is to be.
func detached(to []Address) []Address {
	for i := range to {
		to[i].Name = strings.Clone(to[i].Name)
	}
	return to
}

// targetFields are the ways to say whom a message is for, of which exactly one is to be used.
type targetFields struct {
	Topics    []string
	hasTopic  bool
	ClientID  *string
	User      *string
	Broadcast bool
}

// addresses returns whom the fields name, nil if nobody.
func (f targetFields) addresses() (to []Address, err error) {
	named := 0
	if f.hasTopic {
		to = Topics(topic.Distinct(f.Topics)...)
		named++
	}
	if f.ClientID != nil {
		to = []Address{{ToClient, *f.ClientID}}
		named++
	}
	if f.User != nil {
		to = []Address{{ToUser, *f.User}}
		named++
	}
	if f.Broadcast {
		to = []Address{{Kind: ToBroadcast}}
		named++
	}
	switch {
	case named > 1:
		return nil, errors.New("a message has one kind of target; use only one of topic, client_id, user and broadcast")
	case f.hasTopic && len(to) == 0:
		return nil, errors.New("topic names no topic; give at least one")
	case len(to) > maxTargets:
		return nil, fmt.Errorf("%d topics are too many for one message; the limit is %d", len(to), maxTargets)
	}
	return to, nil
}

// readDefaults reads event, retry and ephemeral from the query, where they go with a target there.
func (p *post) readDefaults(query url.Values) *problem {
	for _, name := range []string{"event", "retry", "ephemeral"} {
		if query.Has(name) && p.to == nil {
			return problemf(http.StatusBadRequest, "%s stands in the URL, but the target does not; put both in the URL or both in the body", name)
		}
	}
	p.defaults.Event = query.Get("event")
	var err error
	if query.Has("retry") {
		p.defaults.HasRetry = true
		if p.defaults.Retry, err = parseRetry(query.Get("retry")); err != nil {
			return problemf(http.StatusBadRequest, "%v", err)
		}
	}
	if query.Has("ephemeral") {
		if p.defaults.Ephemeral, err = parseBool(cmp.Or(query.Get("ephemeral"), "true")); err != nil {
			return problemf(http.StatusBadRequest, "ephemeral in the URL must be empty, true or false")
		}
	}
	return nil
}

// readBody reads a whole body.
func (p *post) readBody() ([]byte, *problem) {
	limit := int64(p.Publish.MaxSize)
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

func bodyTooLarge(limit int64) *problem {
	return problemf(http.StatusRequestEntityTooLarge, "the body has more than %d bytes; send less at once", limit)
}

// draft is a message as its publisher sent it.
type draft struct {
	*Message
	key string // idempotency_key
}

// decode returns the messages of a whole body.
func (p *post) decode(body []byte) (drafts []draft, isArray bool, refusal *problem) {
	if p.to != nil {
		return []draft{{Message: p.formA(body)}}, false, nil
	}
	text := bytes.TrimLeft(body, " \t\r\n")
	looksJSON := len(text) > 0 && (text[0] == '{' || text[0] == '[')
	switch media := mediaType(p.request); {
	case media == "application/json":
		return decodeJSON(text)
	case media == "multipart/form-data":
		return nil, false, problemf(http.StatusUnsupportedMediaType,
			"multipart forms are not taken; send application/x-www-form-urlencoded or application/json")
	case looksJSON && (slices.Contains(otherNamesOfNDJSON, media) || isJSONLines(text)):
		return nil, false, problemf(http.StatusBadRequest,
			"the body looks like one JSON message on each line; send it with Content-Type: application/x-ndjson")
	case looksJSON:
		return nil, false, problemf(http.StatusBadRequest, "the body looks like JSON; send it with Content-Type: application/json")
	case media == "application/x-www-form-urlencoded":
		d, err := decodeForm(body)
		if err != nil {
			return nil, false, problemf(http.StatusBadRequest, "%v", err)
		}
		return []draft{d}, false, nil
	}
	return nil, false, problemf(http.StatusBadRequest,
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
func (p *post) formA(data []byte) *Message {
	m := p.defaults
	m.To, m.Data = p.to, data
	return &m
}

// jsonMessage is a message in form B.
type jsonMessage struct {
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

// decodeJSON reads an object, or an array of objects.
func decodeJSON(body []byte) (drafts []draft, isArray bool, refusal *problem) {
	if len(body) == 0 || body[0] != '[' {
		d, err := decodeObject(body)
		if err != nil {
			return nil, false, problemf(http.StatusBadRequest, "%v", err)
		}
		return []draft{d}, false, nil
	}
	var objects []jsontext.Value
	if err := json.Unmarshal(body, &objects); err != nil {
		return nil, true, problemf(http.StatusBadRequest, "%v", explainJSON(err))
	}
	for i, object := range objects {
		d, err := decodeObject(object)
		if err != nil {
			return nil, true, problemf(http.StatusBadRequest, "message %d: %v", i+1, err)
		}
		drafts = append(drafts, d)
	}
	return drafts, true, nil
}

// decodeObject reads one message. Names are matched exactly, and none may be unknown or there twice.
func decodeObject(object []byte) (draft, error) {
	var j jsonMessage
	if err := json.Unmarshal(object, &j, exactly); err != nil {
		return draft{}, explainJSON(err)
	}
	return j.draft()
}

// exactly are the rules that messages are read by: a field is known and has a value, or is left out. Null
// would leave fields as they were, and a target with null in it would be no target; as data it is JSON
// like any other, which is read later.
var exactly = json.JoinOptions(
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

// draft makes a message of the fields.
func (j *jsonMessage) draft() (draft, error) {
	target := targetFields{ClientID: j.ClientID, User: j.User, Broadcast: j.Broadcast}
	var one string
	switch j.Topic.Kind() {
	case 0:
	case '"':
		_ = json.Unmarshal(j.Topic, &one) // a string already parsed
		target.Topics, target.hasTopic = []string{one}, true
	case '[':
		target.hasTopic = true
		if err := json.Unmarshal(j.Topic, &target.Topics, exactly); err != nil {
			return draft{}, errTopicKind
		}
	default:
		return draft{}, errTopicKind
	}
	to, err := target.addresses()
	if err != nil {
		return draft{}, err
	}
	m := &Message{To: to, Event: j.Event, Ephemeral: j.Ephemeral}
	if j.Retry != nil {
		m.Retry, m.HasRetry = *j.Retry, true
	}
	switch j.Data.Kind() {
	case 0:
		return draft{}, errors.New("data is missing; give the message data, be it an empty string")
	case '"':
		var text string
		_ = json.Unmarshal(j.Data, &text) // a string already parsed
		m.Data = []byte(text)
	default:
		if err := j.Data.Compact(); err != nil {
			return draft{}, explainJSON(err)
		}
		m.Data = j.Data
	}
	return draft{m, j.IdempotencyKey}, checkKey(j.IdempotencyKey)
}

// explainJSON says what is wrong with JSON in words for whoever sent it.
func explainJSON(err error) error {
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

// decodeForm reads one message from a form, whose fields are those of form B.
func decodeForm(body []byte) (draft, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return draft{}, fmt.Errorf("the form can't be read: %w", err)
	}
	target := targetFields{Topics: form["topic"], hasTopic: form.Has("topic")}
	m := &Message{}
	key := ""
	for name, values := range form {
		value := values[0]
		if len(values) > 1 && name != "topic" {
			return draft{}, fmt.Errorf("field %q is there twice", name)
		}
		switch name {
		case "topic":
		case "client_id":
			target.ClientID = &value
		case "user":
			target.User = &value
		case "broadcast":
			target.Broadcast, err = parseBool(value)
		case "event":
			m.Event = value
		case "data":
			m.Data = []byte(value)
		case "retry":
			m.HasRetry = true
			m.Retry, err = parseRetry(value)
		case "ephemeral":
			m.Ephemeral, err = parseBool(value)
		case "idempotency_key":
			key, err = value, checkKey(value)
		default:
			return draft{}, fmt.Errorf("unknown field %q; the fields are %s", name, messageFields)
		}
		if err != nil {
			return draft{}, fmt.Errorf("field %q: %w", name, err)
		}
	}
	if !form.Has("data") {
		return draft{}, errors.New("data is missing; give the message data, be it empty")
	}
	to, err := target.addresses()
	m.To = detached(to)
	return draft{m, key}, err
}

func checkKey(key string) error {
	if len(key) > maxKeyBytes {
		return fmt.Errorf("idempotency_key has %d bytes; the limit is %d", len(key), maxKeyBytes)
	}
	return nil
}

func parseRetry(text string) (int64, error) {
	ms, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, errors.New("retry must be a whole number of milliseconds, 0 or more")
	}
	return int64(ms), nil
}

func parseBool(text string) (bool, error) {
	switch text {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errors.New("must be true or false")
}

// fingerprint tells the message, and the extent of the request it is part of, from any other.
func (m *Message) fingerprint(extent []byte) [sha256.Size]byte {
	hash := sha256.New()
	field := func(b []byte) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(b)))
		hash.Write(length[:])
		hash.Write(b)
	}
	for _, to := range m.To {
		field([]byte{byte(to.Kind)})
		field([]byte(to.Name))
	}
	field(fmt.Appendf(nil, "%t %d %t", m.HasRetry, m.Retry, m.Ephemeral))
	field([]byte(m.Event))
	field(m.Data)
	field(extent)
	return [sha256.Size]byte(hash.Sum(nil))
}
