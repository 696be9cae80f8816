package mercure

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	sse "github.com/caddy-sse/caddy-sse"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/option"
)

// Transport is where a hub keeps its updates.
type Transport struct {
	// "bolt": in a file of this machine, over restarts. "local": in memory. "redis": in Redis or Valkey, which joins
	// instances.
	Kind string `json:"kind,omitempty"`
	// The file of bolt; its directory must exist. Placeholders are replaced. Default: mercure-sse.db in Caddy's data
	// folder.
	Path string `json:"path,omitempty"`
	// The number of updates that bolt keeps of each topic; negative: as many as the bytes of history allow. Default:
	// history_count.
	Size int `json:"size,omitempty"`
	// The redis:// or rediss:// URLs of redis: one, or the nodes of a Cluster. Placeholders are replaced.
	URLs []string `json:"urls,omitempty"`
	// The ACL user of redis. Placeholders are replaced, as in the password. Default: that of the URLs.
	Username string `json:"username,omitempty"`
	// The password of redis. Default: that of the URLs.
	Password string `json:"password,omitempty"`
	// The beginning of the names of keys in Redis: {<stream>:<hub>}:log and so on. Default: mercure.
	Stream string `json:"stream,omitempty"`
	// The number of updates that redis keeps, roughly. Default: 100000.
	MaxLength int `json:"max_length,omitempty"`
}

// The kinds of transports.
const (
	boltKind  = "bolt"
	localKind = "local"
	redisKind = "redis"
)

const (
	defaultHistoryCount = 1000
	unlimited           = math.MaxInt32
)

// defaultFile is the name of the file in Caddy's data folder.
const defaultFile = "mercure-sse.db"

// checkKind refuses a transport that is not there.
func (t *Transport) checkKind() error {
	switch t.Kind {
	case boltKind, localKind, redisKind:
		return nil
	case "postgres", "postgresql", "kafka", "pulsar":
		return fmt.Errorf("%s is not among the transports here; redis joins instances, bolt keeps updates on disk, "+
			"local in memory", t.Kind)
	}
	return fmt.Errorf("%q is none of bolt, local and redis", t.Kind)
}

// check refuses a transport that makes no sense.
func (t *Transport) check() error {
	if err := t.checkKind(); err != nil {
		return err
	}
	switch {
	case t.Kind == redisKind && len(t.URLs) == 0:
		return errors.New("redis needs a URL; write: transport redis { url redis://localhost:6379 }")
	case t.Kind != redisKind && (len(t.URLs) > 0 || t.Stream != "" || t.MaxLength != 0 || t.Username+t.Password != ""):
		return fmt.Errorf("url, stream, max_length, username and password are for redis, not for %s", t.Kind)
	case t.Kind != boltKind && (t.Path != "" || t.Size != 0):
		return fmt.Errorf("path and size are for bolt, not for %s", t.Kind)
	case t.MaxLength < 0:
		return errors.New("max_length can't be negative")
	}
	return nil
}

// broker returns the transport as a broker of "sse", in JSON.
func (t *Transport) broker() (config []byte, err error) {
	var warnings []caddyconfig.Warning
	switch t.Kind {
	case localKind:
		config = caddyconfig.JSONModuleObject(sse.MemoryBroker{}, "type", "memory", &warnings)
	case redisKind:
		config = caddyconfig.JSONModuleObject(sse.RedisBroker{
			URLs: t.URLs, Prefix: cmp.Or(t.Stream, "mercure"), Username: t.Username, Password: t.Password,
			MaxLen: t.MaxLength,
		}, "type", "redis", &warnings)
	default:
		file := t.Path
		if file == "" {
			file = filepath.Join(caddy.AppDataDir(), defaultFile)
		}
		config = caddyconfig.JSONModuleObject(sse.BoltBroker{File: file}, "type", "bolt", &warnings)
	}
	if len(warnings) > 0 {
		return nil, errors.New(warnings[0].Message)
	}
	return config, nil
}

// parseTransportURL reads the old form of a transport: bolt://<path>, local:// or redis://<host>.
func parseTransportURL(text string) (*Transport, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it can't be read; it should be like bolt:///data/mercure.db")
	}
	query := u.Query()
	t := &Transport{Kind: u.Scheme}
	number := func(name string, field *int) error {
		if !query.Has(name) {
			return nil
		}
		if *field, err = strconv.Atoi(query.Get(name)); err != nil || *field < 0 {
			return fmt.Errorf("%s=%q is not a number, 0 or more", name, query.Get(name))
		}
		return nil
	}
	switch u.Scheme {
	case "", "null":
		return nil, errors.New("it has no scheme; it should be like bolt:///data/mercure.db")
	case boltKind:
		t.Path = u.Host + u.Path
		if err := number("size", &t.Size); err != nil {
			return nil, err
		}
		if t.Size == 0 && query.Has("size") {
			t.Size = -1
		}
	case redisKind, "rediss":
		t.Kind, t.Stream = redisKind, query.Get("stream")
		if err := number("max_length", &t.MaxLength); err != nil {
			return nil, err
		}
		for _, known := range []string{"stream", "max_length"} {
			query.Del(known)
		}
		u.RawQuery = query.Encode()
		t.URLs = []string{u.String()}
	}
	return t, t.check()
}

// transport returns where this hub keeps its updates.
func (h *Handler) transport() (*Transport, error) {
	text := h.TransportURL
	if text == "" && h.Transport == nil {
		text = os.Getenv("MERCURE_TRANSPORT_URL")
	}
	if text == "" {
		return cmp.Or(h.Transport, &Transport{Kind: boltKind}), nil
	}
	text = caddy.NewReplacer().ReplaceAll(text, "")
	t, err := parseTransportURL(text)
	if err != nil {
		return nil, &option.Error{Option: "transport_url", Err: err}
	}
	return t, nil
}

// hubName returns the name of the hub of routes with a name. Hubs of "sse" have others.
func hubName(name string) string {
	if name == "" || name == "default" {
		return "mercure"
	}
	return "mercure-" + name
}

// use acquires the hub: one that routes of "sse" have, too, or one of this protocol's own.
func (h *Handler) use(ctx caddy.Context, app *sse.App) (*live.Hub, error) {
	if h.Hub != "" {
		return app.Use(h.Hub)
	}
	t, err := h.transport()
	if err != nil {
		return nil, err
	}
	broker, err := t.broker()
	if err != nil {
		return nil, err
	}
	config := &sse.HubConfig{BrokerRaw: broker, HistoryCount: h.HistoryCount, HistoryAge: h.HistoryAge}
	switch {
	case t.Size > 0:
		config.HistoryCount = t.Size
	case t.Size < 0:
		config.HistoryCount = unlimited
	}
	return app.UseOwn(ctx, hubName(h.Name), config)
}

// redisURL returns the URL of a server in Redis' own form, host:port.
func redisURL(address string, tls bool) string {
	scheme := "redis"
	if tls {
		scheme = "rediss"
	}
	if _, _, err := net.SplitHostPort(address); err != nil && !strings.Contains(address, "{") {
		address = net.JoinHostPort(strings.Trim(address, "[]"), "6379")
	}
	return scheme + "://" + address
}
