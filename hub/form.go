package hub

import (
	"strconv"
	"sync/atomic"
	"time"
	"weak"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// Form is how a client gets the messages: what each looks like on its stream.
type Form uint8

// The forms. The object in all but the first is
//
//	{"id":"...","topic":"prices/btc","event":"update","time":"2026-11-30T08:00:00.123Z","key":"...",
//	 "data":"..."}
//
// where topic is the one by which the client gets the message. For a message that goes to no topic there is "to", which
// is "client", "user" or "broadcast". What there is not is left out, but data.
const (
	Events    Form = iota // a server-sent event with the data of the message; the default
	Envelopes             // a server-sent event whose data is such an object without id
	Lines                 // such an object in a line
	Answer                // an object that has a list of such objects, and ends; see Subscription.Limit
	Updates               // a server-sent event as the Mercure protocol has it; all else is a comment

	element     // such an object in a list
	nextElement // the same behind another one
)

// timeForm is how a form tells when the log took a message.
const timeForm = "2006-01-02T15:04:05.000Z"

// objectCost is about what such an object has besides what the event has.
const objectCost = len(`{"topic":"","event":"","time":"","data":""}`) + len(timeForm) + 40

// in returns a frame as it looks in another form to a client that gets it by one of its addresses.
func (f *Frame) in(form Form, by *Address) *Frame {
	switch {
	case form == Envelopes && !f.published():
		return f
	case form == Updates:
		return f.formed(f.update(), form, nil)
	case f == heartbeat:
		return lineHeartbeat
	}
	block := f.Block()
	if !f.published() {
		block += "\n" // which is missing where no data is to be dispatched
	}
	e := eventstream.Parse([]byte(block))
	if f.more != nil && f.more.data != "" {
		e.Data = []byte(f.more.data)
	}
	b := make([]byte, 0, f.size()+f.size()/8+objectCost)
	switch form {
	case Envelopes:
		e.Data = f.appendObject(b, &e, by, false)
		b = e.Append(nil)
	case element:
		b = f.appendObject(append(b, '\n'), &e, by, true)
	case nextElement:
		b = f.appendObject(append(b, ",\n"...), &e, by, true)
	default:
		b = append(f.appendObject(b, &e, by, true), '\n')
	}
	return f.formed(b, form, by)
}

// formed returns a block as what a frame is in another form.
func (f *Frame) formed(block []byte, form Form, by *Address) *Frame {
	as := control(block)
	as.position, as.seq, as.time, as.arrived = f.position, f.seq, f.time, f.arrived
	as.traits = f.traits
	as.more = &more{source: f, form: form, by: by}
	return as
}

// appendObject appends a frame as an object. complete says whether it has all that the event has, or stands in one.
func (f *Frame) appendObject(b []byte, e *eventstream.Event, by *Address, complete bool) []byte {
	b = append(b, '{')
	if complete && e.ID != "" {
		b = appendMember(b, "id", e.ID)
	}
	if f.published() {
		switch by.Kind {
		case ToClient:
			b = appendMember(b, "to", "client")
		case ToUser:
			b = appendMember(b, "to", "user")
		case ToBroadcast:
			b = appendMember(b, "to", "broadcast")
		default:
			b = appendMember(b, "topic", by.Name)
		}
	}
	switch {
	case e.Name != "":
		b = appendMember(b, "event", e.Name)
	case !e.HasData && e.ID == "": // it only tells when to come back
		b = appendMember(b, "event", "retry")
	}
	if f.published() {
		b = appendMember(b, "time", time.Unix(0, f.time).UTC().Format(timeForm))
	}
	if f.key != "" {
		b = appendMember(b, "key", f.key)
	}
	if complete && e.HasRetry {
		b = append(strconv.AppendInt(append(b, `"retry":`...), e.Retry, 10), ',')
	}
	if e.HasData || e.ID == "" {
		b = appendMember(b, "data", e.Data)
	}
	b[len(b)-1] = '}'
	return b
}

// appendMember appends a member of an object, and a comma.
func appendMember[T string | []byte](b []byte, name string, value T) []byte {
	b = append(append(append(b, '"'), name...), `":`...)
	b, _ = jsontext.AppendQuote(b, value) // what is not UTF-8 was refused
	return append(b, ',')
}

// Encode returns an event that the hub's owner tells one client alone, as it looks in a form.
func (form Form) Encode(e eventstream.Event) []byte {
	if form != Lines {
		return e.Append(nil)
	}
	return append(new(Frame).appendObject(nil, &e, nil, true), '\n')
}

// lineHeartbeat is an empty line.
var lineHeartbeat = control([]byte("\n"))

// renderings are frames in other forms than the log has them. The clients of a shard share them, until it has nothing
// more to do or they are too many.
type renderings struct {
	made  map[rendering]*Frame
	bytes int
}

type rendering struct {
	frame *Frame
	form  Form
	by    *Address
}

// maxRenderings is up to how many bytes of frames are kept in other forms than that of the log.
const maxRenderings = 1 << 20

// of returns frames as they look in a form to a client.
func (r *renderings) of(to, frames []*Frame, form Form, c *Client) []*Frame {
	for _, f := range frames {
		key := rendering{f, form, nil}
		if form != Updates { // in which it looks the same whatever a client gets it by
			key.by = c.by(f)
		}
		to = append(to, r.one(key))
	}
	return to
}

func (r *renderings) one(key rendering) *Frame {
	if as := r.made[key]; as != nil {
		return as
	}
	as := key.frame.in(key.form, key.by)
	if r.bytes += len(as.chunk); r.bytes > maxRenderings {
		r.forget()
		r.bytes = len(as.chunk)
	}
	if r.made == nil {
		r.made = make(map[rendering]*Frame)
	}
	r.made[key] = as
	return as
}

func (r *renderings) forget() {
	clear(r.made)
	r.bytes = 0
}

// Weak is a frame that somebody will ask for as long as anybody else keeps it, in whatever form.
type Weak struct {
	frame, source weak.Pointer[Frame]
	as            more // how frame is made of source
}

// Weak returns the frame without keeping it.
func (f *Frame) Weak() *Weak {
	w := &Weak{frame: weak.Make(f)}
	if f.more != nil && f.more.source != nil {
		w.source, w.as = weak.Make(f.more.source), more{form: f.more.form, by: f.more.by, gzip: f.more.gzip}
	}
	return w
}

// Value returns the frame; nil if nobody keeps it any more. If only the log does, and in another form, it is made anew,
// unless it is what was made last: so what many read slowly, piece by piece, is not made for each piece.
func (w *Weak) Value(last *atomic.Pointer[Frame]) *Frame {
	if f := w.frame.Value(); f != nil {
		return f
	}
	source := w.source.Value()
	if source == nil {
		return nil
	}
	f := last.Load()
	if f == nil || f.more.source != source || f.more.form != w.as.form || f.more.by != w.as.by || f.more.gzip != w.as.gzip {
		f = source.again(&w.as)
		last.Store(f)
	}
	w.frame = weak.Make(f)
	return f
}

// again returns a frame as it once was made of the log's, but for context: no long one has any.
func (f *Frame) again(as *more) *Frame {
	if as.form != Events {
		f = f.in(as.form, as.by)
	}
	if as.gzip {
		f = f.compressed("")
	}
	return f
}
