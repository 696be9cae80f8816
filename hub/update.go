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
	_, block = cutLine(block, "id: ")
	retry, block := cutLine(block, "retry: ")
	event, block := cutLine(block, "event: ")
	b := make([]byte, 0, f.size()+len(f.chosenID())+64)
	b = append(append(b, event...), retry...)
	if id := f.urn(); id != "" {
		b = append(append(append(b, "id: "...), id...), '\n')
	}
	return append(b, block...)
}

// cutLine cuts the first line off a block, if it is of a field.
func cutLine(block, field string) (line, rest string) {
	if !strings.HasPrefix(block, field) {
		return "", block
	}
	end := strings.IndexByte(block, '\n') + 1
	return block[:end], block[end:]
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
	taken, ready = s.hand(c, s.formed, end)
	c.over = c.over || lossy && taken == len(frames) && !c.coding.lacksTrailer(end)
	return taken, ready
}
