package sse

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/internal/option"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("sse_resume", parseResume)
	httpcaddyfile.RegisterDirectiveOrder("sse_resume", httpcaddyfile.Before, "handle")
}

// parseResume sets up the handler from the directive "sse_resume". See Resume.UnmarshalCaddyfile.
func parseResume(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Resume)
	defined := func(hub string) error { return checkHubDefined(h, hub) }
	if err := handler.unmarshalCaddyfile(h.Dispenser, defined); err != nil {
		return nil, err
	}
	return handler, nil
}

// UnmarshalCaddyfile sets the handler up. Syntax:
//
//	sse_resume [<matcher>] {
//		hub        <name>
//		bind       <value> | none
//		key        <value>
//		name       <value> | json <field>
//		lookup     <path with one *> | <value>
//		ids        replace
//		on_abandon cancel <duration> | finish
//		ttl        <duration>
//		max_time   <duration>
//		max_bytes  <size>
//		max_total  <size>
//		max_live   <number>
//		max_body   <size>
//		heartbeat  <duration> | off
//	}
func (h *Resume) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return h.unmarshalCaddyfile(d)
}

// unmarshalCaddyfile is UnmarshalCaddyfile with further checks of the hub's name.
func (h *Resume) unmarshalCaddyfile(d *caddyfile.Dispenser, checks ...func(hub string) error) error {
	d.Next() // the directive's name
	at := option.Positions{"": d.Token()}
	checks = append([]func(string) error{checkHubName}, checks...)
	if d.NextArg() {
		return d.Errf("sse_resume takes a matcher and a block, not %q", d.Val())
	}
	if err := at.Block(d, "", h.caddyfileOptions(checks...)); err != nil {
		return err
	}
	return at.Locate(h.Validate())
}

func (h *Resume) caddyfileOptions(checks ...func(hub string) error) map[string]option.Option {
	return map[string]option.Option{
		"hub":        option.Word("<name>", &h.Hub, checks...),
		"bind":       option.Word("<value> | none", &h.Bind, option.CheckNotEmpty),
		"key":        option.Word("<value>", &h.Key, option.CheckNotEmpty),
		"name":       {Takes: "<value> | json <field>", Read: h.unmarshalName},
		"lookup":     option.Word("<path with one *> | <value>", &h.Lookup, option.CheckNotEmpty),
		"ids":        option.Word("replace", &h.IDs, option.CheckNotEmpty),
		"on_abandon": {Takes: "cancel <duration> | finish", Read: h.unmarshalAbandon},
		"ttl":        option.Duration(&h.TTL, option.Positive),
		"max_time":   option.Duration(&h.MaxTime, option.Positive),
		"max_bytes":  option.Bytes(&h.MaxBytes),
		"max_total":  option.Bytes(&h.MaxTotal),
		"max_live":   option.Number(&h.MaxLive, 1),
		"max_body":   option.Bytes(&h.MaxBody),
		"heartbeat":  option.Duration(&h.Heartbeat, option.OffAllowed),
	}
}

func (h *Resume) unmarshalName(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 1 && args[0] != "json" && args[0] != "":
		h.Name = args[0]
	case len(args) == 2 && args[0] == "json" && args[1] != "":
		h.Name = jsonName + args[1]
	default:
		return option.ErrArguments
	}
	return nil
}

func (h *Resume) unmarshalAbandon(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 1 && args[0] == "finish":
		h.OnAbandon = -1
		return nil
	case len(args) != 2 || args[0] != "cancel":
		return option.ErrArguments
	}
	after, err := caddy.ParseDuration(args[1])
	if err != nil || after <= 0 {
		return d.Errf("on_abandon: %q is not a duration of more than 0, such as 60s", args[1])
	}
	h.OnAbandon = caddy.Duration(after)
	return nil
}

// lookup finds out whether a request asks by name.
type lookup struct {
	value          string // with placeholders; or
	prefix, suffix string // of a path
}

func newLookup(text string) lookup {
	if len(option.Placeholders(text)) > 0 {
		return lookup{value: text}
	}
	prefix, suffix, _ := strings.Cut(text, "*")
	return lookup{prefix: prefix, suffix: suffix}
}

// checkLookup refuses what is neither a placeholder nor a path with one segment to fill in.
func checkLookup(text string) error {
	if text == "" || len(option.Placeholders(text)) > 0 {
		return nil
	}
	prefix, suffix, starred := strings.Cut(text, "*")
	switch {
	case !strings.HasPrefix(text, "/") || !starred:
		return option.Wrong("lookup", "it is neither a path with one * such as /api/chat/*/stream, "+
			"nor a placeholder such as {query.runId}")
	case strings.Contains(suffix, "*"):
		return option.Wrong("lookup", "it has more than one *; one stands for the name")
	case !strings.HasSuffix(prefix, "/") || (suffix != "" && !strings.HasPrefix(suffix, "/")):
		return option.Wrong("lookup", "the * stands for a whole segment of the path, between slashes")
	}
	return nil
}

// name returns the name that a request asks by; empty for none.
func (l lookup) name(path string, fill func(string) string) string {
	if l.value != "" {
		return fill(l.value)
	}
	rest, ok := strings.CutPrefix(path, l.prefix)
	name, ok2 := strings.CutSuffix(rest, l.suffix)
	if l.prefix == "" || !ok || !ok2 || strings.Contains(name, "/") {
		return ""
	}
	return name
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Resume)(nil)
