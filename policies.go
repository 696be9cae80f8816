package sse

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/topic"
)

// TopicConfig says what holds for the topics that a pattern covers, instead of what holds for the hub.
type TopicConfig struct {
	// The topic, or the pattern of topics. Required.
	Pattern string `json:"pattern"`
	// The number of messages kept for each of these topics. Default: as many as the hub keeps; negative: none.
	HistoryCount int `json:"history_count,omitempty"`
	// Whether the newest message of each topic, and of each key in it, is kept, whatever else is published; and
	// nothing else. Default: false.
	HistoryLatest bool `json:"history_latest,omitempty"`
	// The time a message is kept. It needs history_count or history_latest beside it. Default: as long as the hub
	// keeps messages; with history_latest without limit.
	HistoryAge caddy.Duration `json:"history_age,omitempty"`
	// Whether a message that waits for a slow client gives way to a newer one of the same topic and key. Default:
	// false.
	Conflate bool `json:"conflate,omitempty"`
	// The time in which at most one message of a topic and key leaves the hub: the first at once, then the newest. It
	// needs conflate beside it. Default: 0, without limit.
	ConflateInterval caddy.Duration `json:"conflate_interval,omitempty"`
	// Whether the subscribers of such a topic are told who else is there. Default: false.
	Presence bool `json:"presence,omitempty"`
}

// unmarshalTopic reads what holds for some topics.
func (c *HubConfig) unmarshalTopic(d *caddyfile.Dispenser) error {
	t := new(TopicConfig)
	if err := option.ReadWord(d, &t.Pattern); err != nil {
		return err
	}
	if err := checkTopicConfigs(append(c.Topics, t)); err != nil {
		return d.Errf("topic: %w", err)
	}
	c.Topics = append(c.Topics, t)
	at := make(option.Positions)
	options := t.caddyfileOptions()
	option.AddMisplaced(options, "the block around this one", namesOf(c.caddyfileOptions())...)
	if err := at.Block(d, "", options); err != nil {
		return err
	}
	if len(at) == 0 {
		return d.Errf("topic: say what holds for %s, in a block: %s", t.Pattern,
			"{ history ... }, { conflate ... } or { presence ... }")
	}
	return nil
}

// caddyfileOptions are the options of a topic's block.
func (t *TopicConfig) caddyfileOptions() map[string]option.Option {
	return map[string]option.Option{
		"history":  {Takes: "<messages> [<age>] | latest [<age>] | off", Read: t.unmarshalHistory},
		"conflate": {Takes: "on | <interval> | off", Read: t.unmarshalConflate},
		"presence": {Takes: "on | off", Read: t.unmarshalPresence},
	}
}

// unmarshalHistory reads a number of messages, or latest, perhaps with an age, or off.
func (t *TopicConfig) unmarshalHistory(d *caddyfile.Dispenser) (err error) {
	args := d.RemainingArgs()
	switch {
	case len(args) == 1 && args[0] == "off":
		t.HistoryCount = -1
	case len(args) == 1 && args[0] == "latest":
		t.HistoryLatest = true
	case len(args) == 2 && args[0] == "latest":
		t.HistoryLatest = true
		t.HistoryAge, err = readAge(d, args[1])
	default:
		return readHistory(d, args, "nor latest or off", &t.HistoryCount, &t.HistoryAge)
	}
	return err
}

// unmarshalConflate reads on, off, or an interval.
func (t *TopicConfig) unmarshalConflate(d *caddyfile.Dispenser) error {
	var word string
	if err := option.ReadWord(d, &word); err != nil {
		return err
	}
	t.Conflate = word != "off"
	if word == "on" || word == "off" {
		return nil
	}
	every, err := caddy.ParseDuration(word)
	if err != nil {
		return d.Errf("conflate: %q is neither on, off nor an interval like 200ms", word)
	}
	if err := checkInterval(every); err != nil {
		return d.Errf("conflate: %w", err)
	}
	t.ConflateInterval = caddy.Duration(every)
	return nil
}

func (t *TopicConfig) unmarshalPresence(d *caddyfile.Dispenser) error {
	var on *bool
	if err := option.OnOff(&on).Read(d); err != nil {
		return err
	}
	t.Presence = *on
	return nil
}

// checkTopicConfigs refuses topics that can't have rules of their own, and rules that make no sense.
func checkTopicConfigs(topics []*TopicConfig) error {
	seen := make(map[string]bool)
	for _, t := range topics {
		if t == nil {
			return errors.New("one is null; give each a pattern")
		}
		if _, rest, opened := strings.Cut(t.Pattern, "{"); opened && strings.Contains(rest, "}") {
			return fmt.Errorf("%s has a placeholder; here topics and patterns stand as they are", t.Pattern)
		}
		if err := topic.CheckPattern(t.Pattern); err != nil {
			return err
		}
		if seen[t.Pattern] {
			return fmt.Errorf("%q is there twice; what holds for it stands in one block", t.Pattern)
		}
		seen[t.Pattern] = true
		if err := t.check(); err != nil {
			return fmt.Errorf("%s: %w", t.Pattern, err)
		}
	}
	return nil
}

// check refuses rules that make no sense, which a Caddyfile can't say.
func (t *TopicConfig) check() error {
	if err := option.CheckDuration(t.HistoryAge); err != nil {
		return fmt.Errorf("history_age: %w", err)
	}
	if t.HistoryAge < 0 {
		return errors.New("history_age must be more than 0")
	}
	if t.ConflateInterval != 0 {
		if err := checkInterval(time.Duration(t.ConflateInterval)); err != nil {
			return fmt.Errorf("conflate_interval: %w", err)
		}
		if !t.Conflate {
			return errors.New("conflate_interval needs conflate beside it")
		}
	}
	switch {
	case t.HistoryLatest && t.HistoryCount != 0:
		return errors.New("history_latest and history_count exclude each other; give one of them")
	case t.HistoryAge > 0 && !t.HistoryLatest && t.HistoryCount <= 0:
		return errors.New("history_age needs history_count or history_latest beside it")
	}
	return nil
}

// checkInterval refuses intervals in which no value is held, or in which it is forgotten.
func checkInterval(every time.Duration) error {
	if every < time.Millisecond || every > 24*time.Hour {
		return fmt.Errorf("an interval lies between 1ms and 24h; %s does not", every)
	}
	return nil
}

// policies are the rules for some topics as the hub takes them.
func (c *HubConfig) policies() (policies []hub.Policy) {
	for _, t := range c.Topics {
		p := hub.Policy{
			Pattern:  t.Pattern,
			Conflate: t.Conflate,
			Interval: time.Duration(t.ConflateInterval),
			Presence: t.Presence,
		}
		switch {
		case t.HistoryLatest:
			p.History = &hub.Retention{Latest: true, Age: time.Duration(t.HistoryAge)}
		case t.HistoryCount != 0:
			p.History = &hub.Retention{Count: max(0, t.HistoryCount), Age: time.Duration(t.HistoryAge)}
			option.Default(&p.History.Age, time.Duration(c.HistoryAge))
		}
		policies = append(policies, p)
	}
	return policies
}

// policySummary is what operators see of the rules for some topics, in the words of a Caddyfile.
type policySummary struct {
	Topic    string `json:"topic"`
	History  string `json:"history,omitempty"` // empty: as much as the hub keeps
	Conflate string `json:"conflate,omitempty"`
	Presence string `json:"presence,omitempty"`
}

func summarizePolicies(policies []hub.Policy) []policySummary {
	all := make([]policySummary, len(policies))
	for i, p := range policies {
		all[i].Topic = p.Pattern
		switch kept := p.History; {
		case kept == nil:
		case kept.Latest:
			all[i].History = "latest" + ageSuffix(kept.Age)
		case kept.Count == 0:
			all[i].History = "off"
		default:
			all[i].History = strconv.Itoa(kept.Count) + ageSuffix(kept.Age)
		}
		switch {
		case p.Interval > 0:
			all[i].Conflate = shortly(p.Interval)
		case p.Conflate:
			all[i].Conflate = "on"
		}
		if p.Presence {
			all[i].Presence = "on"
		}
	}
	return all
}

func ageSuffix(age time.Duration) string {
	if age == 0 {
		return ""
	}
	return " " + shortly(age)
}

// shortly writes a duration without the zeros at its end.
func shortly(d time.Duration) string {
	text := d.String()
	for _, end := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, end) {
			text = text[:len(text)-2]
		}
	}
	return text
}
