package sse

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/origin"
	"github.com/caddy-sse/caddy-sse/internal/token"
	"github.com/caddy-sse/caddy-sse/topic"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("sse", parseGlobalOption)
	httpcaddyfile.RegisterHandlerDirective("sse", parseDirective)
	// Each goes right before respond: the first ends up first.
	httpcaddyfile.RegisterDirectiveOrder("sse_health", httpcaddyfile.Before, "respond")
	httpcaddyfile.RegisterDirectiveOrder("sse", httpcaddyfile.Before, "respond")
}

// parseGlobalOption sets up the app from the global option "sse". See App.UnmarshalCaddyfile.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next()
		return nil, d.Err("the global option sse is there twice; its hubs stand in one block")
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
//	topic <pattern> {
//		history  <messages> [<age>] | latest [<age>] | off
//		conflate on | <interval> | off
//		presence on | off
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if d.NextArg() {
		return d.Errf("the global option sse takes a block, not %q", d.Val())
	}
	standard := new(HubConfig)
	a.Hubs = map[string]*HubConfig{defaultHub: standard}
	options := standard.caddyfileOptions()
	options["hub"] = option.Option{Takes: "<name> { ... }", Read: a.unmarshalHub}
	addMisplaced(options)
	return option.Block(d, options, "hub", "topic")
}

// unmarshalHub reads the definition of another hub.
func (a *App) unmarshalHub(d *caddyfile.Dispenser) error {
	var name string
	if err := option.ReadWord(d, &name); err != nil {
		return err
	}
	if err := checkHubName(name); err != nil {
		return d.Errf("hub: %w", err)
	}
	if a.Hubs[name] != nil {
		return d.Errf("hub %q is already defined; the options of %q stand in the sse block itself",
			name, defaultHub)
	}
	config := new(HubConfig)
	a.Hubs[name] = config
	options := config.caddyfileOptions()
	addMisplaced(options)
	return option.Block(d, options, "topic")
}

// addMisplaced adds where the options of routes and of some topics belong to the options of a hub.
func addMisplaced(options map[string]option.Option) {
	option.AddMisplaced(options, "the sse directive of a site: sse /events { ... }",
		namesOf(new(Handler).caddyfileOptions(nil))...)
	option.AddMisplaced(options, "topic <pattern> { ... }", namesOf(new(TopicConfig).caddyfileOptions())...)
}

func namesOf(options map[string]option.Option) []string { return slices.Collect(maps.Keys(options)) }

// caddyfileOptions are the options of a hub's block.
func (c *HubConfig) caddyfileOptions() map[string]option.Option {
	return map[string]option.Option{
		"broker":        {Takes: "memory | bolt <file> { ... } | redis <urls...> { ... }", Read: c.unmarshalBroker},
		"history":       {Takes: "<messages> [<age>] | off", Read: c.unmarshalHistory},
		"history_bytes": option.Bytes(&c.HistoryBytes),
		"max_clients":   option.Number(&c.MaxClients, 0),
		"drain_spread":  option.Duration(&c.DrainSpread, option.ZeroIsOff),
		"topic":         {Takes: "<pattern> { ... }", Read: c.unmarshalTopic},
	}
}

// unmarshalHistory reads a number of messages, perhaps with an age, or off.
func (c *HubConfig) unmarshalHistory(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 1 && args[0] == "off" {
		c.HistoryCount = -1
		return nil
	}
	return readHistory(d, args, "nor off", &c.HistoryCount, &c.HistoryAge)
}

// readHistory reads a number of messages, and an age if there is one. others says what might stand there instead.
func readHistory(
	d *caddyfile.Dispenser, args []string, others string, count *int, age *caddy.Duration,
) (err error) {
	if len(args) == 0 || len(args) > 2 {
		return option.ErrArguments
	}
	if *count, err = strconv.Atoi(args[0]); err != nil || *count < 1 {
		return d.Errf("history: %q is not a number of messages, 1 or more, %s", args[0], others)
	}
	if len(args) == 2 {
		*age, err = readAge(d, args[1])
	} else {
		err = nil
	}
	return err
}

// readAge reads how long messages are kept.
func readAge(d *caddyfile.Dispenser, word string) (caddy.Duration, error) {
	age, err := caddy.ParseDuration(word)
	if err != nil || age <= 0 {
		return 0, d.Errf("history: %q is not an age of more than 0, such as 1h", word)
	}
	if err := option.CheckDuration(caddy.Duration(age)); err != nil {
		return 0, d.Errf("history: %w", err)
	}
	return caddy.Duration(age), nil
}

// unmarshalBroker reads the name of a broker, and has its module read the rest.
func (c *HubConfig) unmarshalBroker(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return option.ErrArguments
	}
	name := d.Val()
	if _, err := caddy.GetModule("sse.brokers." + name); err != nil {
		return d.Errf("broker: %q is none of %s", name, brokerNames())
	}
	module, err := caddyfile.UnmarshalModule(d, "sse.brokers."+name)
	if err != nil {
		return err
	}
	c.BrokerRaw = caddyconfig.JSONModuleObject(module, "type", name, nil)
	return nil
}

func brokerNames() string {
	var names []string
	for _, module := range caddy.GetModules("sse.brokers") {
		names = append(names, module.ID.Name())
	}
	return strings.Join(names, ", ")
}

// UnmarshalCaddyfile sets the broker up. Syntax:
//
//	broker memory
func (*MemoryBroker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the broker's name
	if d.NextArg() || d.NextBlock(d.Nesting()) {
		return d.Errf("broker memory takes nothing further, not even %q", d.Val())
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
	if !d.Args(&b.File) || b.File == "" || d.NextArg() {
		return d.Err("broker bolt: give it one file, such as /var/lib/caddy/sse.db")
	}
	return option.Block(d, b.caddyfileOptions())
}

func (b *BoltBroker) caddyfileOptions() map[string]option.Option {
	return map[string]option.Option{"sync": option.OnOff(&b.Sync)}
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
	at := option.Positions{"": d.Token()}
	if err := at.Block(d, "", b.caddyfileOptions()); err != nil {
		return err
	}
	return at.Locate(b.Validate())
}

func (b *RedisBroker) caddyfileOptions() map[string]option.Option {
	return map[string]option.Option{
		"master_name":              option.Word("<name>", &b.MasterName, option.CheckNotEmpty),
		"prefix":                   option.Word("<prefix>", &b.Prefix, option.CheckNotEmpty),
		"channel":                  option.Word("<name>", &b.Channel, option.CheckNotEmpty),
		"username":                 option.Word("<name>", &b.Username, option.CheckNotEmpty),
		"password":                 option.Word("<password>", &b.Password, option.CheckNotEmpty),
		"sentinel_username":        option.Word("<name>", &b.SentinelUsername, option.CheckNotEmpty),
		"sentinel_password":        option.Word("<password>", &b.SentinelPassword, option.CheckNotEmpty),
		"max_len":                  option.Number(&b.MaxLen, 1),
		"timeout":                  option.Duration(&b.Timeout, option.Positive),
		"tls_ca":                   option.Word("<file>", &b.TLSCA, option.CheckNotEmpty),
		"tls_cert":                 option.Word("<file>", &b.TLSCert, option.CheckNotEmpty),
		"tls_key":                  option.Word("<file>", &b.TLSKey, option.CheckNotEmpty),
		"tls_server_name":          option.Word("<name>", &b.TLSServerName, option.CheckNotEmpty),
		"tls_insecure_skip_verify": option.Flag(&b.TLSInsecureSkipVerify),
	}
}

// parseDirective sets up a route from the directive "sse". See Handler.UnmarshalCaddyfile.
func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	defined := func(hub string) error { return checkHubDefined(h, hub) }
	if err := handler.unmarshalCaddyfile(h.Dispenser, defined); err != nil {
		return nil, err
	}
	return handler, nil
}

// checkHubDefined refuses a hub that the global options do not define.
func checkHubDefined(h httpcaddyfile.Helper, name string) error {
	if name == defaultHub {
		return nil
	}
	var app App
	if global, ok := h.Option("sse").(httpcaddyfile.App); ok {
		if err := json.Unmarshal(global.Value, &app); err != nil {
			return fmt.Errorf("reading the global option sse: %w", err)
		}
	}
	if app.Hubs[name] == nil {
		return notDefined(name)
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
//		info               <value>
//		heartbeat          <duration> | off
//		retry              <duration>, 100ms to 1h
//		idle_timeout       <duration> | off
//		max_age            <duration> | off
//		since              now | all | latest | -<messages> | <duration> | <time>
//		queue              <messages> [<size>]
//		slow_client        catch_up | disconnect | drop_oldest
//		write_timeout      <duration>
//		max_clients_per_ip <number>
//		max_topics         <number>
//		connected_event    on | off
//		cors_origins       <origins...>
//		direct_writes      on | off
//		compress           gzip | off
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
	return h.unmarshalCaddyfile(d)
}

// unmarshalCaddyfile is UnmarshalCaddyfile with further checks of the hub's name.
func (h *Handler) unmarshalCaddyfile(d *caddyfile.Dispenser, checks ...func(hub string) error) error {
	d.Next() // the directive's name
	at := option.Positions{"": d.Token()}
	checks = append([]func(string) error{checkHubName}, checks...)
	if d.NextArg() {
		return d.Errf("sse takes a matcher and a block, not %q", d.Val())
	}
	options := h.caddyfileOptions(at, checks...)
	option.AddMisplaced(options, "the global options, since routes share it: { sse { ... } }",
		namesOf(new(HubConfig).caddyfileOptions())...)
	option.AddMisplaced(options, "publish { ... }", namesOf(new(PublishConfig).caddyfileOptions())...)
	option.AddMisplaced(options, "jwt { ... }", namesOf(new(JWTConfig).caddyfileOptions())...)
	if err := at.Block(d, "", options, "topics", "cors_origins"); err != nil {
		return err
	}
	return at.Locate(h.Validate())
}

// caddyfileOptions are the options of a route's block. The blocks in it note where their options stand.
func (h *Handler) caddyfileOptions(
	at option.Positions, checks ...func(hub string) error,
) map[string]option.Option {
	block := func(read func(*caddyfile.Dispenser, option.Positions) error) option.Option {
		return option.Option{Takes: "{ ... }", Read: func(d *caddyfile.Dispenser) error { return read(d, at) }}
	}
	return map[string]option.Option{
		"hub":                option.Word("<name>", &h.Hub, checks...),
		"topics":             option.Words("<topics...>", &h.Topics, checkRouteTopic),
		"client_id":          option.Word("<value>", &h.ClientID, checkClientID),
		"user":               option.Word("<value>", &h.User, checkUser),
		"info":               option.Word("<value>", &h.Info, option.CheckNotEmpty),
		"heartbeat":          option.Duration(&h.Heartbeat, option.OffAllowed),
		"retry":              option.Duration(&h.Retry, option.Positive),
		"idle_timeout":       option.Duration(&h.IdleTimeout, option.OffIsDefault),
		"max_age":            option.Duration(&h.MaxAge, option.OffIsDefault),
		"queue":              {Takes: "<messages> [<size>]", Read: h.unmarshalQueue},
		"since":              option.Word("now | all | latest | -<messages> | <duration> | <time>", &h.Since, checkSince),
		"slow_client":        option.Word("catch_up | disconnect | drop_oldest", (*string)(&h.SlowClient), checkSlowClient),
		"write_timeout":      option.Duration(&h.WriteTimeout, option.Positive),
		"max_clients_per_ip": option.Number(&h.MaxClientsPerIP, 0),
		"max_topics":         option.Number(&h.MaxTopics, 1),
		"connected_event":    option.OnOff(&h.ConnectedEvent),
		"cors_origins":       option.Words("<origins...> | *", &h.CORSOrigins, origin.Check),
		"direct_writes":      option.OnOff(&h.DirectWrites),
		"compress":           option.Word("gzip | off", &h.Compress, option.CheckCompress),
		"publish":            block(h.unmarshalPublish),
		"jwt":                block(h.unmarshalJWT),
	}
}

func (h *Handler) unmarshalQueue(d *caddyfile.Dispenser) error {
	if err := option.ReadNumber(d, &h.QueueMessages, 1); err != nil {
		return err
	}
	if !d.NextArg() {
		return nil
	}
	size, err := option.ParseSize(d, "queue", d.Val())
	h.QueueBytes = int(size)
	if err == nil && d.NextArg() {
		return option.ErrArguments
	}
	return err
}

func (h *Handler) unmarshalPublish(d *caddyfile.Dispenser, at option.Positions) error {
	if d.NextArg() {
		return option.ErrArguments
	}
	p := new(PublishConfig)
	h.Publish = p
	options := p.caddyfileOptions()
	option.AddMisplaced(options, "the block around this one", namesOf(h.caddyfileOptions(nil))...)
	return at.Block(d, "publish: ", options, "token", "topics", "targets")
}

func (p *PublishConfig) caddyfileOptions() map[string]option.Option {
	return map[string]option.Option{
		"token":     option.Words("<tokens...>", &p.Tokens, option.UnlessPlaceholder(checkToken)),
		"open":      option.Flag(&p.Open),
		"topics":    option.Words("<topics...>", &p.Topics, checkPublishTopic),
		"targets":   option.Words("client | user | broadcast ...", &p.Targets, checkTarget),
		"broadcast": option.OnOff(&p.Broadcast),
		"max_size":  option.Bytes(&p.MaxSize),
		"rate":      {Takes: "<messages per second> [<burst>]", Read: p.unmarshalRate},
	}
}

func (p *PublishConfig) unmarshalRate(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 2 {
		return option.ErrArguments
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

func (h *Handler) unmarshalJWT(d *caddyfile.Dispenser, at option.Positions) error {
	if d.NextArg() {
		return option.ErrArguments
	}
	c := new(JWTConfig)
	h.JWT = c
	options := c.caddyfileOptions()
	option.AddMisplaced(options, "the block around this one", namesOf(h.caddyfileOptions(nil))...)
	return at.Block(d, "jwt: ", options, "key", "public")
}

func (c *JWTConfig) caddyfileOptions() map[string]option.Option {
	return map[string]option.Option{
		"key":      {Takes: "<algorithm> <secret or public key> [<key ID>]", Read: c.unmarshalKey},
		"jwks":     option.Word("<address>", &c.JWKS, option.UnlessPlaceholder(token.CheckJWKSAddress)),
		"issuer":   option.Word("<iss>", &c.Issuer, option.CheckNotEmpty),
		"audience": option.Word("<aud>", &c.Audience, option.CheckNotEmpty),
		"cookie":   option.Word("<name>", &c.Cookie, checkCookieName),
		"query":    option.Word("<name>", &c.Query, checkTokenParameter),
		"public":   option.Words("<topics...>", &c.Public, topic.CheckPattern),
	}
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
	case 1:
		return d.Err("key: there is nothing behind the algorithm (and nothing is what a {$NAME} leaves if no " +
			"variable of that name is set); write: key <algorithm> <secret or public key> [<key ID>]")
	default:
		return option.ErrArguments
	}
	c.Keys = append(c.Keys, k)
	if err := k.validate(); err != nil {
		return d.Errf("key: %w", err)
	}
	return nil
}
