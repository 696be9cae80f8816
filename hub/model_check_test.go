package hub_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-sse/caddy-sse/hub"
)

// This file is what the model holds against a hub: what each client was told.

// hear takes down what came on a client's stream.
func (g *model) hear(c *played) {
	for _, e := range c.Events() {
		reason, isGap := strings.CutPrefix(e.Text, `gap {"reason":"`)
		if isGap {
			c.told = append(c.told, told{-1, strings.TrimSuffix(reason, `"}`), e.ID, len(g.said)})
			continue
		}
		if e.Text == `closed {"status":"closed"}` {
			continue
		}
		number, err := strconv.Atoi(strings.TrimRight(e.Text, "."))
		if err != nil {
			g.t.Errorf("a client was told %q", e.Text)
		}
		c.told = append(c.told, told{number: number, id: e.ID, by: len(g.said)})
		if id, ok := hub.ParseID(e.ID); ok && g.isHeld(g.said[number]) && c.joined <= number {
			g.leftAt[number] = id.Position.Major
		}
	}
	c.ended = c.ended || c.End() != nil || c.Aborts() > 0
}

// check holds what a client was told against all that was said.
func (g *model) check(c *played) {
	g.hear(c)
	fail := func(format string, args ...any) {
		g.t.Errorf("client %d (%v, %v as %q/%q, resumed %q by %q at %q, %s, joined at %d from %d): %s; it was told %v",
			c.Serial(), c.sub.Topics, c.sub.Patterns, c.sub.ClientID, c.sub.User, c.Resume, c.LastEventID, c.Welcome.ID,
			c.sub.SlowClient, c.joined, c.start, fmt.Sprintf(format, args...), c.told)
	}
	last, _ := hub.ParseID(c.Welcome.ID)
	next, excused := c.start, 0 // what was said before excused may be missing
	epoch, losses := last.Epoch, g.losses-c.losses
	values, held := make(map[string]int), hub.Topics(heldTopic)[0]
	for _, e := range c.told {
		if id, ok := hub.ParseID(e.id); ok {
			if id.Epoch == last.Epoch && last.Position.After(id.Position) {
				fail("IDs run backwards at %v", e)
			}
			last = id
		}
		if e.number < 0 {
			excused, epoch = e.by, ""
			if e.reason != "broker_changed" {
				losses--
			}
			if c.healthy && losses < 0 {
				fail("it took everything and was told a gap that the log did not have")
			}
			continue
		}
		s := g.said[e.number]
		if g.holds && slices.Contains(s.to, held) {
			if newer, ok := values[valueOf(s)]; ok && newer >= e.number {
				fail("%d comes behind %d, a value as new", e.number, newer)
			}
			values[valueOf(s)] = e.number
		}
		if g.isHeld(s) {
			id, _ := hub.ParseID(e.id)
			switch {
			case c.cut > 0 && e.number >= c.cut:
				fail("%d was said after its end at %d", e.number, c.cut)
			case !c.listens(s.to):
				fail("%d is not for it", e.number)
			case !s.ephemeral && (id.Epoch != s.epoch || id.Position.Major < s.position) || s.ephemeral && e.id != "":
				fail("%d came as %q; it is %q", e.number, e.id, s.id)
			}
			continue
		}
		if e.number < next {
			fail("%d comes too late or again", e.number)
			return
		}
		switch {
		case c.cut > 0 && e.number >= c.cut:
			fail("%d was said after its end at %d", e.number, c.cut)
		case !c.listens(s.to):
			fail("%d is not for it", e.number)
		case g.hadPurged(c, s):
			fail("%d (to %v) had been purged when it came: %v", e.number, s.to, g.purges[:c.purges])
		case s.ephemeral && e.number < c.joined:
			fail("%d is ephemeral, from before it came", e.number)
		case s.id != e.id:
			fail("%d came as %q; it is %q", e.number, e.id, s.id)
		case epoch != "" && s.epoch != epoch:
			fail("%d is of another log, and no gap was told", e.number)
		}
		epoch = s.epoch
		g.missing(c, next, e.number, excused, e.by, fail)
		next = e.number + 1
	}
	if !c.left && !c.ended {
		g.missing(c, next, len(g.said), excused, len(g.said), fail)
		g.missingValues(c, values, excused, fail)
	}
}

// isHeld reports whether a message is one that leaves when its interval ends.
func (g *model) isHeld(s said) bool {
	return g.holds && len(s.to) == 1 && s.to[0] == hub.Topics(heldTopic)[0]
}

// valueOf tells values of heldTopic apart.
func valueOf(s said) string { return fmt.Sprint(s.key, s.ephemeral) }

// missingValues looks for the newest value of each key of heldTopic, if it was not told.
func (g *model) missingValues(c *played, values map[string]int, excused int, fail func(string, ...any)) {
	newest, now := make(map[string]said), g.hub.Position().Epoch
	for _, s := range g.said {
		if slices.Contains(s.to, hub.Topics(heldTopic)[0]) && !s.ephemeral && s.epoch == now {
			newest[s.key] = s
		}
	}
	id, _ := hub.ParseID(c.Welcome.ID)
	for _, s := range newest {
		told, ok := values[valueOf(s)]
		switch {
		case !g.isHeld(s), !c.listens(s.to), s.number < excused, ok && told == s.number, c.cut > 0 && s.number >= c.cut:
		case s.number < c.joined && (c.Resume != hub.ResumeComplete || g.trouble && id.Epoch != now):
		case s.number < c.joined && s.position <= id.Position.Major &&
			(g.leftAt[s.number] < id.Position.Major || g.leftAt[s.number] == s.position): // it may have had it
		default:
			fail("the newest value %d of %q, told at %d, did not come", s.number, s.key, g.leftAt[s.number])
		}
	}
}

// gaveWay reports whether a message may be left out because a newer one of the same topic and key comes.
func (g *model) gaveWay(c *played, s said) bool {
	if s.ephemeral || len(s.to) > 1 || s.to[0].Kind != hub.ToTopic || !slices.Contains(conflatedTopics, s.to[0].Name) {
		return false
	}
	return slices.ContainsFunc(g.said[s.number+1:], func(newer said) bool {
		return !newer.ephemeral && newer.epoch == s.epoch && newer.key == s.key && slices.Contains(newer.to, s.to[0]) &&
			(c.cut == 0 || newer.number < c.cut)
	})
}

// crowdedOut reports whether an ephemeral message may be left out because more of them waited than a client's queue
// holds, while it was catching up: of what had been said by then.
func (g *model) crowdedOut(c *played, s said, by int) bool {
	waited := 0
	for _, other := range g.said[s.number:by] {
		if other.ephemeral && c.listens(other.to) {
			waited++
		}
	}
	return c.Resume != hub.ResumeNone && waited > c.sub.Queue
}

// missing looks for what was for a client and did not come, of what had been said by then.
func (g *model) missing(c *played, from, until, excused, by int, fail func(string, ...any)) {
	now := g.hub.Position().Epoch
	for _, s := range g.said[from:until] {
		switch {
		case !c.listens(s.to), s.number < excused, g.gaveWay(c, s), g.isHeld(s), // see missingValues
			s.ephemeral && (s.number < c.joined || !c.healthy || g.crowdedOut(c, s, by)),
			c.Resume == hub.ResumeGap && s.number < c.joined:
		case s.epoch != now && g.trouble && s.number < c.joined: // of a log that it did not come to
		default:
			fail("%d (to %v, ephemeral %v) did not come; healthy %v", s.number, s.to, s.ephemeral, c.healthy)
			return
		}
	}
}
