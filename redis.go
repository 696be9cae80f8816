package sse

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/redisanswers"
	"github.com/caddy-sse/caddy-sse/internal/redislog"
)

func init() { caddy.RegisterModule(RedisBroker{}) }

// RedisBroker keeps a hub's log in a stream of Redis (6.2 or later) or Valkey. All instances that name the
// stream are one hub.
type RedisBroker struct {
	// The redis:// or rediss:// URLs of Redis, as go-redis reads them. Several URLs are the nodes of a
	// Cluster or, with master_name, the Sentinels; they must have the same scheme, user, password and
	// database. Placeholders such as {env.X} are replaced when the config is loaded.
	URLs []string `json:"urls,omitempty"`
	// The name of the master that the Sentinels watch. Default: none, no Sentinel.
	MasterName string `json:"master_name,omitempty"`
	// The beginning of the names of keys and channel: {<prefix>:<hub>}:log and so on. Default: sse.
	Prefix string `json:"prefix,omitempty"`
	// The pub/sub channel for ephemeral messages, from here and from other programs.
	// Default: <prefix>:messages.
	Channel string `json:"channel,omitempty"`
	// The ACL user. Placeholders such as {env.X} are replaced, as in the next three. Default: that of the
	// URLs.
	Username string `json:"username,omitempty"`
	// The password. Default: that of the URLs.
	Password string `json:"password,omitempty"`
	// The user of the Sentinels themselves. Default: none.
	SentinelUsername string `json:"sentinel_username,omitempty"`
	// The password of the Sentinels themselves. Default: none.
	SentinelPassword string `json:"sentinel_password,omitempty"`
	// The number of messages that the stream keeps, roughly. Default: 100000.
	MaxLen int `json:"max_len,omitempty"`
	// The time that a publish may take before it is answered 503. Default: 2s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// A PEM file of the authorities that sign the server's certificate. Default: the system's.
	TLSCA string `json:"tls_ca,omitempty"`
	// A PEM file with a client certificate. Default: none.
	TLSCert string `json:"tls_cert,omitempty"`
	// A PEM file with that certificate's key. Default: none.
	TLSKey string `json:"tls_key,omitempty"`
	// The name the server's certificate must have. Default: the URL's host.
	TLSServerName string `json:"tls_server_name,omitempty"`
	// Whether any certificate is accepted; for trying things out only. Default: false.
	TLSInsecureSkipVerify bool `json:"tls_insecure_skip_verify,omitempty"`

	options redislog.Options
	logger  *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (RedisBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "sse.brokers.redis", New: func() caddy.Module { return new(RedisBroker) }}
}

// Provision fills in the defaults and reads certificates. It touches no network.
func (b *RedisBroker) Provision(ctx caddy.Context) error {
	b.logger = ctx.Logger()
	option.Default(&b.Prefix, "sse")
	option.Default(&b.Channel, b.Prefix+":messages")
	option.Default(&b.MaxLen, 100_000)
	option.Default(&b.Timeout, caddy.Duration(2*time.Second))
	return b.readOptions()
}

// Validate refuses settings that make no sense. Values with a placeholder are checked by Provision.
func (b *RedisBroker) Validate() error {
	var urls redisURLs
	for i, url := range b.URLs {
		if strings.Contains(url, "{") {
			continue
		}
		if err := urls.add(i+1, url); err != nil {
			return fmt.Errorf("broker redis: %w", err)
		}
	}
	if err := option.CheckDuration(b.Timeout); err != nil {
		return &option.Error{Option: "timeout", Err: err}
	}
	switch {
	case b.MaxLen < 0 || b.Timeout < 0:
		return errors.New("broker redis: max_len and timeout must be more than 0")
	case b.TLSCert != "" && b.TLSKey == "":
		return option.Wrong("tls_cert", "tls_cert and tls_key go together")
	case b.TLSCert == "" && b.TLSKey != "":
		return option.Wrong("tls_key", "tls_cert and tls_key go together")
	case urls.first != nil:
		return b.checkTLS(urls.scheme)
	}
	return nil
}

// checkTLS refuses TLS options if the URLs are not rediss://.
func (b *RedisBroker) checkTLS(scheme string) error {
	if scheme == "rediss" {
		return nil
	}
	for _, tls := range []struct {
		option string
		given  bool
	}{
		{"tls_ca", b.TLSCA != ""},
		{"tls_cert", b.TLSCert != ""},
		{"tls_server_name", b.TLSServerName != ""},
		{"tls_insecure_skip_verify", b.TLSInsecureSkipVerify},
	} {
		if tls.given {
			return option.Wrong(tls.option, "the tls options need a rediss:// URL")
		}
	}
	return nil
}

// readOptions makes options of the log of the fields.
func (b *RedisBroker) readOptions() error {
	if len(b.URLs) == 0 {
		return errors.New("broker redis: give it a URL, such as redis://localhost:6379")
	}
	o := redislog.Options{
		MasterName: b.MasterName,
		OneServer:  b.TLSServerName != "",
		Prefix:     b.Prefix,
		Channel:    b.Channel,
		MaxLen:     b.MaxLen,
		Timeout:    time.Duration(b.Timeout),
	}
	var urls redisURLs
	for i, text := range b.URLs {
		url, err := fillRedisURL(text)
		if err != nil {
			return fmt.Errorf("broker redis: URL %d %w", i+1, err)
		}
		if err := urls.add(i+1, url); err != nil {
			return fmt.Errorf("broker redis: %w", err)
		}
	}
	if err := b.checkTLS(urls.scheme); err != nil {
		return fmt.Errorf("broker redis: %w", err)
	}
	o.Addrs = urls.addresses
	o.Username, o.Password = urls.first.Username, urls.first.Password
	o.DB, o.TLS = urls.first.DB, urls.first.TLSConfig
	for _, secret := range []struct {
		option, value string
		field         *string
	}{
		{"username", b.Username, &o.Username},
		{"password", b.Password, &o.Password},
		{"sentinel_username", b.SentinelUsername, &o.SentinelUsername},
		{"sentinel_password", b.SentinelPassword, &o.SentinelPassword},
	} {
		if secret.value == "" {
			continue
		}
		var err error
		if *secret.field, err = option.Fill(secret.value); err != nil {
			return fmt.Errorf("broker redis: %s: %w", secret.option, err)
		}
	}
	b.options = o
	return b.readTLS(o.TLS)
}

// readTLS adds the tls_ options to the TLS config of a rediss:// URL.
func (b *RedisBroker) readTLS(config *tls.Config) error {
	if config == nil { // then there are no tls options either
		return nil
	}
	config.InsecureSkipVerify = b.TLSInsecureSkipVerify
	if b.TLSServerName != "" {
		config.ServerName = b.TLSServerName
	}
	if b.TLSCA != "" {
		pem, err := os.ReadFile(b.TLSCA)
		if err != nil {
			return fmt.Errorf("broker redis: reading tls_ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("broker redis: tls_ca %s holds no certificate in PEM form", b.TLSCA)
		}
	}
	if b.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(b.TLSCert, b.TLSKey)
		if err != nil {
			return fmt.Errorf("broker redis: reading tls_cert and tls_key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// Identity implements [broker.Module]. It holds secrets only as a hash.
func (b *RedisBroker) Identity() string {
	o := b.options
	var certificates [][]byte
	if o.TLS != nil {
		for _, c := range o.TLS.Certificates {
			certificates = append(certificates, c.Certificate...)
		}
	}
	hash := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q %q %q %d %d %d %v %q %v %q %x",
		o.Addrs, b.MasterName, b.Prefix, b.Channel, o.Username, o.Password, o.SentinelUsername,
		o.SentinelPassword, o.DB, b.MaxLen, b.Timeout, o.TLS != nil, b.TLSCA,
		b.TLSInsecureSkipVerify, b.TLSServerName, certificates))
	return "redis " + hex.EncodeToString(hash[:])
}

// Open implements [broker.Module].
func (b *RedisBroker) Open(hub string) (broker.Log, error) {
	if strings.Contains(hub, ":") { // in a key, what is before the colon would count to the prefix
		return nil, fmt.Errorf("broker redis: the hub %q has a colon in its name, which parts it from the prefix "+
			"in Redis; name it otherwise", hub)
	}
	return redislog.Open(hub, b.logOptions()), nil
}

// ShareAnswers implements [live.Sharer].
func (b *RedisBroker) ShareAnswers(hub string) answers.Shared {
	return redisanswers.Open(hub, b.logOptions())
}

func (b *RedisBroker) logOptions() redislog.Options {
	o := b.options
	o.Logger = b.logger
	return o
}
