package hub

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// answer is what a client that polls gets: one JSON object, written as its messages come, which ends once there is one
// and all that has been published by then has been told, or once there are as many as it may have. So nothing is held for
// a client that polls and then does not read.
type answer struct {
	limit  int
	waits  moment // when it ends in any case
	resume Resume
	begun  bool   // what stands before the messages was written
	given  int    // messages
	last   string // the ID to go on after
	over   bool   // its end was written
}

// newAnswer returns the answer to a client that has joined at a moment. A gap is told at once.
func newAnswer(s *Subscription, welcome Welcome, joined moment) *answer {
	a := &answer{limit: s.Limit, waits: joined, resume: welcome.Resume, last: welcome.ID}
	if a.resume != ResumeGap {
		a.waits = joined.after(s.Wait)
	}
	return a
}

// head is what stands before the messages.
func (a *answer) head() *Frame {
	return control([]byte(`{"resume":"` + string(a.resume) + `","messages":[`))
}

// tail is what stands behind so many of them: where the next call goes on, and whether it has more at once.
func tail(given int, last string, more bool) *Frame {
	var b []byte
	if given > 0 {
		b = append(b, '\n')
	}
	b, _ = jsontext.AppendQuote(append(b, `],"last_id":`...), last)
	b = strconv.AppendBool(append(b, `,"more":`...), more)
	return control(append(b, "}\n"...))
}

// fit returns how many frames the answer takes, and whether it ends before the next, which is left to the next call: a
// message that it has no room for, or a gap behind its beginning. Frames that are no messages are not written.
func (a *answer) fit(frames []*Frame) (n int, more bool) {
	given := a.given
	for _, f := range frames {
		switch {
		case f.is(tellsGap) && (given > 0 || a.begun), f.published() && given == a.limit:
			return n, true
		case f.published():
			given++
		case f.is(tellsGap):
			a.resume = ResumeGap
		}
		n++
	}
	return n, false
}

// sendAnswer hands over what comes next of an answer.
func (s *shard) sendAnswer(c *Client, frames []*Frame, end error) (taken int, ready bool) {
	a := c.answer
	fit, more := a.fit(frames)
	if more {
		end = ErrAnswered
	}
	formed, last, given := s.formed[:0], a.last, a.given
	if !a.begun {
		formed = append(formed, a.head())
	}
	before := len(formed)
	for _, f := range frames[:fit] {
		if id := f.lastID(); id != "" {
			last = id
		}
		if f.published() {
			form := nextElement
			if given == 0 {
				form = element
			}
			formed = append(formed, s.renderings.one(rendering{f, form, c.by(f)}))
			given++
		}
	}
	if end != nil {
		formed = append(formed, tail(given, last, more))
	}
	s.formed = formed
	n := before
	if ready = true; len(formed) > before {
		n, ready = c.stream.Send(formed, end)
		a.begun = a.begun || n > 0
	}
	all := n == len(formed)
	if n >= before {
		taken = a.took(frames[:fit], n-before, all)
	}
	switch a.over = end != nil && all; {
	case more:
		c.over = a.over
	case end == nil && (a.given > 0 || a.resume == ResumeGap):
		s.conclude(c)
	}
	return taken, ready
}

// took notes that the stream took so many messages of these frames, or all. It returns how many of the frames that is.
func (a *answer) took(frames []*Frame, messages int, all bool) (taken int) {
	for _, f := range frames {
		if f.published() {
			if messages == 0 && !all {
				break
			}
			messages--
			a.given++
		}
		if id := f.lastID(); id != "" {
			a.last = id
		}
		taken++
	}
	return taken
}

// isOpen reports whether there is an answer that has not ended.
func (a *answer) isOpen() bool { return a != nil && !a.over }

// conclude ends a poll behind what has been published by now. It goes on from there. While another log is being read,
// of which it has not been told yet, it goes on from where it has come in the one before, and is told then.
func (s *shard) conclude(c *Client) {
	s.appoint(c, 0)
	h := s.hub
	e := &ending{cause: ErrAnswered}
	h.mu.Lock()
	if h.restoring {
		e.until = h.begin
	} else {
		e.until, e.frames = h.frames.next, []*Frame{control([]byte("id: " + h.lastIDLocked() + "\n\n"))}
	}
	h.mu.Unlock()
	s.end(c, e)
}

// id returns the ID that a frame tells; empty if it tells none.
func (f *Frame) id() string {
	rest, ok := strings.CutPrefix(f.Block(), "id: ")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, "\n")
	return id
}
