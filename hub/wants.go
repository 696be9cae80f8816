package hub

import (
	"slices"

	"github.com/caddy-sse/caddy-sse/topic"
)

// wants is what a client may get of the past.
type wants struct {
	addresses []Address
	patterns  []string   // of topics; with selectors, those that cover what their templates match, and more
	selectors *Selectors // nil if the patterns say all
	private   bool       // private messages as well, those that it is granted
}

// wants returns what the client may get of the past.
func (c *Client) wants() wants {
	w := wants{addresses: c.addresses(), patterns: c.patterns, selectors: c.Selectors, private: c.Granted != nil}
	if len(c.wide) > 0 {
		w.patterns = c.wide
	}
	return w
}

// kinds returns the kinds of topics that may be wanted.
func (w *wants) kinds() []Kind {
	if w.private {
		return []Kind{ToTopic, ToPrivate}
	}
	return []Kind{ToTopic}
}

// covers reports whether a topic is wanted, though perhaps not by its name.
func (w *wants) covers(a *Address) bool {
	switch {
	case !slices.Contains(w.kinds(), a.Kind):
		return false
	case w.selectors != nil:
		return w.selectors.Match(a.Name)
	}
	return topic.Covered(w.patterns, a.Name)
}
