package sse

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("sse", parseGlobalOption)
	httpcaddyfile.RegisterHandlerDirective("sse", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("sse", httpcaddyfile.Before, "respond")
}

// option reads the arguments of one Caddyfile option into its field.
type option func(d *caddyfile.Dispenser) error

// readBlock reads the options of a block, each at most once but those in repeatable.
func readBlock(d *caddyfile.Dispenser, options map[string]option, repeatable ...string) error {
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		read, known := options[name]
		if !known {
			return d.Errf("unknown option %q; the options here are %s", name, namesOf(options))
		}
		if seen[name] && !slices.Contains(repeatable, name) {
			return d.Errf("option %q is there twice", name)
		}
		seen[name] = true
		if err := read(d); err != nil {
			return err
		}
	}
	return nil
}

func namesOf(options map[string]option) string {
	return strings.Join(slices.Sorted(maps.Keys(options)), ", ")
}

// parseGlobalOption sets up the app from the global option "sse". See App.UnmarshalCaddyfile.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		return nil, d.Err("the global option sse is there twice")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "sse", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the hubs. Syntax:
//
//	sse {
//		<options of the hub "default">
//		hub <name> {
//			<options>
//		}
//	}
//
// where the options of a hub are
//
//	broker        memory | bolt <file> { ... } | redis <url...> { ... }
//	history       <messages> [<age>] | off
//	history_bytes <size>
//	max_clients   <number>
//	drain_spread  <duration>
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if d.NextArg() {
		return d.ArgErr()
	}
	standard := new(HubConfig)
	a.Hubs = map[string]*HubConfig{defaultHub: standard}
	options := standard.options()
	options["hub"] = a.unmarshalHub
	return readBlock(d, options, "hub")
}

func (a *App) unmarshalHub(d *caddyfile.Dispenser) error {
	var name string
	if !d.Args(&name) || d.NextArg() {
		return d.ArgErr()
	}
	if a.Hubs[name] != nil {
		return d.Errf("hub %q is already defined; the options of %q stand in the sse block itself", name, defaultHub)
	}
	hub := new(HubConfig)
	a.Hubs[name] = hub
	return readBlock(d, hub.options())
}

func (c *HubConfig) options() map[string]option {
	return map[string]option{
		"broker":        c.unmarshalBroker,
		"history":       c.unmarshalHistory,
		"history_bytes": bytesOption(&c.HistoryBytes),
		"max_clients":   numberOption(&c.MaxClients, 0),
		"drain_spread":  durationOption(&c.DrainSpread, zeroIsOff),
	}
}

func (c *HubConfig) unmarshalBroker(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	module, err := caddyfile.UnmarshalModule(d, "sse.brokers."+name)
	if err != nil {
		return err
	}
	c.BrokerRaw = caddyconfig.JSONModuleObject(module, "type", name, nil)
	return nil
}

// UnmarshalCaddyfile sets the broker up. Syntax:
//
//	broker memory
func (*MemoryBroker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the broker's name
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("broker memory has no options, not even %q", d.Val())
	}
	return nil
}

// UnmarshalCaddyfile sets the broker up. Syntax:
//
//	broker bolt <file> {
//		sync on | off
//	}
func (b *BoltBroker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the broker's name
	if !d.Args(&b.File) || d.NextArg() {
		return d.Err("broker bolt: give it one file, such as /var/lib/caddy/sse.db")
	}
	return readBlock(d, map[string]option{"sync": onOffOption(&b.Sync)})
}

// UnmarshalCaddyfile sets the broker up. Syntax:
//
//	broker redis <urls...> {
//		master_name              <name>
//		prefix                   <prefix>
//		channel                  <name>
//		username                 <name>
//		password                 <password>
//		sentinel_username        <name>
//		sentinel_password        <password>
//		max_len                  <messages>
//		timeout                  <duration>
//		tls_ca                   <file>
//		tls_cert                 <file>
//		tls_key                  <file>
//		tls_server_name          <name>
//		tls_insecure_skip_verify
//	}
func (b *RedisBroker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the broker's name
	if b.URLs = d.RemainingArgs(); len(b.URLs) == 0 {
		return d.Err("broker redis: give it a URL, such as redis://localhost:6379")
	}
	return readBlock(d, map[string]option{
		"master_name":              wordOption(&b.MasterName),
		"prefix":                   wordOption(&b.Prefix),
		"channel":                  wordOption(&b.Channel),
		"username":                 wordOption(&b.Username),
		"password":                 wordOption(&b.Password),
		"sentinel_username":        wordOption(&b.SentinelUsername),
		"sentinel_password":        wordOption(&b.SentinelPassword),
		"max_len":                  numberOption(&b.MaxLen, 1),
		"timeout":                  durationOption(&b.Timeout, positive),
		"tls_ca":                   wordOption(&b.TLSCA),
		"tls_cert":                 wordOption(&b.TLSCert),
		"tls_key":                  wordOption(&b.TLSKey),
		"tls_server_name":          wordOption(&b.TLSServerName),
		"tls_insecure_skip_verify": flagOption(&b.TLSInsecureSkipVerify),
	})
}

func (c *HubConfig) unmarshalHistory(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 1 && args[0] == "off":
		c.HistoryCount = -1
		return nil
	case len(args) == 0 || len(args) > 2:
		return d.ArgErr()
	}
	count, err := strconv.Atoi(args[0])
	if err != nil || count < 1 {
		return d.Errf("history: %q is not a number of messages, 1 or more, nor off", args[0])
	}
	c.HistoryCount = count
	if len(args) == 2 {
		age, err := caddy.ParseDuration(args[1])
		if err != nil || age <= 0 {
			return d.Errf("history: %q is not an age such as 1h", args[1])
		}
		c.HistoryAge = caddy.Duration(age)
	}
	return nil
}

func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if err := checkHubDefined(h, handler.Hub); err != nil {
		return nil, err
	}
	return handler, nil
}

// checkHubDefined refuses a hub that the global options do not define, while the line is at hand.
func checkHubDefined(h httpcaddyfile.Helper, name string) error {
	if name == "" || name == defaultHub {
		return nil
	}
	var app App
	if global, ok := h.Option("sse").(httpcaddyfile.App); ok {
		if err := json.Unmarshal(global.Value, &app); err != nil {
			return h.Errf("reading the global option sse: %v", err)
		}
	}
	if app.Hubs[name] == nil {
		return h.Errf("hub %q is not defined; define it in the global options: { sse { hub %s } }", name, name)
	}
	return nil
}

// UnmarshalCaddyfile sets the handler up. Syntax:
//
//	sse [<matcher>] {
//		hub                <name>
//		topics             <topics...>
//		client_id          <value>
//		user               <value>
//		heartbeat          <duration> | off
//		retry              <duration>
//		idle_timeout       <duration> | off
//		max_age            <duration> | off
//		queue              <messages> [<size>]
//		slow_client        disconnect | drop_oldest
//		write_timeout      <duration>
//		max_clients_per_ip <number>
//		max_topics         <number>
//		connected_event    on | off
//		cors_origins       <origins...>
//		publish {
//			token     <tokens...>
//			open
//			topics    <topics...>
//			targets   client | user | broadcast ...
//			broadcast on | off
//			max_size  <size>
//			rate      <messages per second> [<burst>]
//		}
//		jwt {
//			key      <algorithm> <secret or public key> [<key ID>]
//			jwks     <address>
//			issuer   <iss>
//			audience <aud>
//			cookie   <name>
//			query    <name>
//			public   <topics...>
//		}
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	err := readBlock(d, map[string]option{
		"hub":                wordOption(&h.Hub),
		"topics":             wordsOption(&h.Topics),
		"client_id":          wordOption(&h.ClientID),
		"user":               wordOption(&h.User),
		"heartbeat":          durationOption(&h.Heartbeat, offAllowed),
		"retry":              durationOption(&h.Retry, zeroIsOff),
		"idle_timeout":       durationOption(&h.IdleTimeout, offIsDefault),
		"max_age":            durationOption(&h.MaxAge, offIsDefault),
		"queue":              h.unmarshalQueue,
		"slow_client":        h.unmarshalSlowClient,
		"write_timeout":      durationOption(&h.WriteTimeout, positive),
		"max_clients_per_ip": numberOption(&h.MaxClientsPerIP, 0),
		"max_topics":         numberOption(&h.MaxTopics, 1),
		"connected_event":    onOffOption(&h.ConnectedEvent),
		"cors_origins":       wordsOption(&h.CORSOrigins),
		"publish":            h.unmarshalPublish,
		"jwt":                h.unmarshalJWT,
	}, "topics", "cors_origins")
	if err != nil {
		return err
	}
	if err := h.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (h *Handler) unmarshalQueue(d *caddyfile.Dispenser) error {
	if err := numberOf(d, &h.QueueMessages, 1); err != nil {
		return err
	}
	if !d.NextArg() {
		return nil
	}
	size, err := sizeOf(d, "queue", d.Val())
	h.QueueBytes = int(size)
	if err == nil && d.NextArg() {
		return d.ArgErr()
	}
	return err
}

func (h *Handler) unmarshalSlowClient(d *caddyfile.Dispenser) error {
	return wordOption((*string)(&h.SlowClient))(d)
}

func (h *Handler) unmarshalPublish(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	p := new(PublishConfig)
	h.Publish = p
	return readBlock(d, map[string]option{
		"token":     wordsOption(&p.Tokens),
		"open":      flagOption(&p.Open),
		"topics":    wordsOption(&p.Topics),
		"targets":   wordsOption(&p.Targets),
		"broadcast": onOffOption(&p.Broadcast),
		"max_size":  bytesOption(&p.MaxSize),
		"rate":      p.unmarshalRate,
	}, "token", "topics", "targets")
}

func (h *Handler) unmarshalJWT(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	c := new(JWTConfig)
	h.JWT = c
	return readBlock(d, map[string]option{
		"key":      c.unmarshalKey,
		"jwks":     wordOption(&c.JWKS),
		"issuer":   wordOption(&c.Issuer),
		"audience": wordOption(&c.Audience),
		"cookie":   wordOption(&c.Cookie),
		"query":    wordOption(&c.Query),
		"public":   wordsOption(&c.Public),
	}, "key", "public")
}

func (c *JWTConfig) unmarshalKey(d *caddyfile.Dispenser) error {
	var k JWTKey
	args := d.RemainingArgs()
	switch len(args) {
	case 3:
		k.ID = args[2]
		fallthrough
	case 2:
		k.Algorithm, k.Key = args[0], args[1]
	default: // not ArgErr, which may name the secret
		return d.Err("key: give it an algorithm, the secret or public key, and if tokens name one, the key ID")
	}
	c.Keys = append(c.Keys, k)
	return nil
}

func (p *PublishConfig) unmarshalRate(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 2 {
		return d.ArgErr()
	}
	var err error
	if p.Rate, err = strconv.ParseFloat(args[0], 64); err != nil || !(p.Rate > 0) || math.IsInf(p.Rate, 0) {
		return d.Errf("rate: %q is not a number of messages per second, more than 0", args[0])
	}
	if len(args) == 2 {
		if p.Burst, err = strconv.Atoi(args[1]); err != nil || p.Burst < 1 {
			return d.Errf("rate: the burst %q is not a number of messages, 1 or more", args[1])
		}
	}
	return nil
}

// check refuses values and combinations that make no sense, before placeholders are replaced.
func (h *Handler) check() error {
	for _, topic := range h.Topics {
		if err := CheckPattern(topic); err != nil {
			return fmt.Errorf("topics: %w", err)
		}
		if isPattern(topic) && strings.Contains(topic, "{") {
			return fmt.Errorf("topics: %q has a wildcard and a placeholder; a topic may have one of them", topic)
		}
	}
	for _, origin := range h.CORSOrigins {
		if origin == "*" && len(h.CORSOrigins) > 1 {
			return errors.New("cors_origins: * stands alone; list origins to allow credentials, or use * for all without them")
		}
		if origin != "*" && !checkOrigin(origin) {
			return fmt.Errorf("cors_origins: %q is not an origin as browsers send it, such as https://app.example.com", origin)
		}
	}
	switch {
	case h.SlowClient != "" && h.SlowClient != Disconnect && h.SlowClient != DropOldest:
		return fmt.Errorf("slow_client: %q is neither disconnect nor drop_oldest", h.SlowClient)
	case h.QueueMessages < 0 || h.QueueBytes < 0:
		return errors.New("queue: give it 1 or more messages and bytes")
	case h.MaxTopics < 0 || h.MaxClientsPerIP < 0:
		return errors.New("max_topics and max_clients_per_ip can't be negative")
	case h.IdleTimeout < 0 || h.MaxAge < 0 || h.WriteTimeout < 0:
		return errors.New("idle_timeout, max_age and write_timeout can't be negative")
	}
	if h.JWT != nil {
		if err := h.JWT.check(); err != nil {
			return fmt.Errorf("jwt: %w", err)
		}
	}
	if h.Publish != nil {
		return h.Publish.check(!newTopicRules(h.Topics).asked)
	}
	return nil
}

func (p *PublishConfig) check(routeRestricted bool) error {
	for _, topic := range p.Topics {
		if err := CheckPattern(topic); err != nil {
			return fmt.Errorf("publish: topics: %w", err)
		}
	}
	for _, target := range p.Targets {
		if target != "client" && target != "user" && target != "broadcast" {
			return fmt.Errorf("publish: targets: %q is none of client, user and broadcast", target)
		}
	}
	restricted := routeRestricted || len(p.Topics) > 0
	broadcasts := slices.Contains(p.Targets, "broadcast")
	switch {
	case p.Open && len(p.Tokens) > 0:
		return errors.New("publish: open and token exclude each other; keep token unless other directives guard this route")
	case len(p.Targets) > 0 && !restricted:
		return errors.New("publish: targets is for routes restricted by topics; without topics all targets are allowed")
	case p.Broadcast != nil && *p.Broadcast && restricted && !broadcasts:
		return errors.New("publish: broadcast on a route restricted by topics is allowed by: targets broadcast")
	case p.Broadcast != nil && !*p.Broadcast && broadcasts:
		return errors.New("publish: broadcast off and targets broadcast contradict each other")
	case p.MaxSize < 0 || p.Rate < 0 || p.Burst < 0:
		return errors.New("publish: max_size and rate can't be negative")
	}
	return nil
}

func wordOption(field *string) option {
	return func(d *caddyfile.Dispenser) error {
		if !d.Args(field) || d.NextArg() {
			return d.ArgErr()
		}
		return nil
	}
}

func wordsOption(field *[]string) option {
	return func(d *caddyfile.Dispenser) error {
		words := d.RemainingArgs()
		if len(words) == 0 {
			return d.ArgErr()
		}
		*field = append(*field, words...)
		return nil
	}
}

func flagOption(field *bool) option {
	return func(d *caddyfile.Dispenser) error {
		if d.NextArg() {
			return d.ArgErr()
		}
		*field = true
		return nil
	}
}

func onOffOption(field **bool) option {
	return func(d *caddyfile.Dispenser) error {
		var word string
		if err := wordOption(&word)(d); err != nil {
			return err
		}
		on := word == "on"
		if !on && word != "off" {
			return d.Errf("%q is neither on nor off", word)
		}
		*field = &on
		return nil
	}
}

func numberOption(field *int, least int) option {
	return func(d *caddyfile.Dispenser) error {
		if err := numberOf(d, field, least); err != nil {
			return err
		}
		if d.NextArg() {
			return d.ArgErr()
		}
		return nil
	}
}

func numberOf(d *caddyfile.Dispenser, field *int, least int) error {
	name := d.Val()
	if !d.NextArg() {
		return d.ArgErr()
	}
	n, err := strconv.Atoi(d.Val())
	if err != nil || n < least {
		return d.Errf("%s: %q is not a whole number, %d or more", name, d.Val(), least)
	}
	*field = n
	return nil
}

// How an option of a duration takes what is no duration, and zero.
type durationRule uint8

const (
	positive     durationRule = iota // neither: it must be more than 0
	offAllowed                       // "off" is a negative duration in JSON
	offIsDefault                     // "off" is 0 in JSON, which is the default
	zeroIsOff                        // 0 is meant, and negative in JSON, where 0 is the default
)

func durationOption(field *caddy.Duration, rule durationRule) option {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var word string
		if err := wordOption(&word)(d); err != nil {
			return err
		}
		switch {
		case word == "off" && rule == offAllowed:
			*field = -1
			return nil
		case word == "off" && rule == offIsDefault:
			*field = 0
			return nil
		}
		duration, err := caddy.ParseDuration(word)
		if err == nil && duration == 0 && rule == zeroIsOff {
			*field = -1
			return nil
		}
		if err != nil || duration <= 0 {
			return d.Errf("%s: %q is not a duration such as %s%s", name, word, 30*time.Second, rule.alternative())
		}
		*field = caddy.Duration(duration)
		return nil
	}
}

func (r durationRule) alternative() string {
	if r == offAllowed || r == offIsDefault {
		return ", nor off"
	}
	return ""
}

func bytesOption[T int | int64](field *T) option {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var word string
		if err := wordOption(&word)(d); err != nil {
			return err
		}
		size, err := sizeOf(d, name, word)
		*field = T(size)
		return err
	}
}

func sizeOf(d *caddyfile.Dispenser, name, word string) (int64, error) {
	size, err := humanize.ParseBytes(word)
	if err != nil || size == 0 || size > math.MaxInt32*1024 {
		return 0, d.Errf("%s: %q is not a size such as 1MiB", name, word)
	}
	return int64(size), nil
}
