package hub

import (
	"encoding/hex"
	"hash/fnv"
	"slices"
	"sort"
	"strings"
)

// Clients with Selectors know a message by the ID that its publisher chose, or else by its position as a URN. What they
// bring back is a cursor: either of these.

// earliest is the cursor before all that is kept.
const earliest = "earliest"

const urnPrefix = "urn:uuid:"

// What a URN has of an ID, in bits: of a hash of the epoch, of the position's Major and of its Minor.
const (
	epochBits = 42
	majorBits = 56
	minorBits = 24
)

// URN returns the ID as a UUID of version 8 (RFC 9562). Any instance, also after a restart, finds the position by it
// without a table.
func (id ID) URN() string {
	epoch, major, minor := hashOfEpoch(id.Epoch), id.Position.Major, id.Position.Minor
	var b [16]byte
	put := func(from, until int, n uint64) { // big-endian
		for i := until - 1; i >= from; i-- {
			b[i] = byte(n)
			n >>= 8
		}
	}
	put(0, 6, epoch<<6|major>>50&0x3f)
	put(6, 8, 8<<12|major>>38&0xfff)
	put(8, 16, 2<<62|major&(1<<38-1)<<minorBits|minor&(1<<minorBits-1))
	h := hex.EncodeToString(b[:])
	return urnPrefix + h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// hashOfEpoch returns what stands in a URN for an epoch.
func hashOfEpoch(epoch string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(epoch)) // never fails
	return h.Sum64() >> (64 - epochBits)
}

// parseURN reads what URN wrote.
func parseURN(s string) (epoch uint64, p Position, ok bool) {
	text, isURN := strings.CutPrefix(s, urnPrefix)
	if !isURN || len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return 0, Position{}, false
	}
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 || b[6]>>4 != 8 || b[8]>>6 != 2 {
		return 0, Position{}, false
	}
	number := func(from, until int) (n uint64) {
		for _, c := range b[from:until] {
			n = n<<8 | uint64(c)
		}
		return n
	}
	first, second, third := number(0, 6), number(6, 8)&0xfff, number(8, 16)&(1<<62-1)
	p.Major = (first&0x3f)<<50 | second<<38 | third>>minorBits
	p.Minor = third & (1<<minorBits - 1)
	return first >> 6, p, true
}

// cursorLocked returns the position of a cursor of this log; ok is false if the hub does not know it. If the cursor is
// that of several messages the oldest counts: a publisher who chooses the ID of another message sends nobody ahead.
func (h *Hub) cursorLocked(cursor string) (p Position, ok bool) {
	if frames := h.chosen[cursor]; len(frames) > 0 {
		p, ok = frames[0].position, true
	}
	if epoch, at, isURN := parseURN(cursor); isURN && epoch == hashOfEpoch(h.epoch) && h.gaveLocked(ID{h.epoch, at}) {
		if !ok || p.After(at) {
			p, ok = at, true
		}
	}
	return p, ok
}

// chosenID returns the ID that the publisher chose; empty if it chose none.
func (f *Frame) chosenID() string {
	if f.more == nil {
		return ""
	}
	return f.more.chosen
}

// urn returns the ID by which clients with Selectors know a frame; empty if it has none.
func (f *Frame) urn() string {
	if chosen := f.chosenID(); chosen != "" {
		return chosen
	}
	if id, ok := ParseID(f.id()); ok {
		return id.URN()
	}
	return ""
}

// rememberLocked has a frame found by the ID that its publisher chose.
func (h *Hub) rememberLocked(f *Frame) {
	if id := f.chosenID(); id != "" {
		h.chosen[id] = append(h.chosen[id], f)
	}
}

// forgetChosenLocked forgets a frame that is gone from the log in memory.
func (h *Hub) forgetChosenLocked(f *Frame) {
	id := f.chosenID()
	if id == "" {
		return
	}
	frames := h.chosen[id]
	i := sort.Search(len(frames), func(i int) bool { return frames[i].seq >= f.seq })
	switch {
	case i == len(frames) || frames[i] != f: // of another log
	case len(frames) == 1:
		delete(h.chosen, id)
	case i == 0:
		frames[0] = nil
		h.chosen[id] = frames[1:]
	default:
		h.chosen[id] = slices.Delete(frames, i, i+1)
	}
}
