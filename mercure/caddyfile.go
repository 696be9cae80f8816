package mercure

import (
	"math"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/origin"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("mercure", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("mercure", httpcaddyfile.After, "encode")
}

func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets the handler up. Syntax:
//
//	mercure [<matcher>] {
//		publisher_jwt       <key> [<algorithm>]
//		subscriber_jwt      <key> [<algorithm>]
//		publisher_jwks_url  <address>
//		subscriber_jwks_url <address>
//		anonymous
//		subscriptions
//		cors_origins        <origins...> | *
//		publish_origins     <origins...> | *
//		cookie_name         <name>
//		heartbeat           <duration>, 0s for none
//		name                <name>
//		transport bolt {
//			path <file>
//			size <updates>, 0 for no limit
//		}
//		transport local
//		transport redis {
//			url        <urls...>
//			address    <host:port>
//			addresses  <host:port...>
//			username   <name>
//			password   <password>
//			tls
//			stream     <name>
//			max_length <updates>
//		}
//		hub                <name>
//		history            <updates> [<age>]
//		max_topics         <number>
//		gap_event          on | off
//		queue              <updates> [<size>]
//		slow_client        catch_up | disconnect | drop_oldest
//		publish_max_size   <size>
//		rate               <updates per second> [<burst>]
//		max_clients_per_ip <number>
//		direct_writes      on | off
//		compress           gzip | off
//	}
//
// Options of other hubs that mean nothing here are taken with a warning.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	at := option.Positions{"": d.Token()}
	if d.NextArg() {
		return d.Errf("mercure takes a block, not %q", d.Val())
	}
	if err := at.Block(d, "", h.caddyfileOptions(), "cors_origins", "publish_origins"); err != nil {
		return err
	}
	return at.Locate(h.Validate())
}

// caddyfileOptions are the options of the block.
func (h *Handler) caddyfileOptions() map[string]option.Option {
	options := map[string]option.Option{
		"publisher_jwt":                  readKey(&h.PublisherJWT),
		"subscriber_jwt":                 readKey(&h.SubscriberJWT),
		"publisher_jwks_url":             option.Word("<address>", &h.PublisherJWKS, option.CheckNotEmpty),
		"subscriber_jwks_url":            option.Word("<address>", &h.SubscriberJWKS, option.CheckNotEmpty),
		"anonymous":                      option.Flag(&h.Anonymous),
		"cors_origins":                   option.Words("<origins...> | *", &h.CORSOrigins, origin.Check),
		"publish_origins":                option.Words("<origins...> | *", &h.PublishOrigins, origin.Check),
		"cookie_name":                    option.Word("<name>", &h.CookieName, option.CheckNotEmpty),
		"heartbeat":                      option.Duration(&h.Heartbeat, option.ZeroIsOff),
		"name":                           option.Word("<name>", &h.Name, option.CheckNotEmpty),
		"transport":                      {Takes: "bolt | local | redis { ... }", Read: h.unmarshalTransport},
		"transport_url":                  {Takes: "<url>", Read: h.unmarshalTransportURL},
		"hub":                            option.Word("<name>", &h.Hub, option.CheckNotEmpty),
		"history":                        {Takes: "<updates> [<age>]", Read: h.unmarshalHistory},
		"max_topics":                     option.Number(&h.MaxTopics, 1),
		"gap_event":                      option.OnOff(&h.GapEvent),
		"queue":                          {Takes: "<updates> [<size>]", Read: h.unmarshalQueue},
		"slow_client":                    option.Word("catch_up | disconnect | drop_oldest", (*string)(&h.SlowClient)),
		"publish_max_size":               option.Bytes(&h.PublishMaxSize),
		"rate":                           {Takes: "<updates per second> [<burst>]", Read: h.unmarshalRate},
		"max_clients_per_ip":             option.Number(&h.MaxClientsPerIP, 0),
		"direct_writes":                  option.OnOff(&h.DirectWrites),
		"compress":                       option.Word("gzip | off", &h.Compress, option.CheckCompress),
		"subscriptions":                  option.Flag(&h.Subscriptions),
		"protocol_version_compatibility": {Takes: "8", Read: readCompatibility},
	}
	for name, why := range meaningless {
		options[name] = ignored(why)
	}
	for _, name := range []string{"issuer", "resource_identifier", "public_urls"} {
		options[name] = refused("it belongs to version 1.0 of the protocol, and this hub speaks 0.x; leave it out")
	}
	return options
}

// meaningless are options of other hubs that mean nothing here, and why.
var meaningless = map[string]string{
	"dispatch_timeout":           "no client is waited for when an update is published",
	"write_timeout":              "streams are not cut after a time; a write that is stuck for 10s is",
	"topic_selector_cache":       "selectors are kept in a tree, which needs no cache",
	"subscriber_list_cache_size": "there is no such cache",
	"ui":                         "there is no debug page here",
	"demo":                       "there is no demo here",
}

// meaninglessForBolt are those of a transport.
var meaninglessForBolt = map[string]string{
	"cleanup_frequency": "the file is cleaned between commits",
	"bucket_name":       "the file has a form of its own",
}

// ignored is an option that is taken, with whatever stands behind it, and a warning.
func ignored(why string) option.Option {
	return option.Option{Read: func(d *caddyfile.Dispenser) error {
		warn(d, d.Val(), why)
		d.RemainingArgs()
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			d.RemainingArgs()
		}
		return nil
	}}
}

func warn(d *caddyfile.Dispenser, name, why string) {
	caddy.Log().Named("config.adapter.caddyfile").Warn("mercure: an option means nothing here",
		zap.String("option", name), zap.String("reason", why), zap.String("file", d.File()), zap.Int("line", d.Line()))
}

// refused is an option that is an error.
func refused(why string) option.Option {
	return option.Option{Read: func(d *caddyfile.Dispenser) error { return d.Errf("%s: %s", d.Val(), why) }}
}

func readCompatibility(d *caddyfile.Dispenser) error {
	var version string
	if err := option.ReadWord(d, &version); err != nil {
		return err
	}
	if version != "8" {
		return d.Errf("protocol_version_compatibility: this hub speaks version 8 of the protocol's draft "+
			"and no other, so not %q; leave the option out", version)
	}
	warn(d, "protocol_version_compatibility", "it is the version that is spoken")
	return nil
}

// readKey reads a key, perhaps with its algorithm.
func readKey(field **Key) option.Option {
	return option.Option{Takes: "<key> [<algorithm>]", Read: func(d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) == 0 || len(args) > 2 {
			return option.ErrArguments
		}
		*field = &Key{Key: args[0]}
		if len(args) == 2 {
			(*field).Algorithm = args[1]
		}
		return nil
	}}
}

func (h *Handler) unmarshalTransport(d *caddyfile.Dispenser) error {
	t := new(Transport)
	h.Transport = t
	if err := option.ReadWord(d, &t.Kind); err != nil {
		return err
	}
	if err := t.checkKind(); err != nil {
		return d.Errf("transport: %w", err)
	}
	var address string
	var addresses []string
	var size int
	options := map[string]option.Option{
		"path": option.Word("<file>", &t.Path, option.CheckNotEmpty),
		"size": {Takes: "<updates>", Read: func(d *caddyfile.Dispenser) error {
			err := option.Number(&size, 0).Read(d)
			if t.Size = size; size == 0 {
				t.Size = -1
			}
			return err
		}},
		"url":        option.Words("<urls...>", &t.URLs, option.CheckNotEmpty),
		"address":    option.Word("<host:port>", &address, option.CheckNotEmpty),
		"addresses":  option.Words("<host:port...>", &addresses, option.CheckNotEmpty),
		"username":   option.Word("<name>", &t.Username, option.CheckNotEmpty),
		"password":   option.Word("<password>", &t.Password, option.CheckNotEmpty),
		"stream":     option.Word("<name>", &t.Stream, option.CheckNotEmpty),
		"max_length": option.Number(&t.MaxLength, 1),
		"gob":        refused("updates are kept in a form of their own here; leave it out"),
	}
	var tls bool
	options["tls"] = option.Flag(&tls)
	for name, why := range meaninglessForBolt {
		options[name] = ignored(why)
	}
	if err := option.Block(d, options); err != nil {
		return err
	}
	if address != "" {
		addresses = append(addresses, address)
	}
	if len(addresses) > 0 && len(t.URLs) > 0 {
		return d.Err("transport: url and addresses exclude each other; keep one of them")
	}
	for _, address := range addresses {
		t.URLs = append(t.URLs, redisURL(address, tls))
	}
	if tls && len(addresses) == 0 {
		return d.Err("transport: tls is for addresses; with a url, write rediss:// instead")
	}
	return nil
}

func (h *Handler) unmarshalTransportURL(d *caddyfile.Dispenser) error {
	if err := option.ReadWord(d, &h.TransportURL); err != nil {
		return err
	}
	caddy.Log().Named("config.adapter.caddyfile").Warn("mercure: transport_url is deprecated; write transport",
		zap.String("file", d.File()), zap.Int("line", d.Line()))
	if strings.Contains(h.TransportURL, "{") { // a placeholder
		return nil
	}
	if _, err := parseTransportURL(h.TransportURL); err != nil {
		return d.Errf("transport_url: %w", err)
	}
	return nil
}

func (h *Handler) unmarshalHistory(d *caddyfile.Dispenser) error {
	if err := option.ReadNumber(d, &h.HistoryCount, 1); err != nil {
		return err
	}
	if !d.NextArg() {
		return nil
	}
	age, err := caddy.ParseDuration(d.Val())
	if err != nil || age <= 0 {
		return d.Errf("history: %q is not an age of more than 0, such as 24h", d.Val())
	}
	h.HistoryAge = caddy.Duration(age)
	return noMore(d)
}

func (h *Handler) unmarshalQueue(d *caddyfile.Dispenser) error {
	if err := option.ReadNumber(d, &h.QueueMessages, 1); err != nil {
		return err
	}
	if !d.NextArg() {
		return nil
	}
	size, err := option.ParseSize(d, "queue", d.Val())
	if err != nil {
		return err
	}
	h.QueueBytes = int(size)
	return noMore(d)
}

func (h *Handler) unmarshalRate(d *caddyfile.Dispenser) (err error) {
	if !d.NextArg() {
		return option.ErrArguments
	}
	if h.Rate, err = strconv.ParseFloat(d.Val(), 64); err != nil || !(h.Rate > 0) || math.IsInf(h.Rate, 0) {
		return d.Errf("rate: %q is not a number of updates per second, more than 0", d.Val())
	}
	if !d.NextArg() {
		return nil
	}
	if h.Burst, err = strconv.Atoi(d.Val()); err != nil || h.Burst < 1 {
		return d.Errf("rate: the burst %q is not a number of updates, 1 or more", d.Val())
	}
	return noMore(d)
}

func noMore(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return option.ErrArguments
	}
	return nil
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
