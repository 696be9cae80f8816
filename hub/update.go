package hub

import "strings"

// This file is the form Updates: server-sent events as the Mercure protocol has them. Its clients take whatever has data
// for an update, and an empty line for one without data. So the hub tells them nothing, but when to come back.

// update returns a frame as a block of this form.
func (f *Frame) update() []byte {
	block := f.Block()
	switch {
	case f.published() || f.is(tellsGap):
	case strings.HasPrefix(block, "retry: "):
		return []byte(":\n" + block)
	default:
		return []byte(":\n")
	}
	if strings.HasPrefix(block, "id: ") {
		_, block, _ = strings.Cut(block, "\n")
	}
	data := 0
	for _, name := range []string{"event: ", "retry: "} {
		if strings.HasPrefix(block[data:], name) {
			data += strings.IndexByte(block[data:], '\n') + 1
		}
	}
	id := f.urn()
	b := make([]byte, 0, len(block)+len("id: \n")+len(id))
	b = append(b, block[:data]...)
	if id != "" {
		b = append(append(append(b, "id: "...), id...), '\n')
	}
	return append(b, block[data:]...)
}

// sendUpdates hands over what comes next in this form. A gap ends the stream, unless the client is told of it: when it
// comes back it reads in the answer's header that there is one.
func (s *shard) sendUpdates(c *Client, frames []*Frame, end error) (taken int, ready bool) {
	lossy := false
	if !c.GapEvents {
		for i, f := range frames {
			if f.is(tellsGap) {
				frames, end, lossy = frames[:i], ErrLossy, true
				break
			}
		}
	}
	s.formed = s.renderings.of(s.formed[:0], frames, c.Form, c)
	taken, ready = c.stream.Send(s.formed, end)
	c.over = c.over || lossy && taken == len(frames)
	return taken, ready
}
