package sse

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func provision(t testing.TB, b *RedisBroker) error {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	return errors.Join(b.Provision(ctx), b.Validate())
}

// openRedis opens the log that a config asks for and has a hub follow it.
func openRedis(t testing.TB, b *RedisBroker) (*hub.Hub, broker.Log) {
	t.Helper()
	log, err := b.Open("default")
	if err != nil {
		t.Fatal(err)
	}
	h := hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 100}})
	log.Start(h, func() {})
	t.Cleanup(func() {
		_ = log.Close()
		h.Close()
	})
	return h, log
}

func publishOne(t testing.TB, log broker.Log) error {
	_, err := log.Publish(t.Context(), []*broker.Publication{{Message: &hub.Message{To: hub.Topics("a"), Data: []byte("hello")}}})
	return err
}

func TestRedisTakesUsernameAndPasswordFromOptionsAndPlaceholders(t *testing.T) {
	server := e2etest.RedisServer(t, "--requirepass", "all-or-nothing")
	addr := server.Addr()
	t.Setenv("TEST_REDIS_PASSWORD", "all-or-nothing")
	t.Setenv("TEST_REDIS_URL", "redis://:all-or-nothing@"+addr)
	for name, b := range map[string]*RedisBroker{
		"in the URL":           {URLs: []string{"redis://:all-or-nothing@" + addr}},
		"as option":            {URLs: []string{"redis://" + addr}, Password: "all-or-nothing"},
		"as placeholder":       {URLs: []string{"redis://" + addr}, Password: "{env.TEST_REDIS_PASSWORD}"},
		"URL as placeholder":   {URLs: []string{"{env.TEST_REDIS_URL}"}},
		"with the user's name": {URLs: []string{"redis://" + addr}, Username: "default", Password: "{env.TEST_REDIS_PASSWORD}"},
		"option before URL":    {URLs: []string{"redis://:wrong@" + addr}, Password: "all-or-nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := provision(t, b); err != nil {
				t.Fatal(err)
			}
			h, log := openRedis(t, b)
			e2etest.Await(t, "Redis to be reached", h.LogUp)
			if err := publishOne(t, log); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRedisSecretsAreNotInErrorsLogsOrIdentities(t *testing.T) {
	server := e2etest.RedisServer(t, "--requirepass", "right")
	addr := server.Addr()
	const secret = "s3cr3t"
	t.Setenv("TEST_SECRET", secret)
	for _, b := range []*RedisBroker{
		{},
		{URLs: []string{""}},
		{URLs: []string{"redis://user:" + secret + "@host:port"}},
		{URLs: []string{"redis://user:" + secret + "@host:6379/not-a-number"}},
		{URLs: []string{"redis://user:" + secret + "@host:6379?unknown=1"}},
		{URLs: []string{"http://user:" + secret + "@host:6379"}},
		{URLs: []string{"://" + secret}},
		{URLs: []string{"redis://user:" + secret + "@ho st"}},
		{URLs: []string{"redis://user:" + secret + "\x7f@host"}},
		{URLs: []string{"unix://user:" + secret + "@"}},
		{URLs: []string{"{env.TEST_SECRET}"}},
		{URLs: []string{"redis://:" + secret + "{env.TEST_MISSING}@" + addr}},
		{URLs: []string{"redis://:{" + secret + "}@" + addr}},
		{URLs: []string{"redis://:a{" + secret + "}b{c@" + addr}},
		{URLs: []string{"redis://:1234#" + secret + "@" + addr}},
		{URLs: []string{"redis://" + addr, "redis://user:" + secret + "@" + addr}},
		{URLs: []string{"redis://:{env.TEST_SECRET}@" + addr, "redis://:other@" + addr}},
		{URLs: []string{"redis://" + addr}, Password: "{" + secret + "}"},
		{URLs: []string{"redis://" + addr}, SentinelPassword: "a{" + secret + "}b"},
		{URLs: []string{"redis://:" + secret + "@" + addr}, TLSServerName: "x"},
		{URLs: []string{"rediss://:" + secret + "@" + addr}, TLSCA: "no-such-file"},
		{URLs: []string{"redis://" + addr}, Username: secret, Password: "{env.TEST_MISSING}"},
		{URLs: []string{"redis://:" + secret + "@" + addr}, MaxLen: -1},
	} {
		err := provision(t, b)
		if err == nil {
			t.Errorf("%q was accepted", b.URLs)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error for %q tells the secret: %v", b.URLs, err)
		}
	}
	b := &RedisBroker{
		URLs: []string{"redis://user:" + secret + "@" + addr}, SentinelPassword: secret + "2",
		Timeout: caddy.Duration(300 * time.Millisecond),
	}
	if err := provision(t, b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.Identity(), secret) {
		t.Errorf("the identity tells the secret: %s", b.Identity())
	}
	another := &RedisBroker{URLs: []string{"redis://user:another@" + addr}, SentinelPassword: b.SentinelPassword, Timeout: b.Timeout}
	if err := provision(t, another); err != nil {
		t.Fatal(err)
	}
	if another.Identity() == b.Identity() {
		t.Error("another password is no other broker")
	}
	core, logs := observer.New(zapcore.DebugLevel)
	b.logger = zap.New(core)
	h, log := openRedis(t, b) // with the wrong password
	e2etest.Await(t, "the failure to be noticed", h.LogAway)
	if err := publishOne(t, log); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("publishing with a wrong password gave %v", err)
	}
	for _, entry := range logs.All() {
		if line := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(line, secret) {
			t.Errorf("the log tells the secret: %s", line)
		}
	}
}

func TestRedisPasswordsMayHaveAnyCharacter(t *testing.T) {
	const password = "a{b}c#d/e@f"
	t.Setenv("TEST_REDIS_PASSWORD", password)
	for _, b := range []*RedisBroker{
		{URLs: []string{"redis://:a%7Bb%7Dc%23d%2Fe%40f@localhost"}},
		{URLs: []string{"redis://localhost"}, Password: "{env.TEST_REDIS_PASSWORD}"},
	} {
		if err := provision(t, b); err != nil || b.options.Password != password {
			t.Errorf("%+v gives the password %q and the error %v", b, b.options.Password, err)
		}
	}
	for _, url := range []string{
		"redis://:" + password + "@localhost", "redis://:{env.TEST_REDIS_PASSWORD}@localhost",
		"redis://:1#2@localhost",
	} {
		err := provision(t, &RedisBroker{URLs: []string{url}})
		if err == nil || !strings.Contains(err.Error(), " as %") || strings.Contains(err.Error(), "{b}") {
			t.Errorf("%s gives %v", url, err)
		}
	}
}

func TestRedisURLsMustAgree(t *testing.T) {
	t.Setenv("TEST_PASSWORD", "first")
	for _, test := range []struct {
		urls []string
		says string // nothing if they agree
	}{
		{[]string{"redis://u:first@a:1/2", "redis://u:first@b:2/2", "redis://u:{env.TEST_PASSWORD}@c/2"}, ""},
		{[]string{"rediss://a", "rediss://b"}, ""},
		{[]string{"redis://u:first@a", "rediss://u:second@b"}, "URL 2 has another scheme than URL 1"},
		{[]string{"rediss://a", "redis://b"}, "URL 2 has another scheme than URL 1"},
		{[]string{"redis://a", "redis://b", "unix:///c"}, "URL 3 has another scheme than URL 1"},
		{[]string{"redis://u:p@a", "redis://v:p@b"}, "URL 2 has another user than URL 1"},
		{[]string{"redis://:p@a", "redis://b"}, "URL 2 has another password than URL 1"},
		{[]string{"redis://a", "redis://:p@b"}, "URL 2 has another password than URL 1"},
		{[]string{"redis://:{env.TEST_PASSWORD}@a", "redis://:second@b"}, "URL 2 has another password than URL 1"},
		{[]string{"redis://a", "redis://b/1"}, "URL 2 has another database than URL 1"},
		{[]string{"redis://a/1", "redis://b?db=2"}, "URL 2 has another database than URL 1"},
	} {
		err := provision(t, &RedisBroker{URLs: test.urls, Password: "of the option"})
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%q give %v; want %q", test.urls, err, test.says)
		}
	}
}

func TestAHubsNameIsNotTakenForAPrefixInRedis(t *testing.T) {
	b := &RedisBroker{URLs: []string{"redis://localhost"}}
	if err := provision(t, b); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open("eu:orders"); err == nil || !strings.Contains(err.Error(), "colon") {
		t.Errorf("a hub with a colon in its name gives %v", err)
	}
}

func TestRedisOverTLSWithItsOwnAuthorityAndClientCertificates(t *testing.T) {
	dir := t.TempDir()
	authority := newAuthority(t, dir)
	authority.issue(t, "server", "redis.internal")
	authority.issue(t, "client", "caddy")
	port := strconv.Itoa(e2etest.FreePort(t))
	file := func(name string) string { return filepath.Join(dir, name) }
	e2etest.RedisServer(t, "--tls-port", port, "--tls-cert-file", file("server.crt"), "--tls-key-file", file("server.key"),
		"--tls-ca-cert-file", file("ca.crt"), "--tls-auth-clients", "yes")
	url := "rediss://127.0.0.1:" + port
	right := func(b *RedisBroker) {
		b.TLSCA, b.TLSCert, b.TLSKey, b.TLSServerName = file("ca.crt"), file("client.crt"), file("client.key"), "redis.internal"
	}
	opened := func(change ...func(*RedisBroker)) (*hub.Hub, broker.Log) {
		b := &RedisBroker{URLs: []string{url}, Timeout: caddy.Duration(time.Second)}
		for _, f := range append([]func(*RedisBroker){right}, change...) {
			f(b)
		}
		if err := provision(t, b); err != nil {
			t.Fatal(err)
		}
		return openRedis(t, b)
	}
	h, log := opened()
	e2etest.Await(t, "Redis to be reached", h.LogUp)
	large := []byte(strings.Repeat("x", 1<<20))
	if _, err := log.Publish(t.Context(), []*broker.Publication{{Message: &hub.Message{To: hub.Topics("a"), Data: large}}}); err != nil {
		t.Fatal(err)
	}
	if err := publishOne(t, log); err != nil {
		t.Fatal(err)
	}
	e2etest.Await(t, "both to arrive", func() bool { return len(h.ListMessages("a", 10)) == 2 })
	if first := h.ListMessages("a", 10)[0]; first.Bytes != len(large) {
		t.Errorf("%d bytes of %d arrived", first.Bytes, len(large))
	}
	h, log = opened(func(b *RedisBroker) { b.TLSCA, b.TLSServerName, b.TLSInsecureSkipVerify = "", "", true })
	e2etest.Await(t, "Redis to be reached", h.LogUp)
	if err := publishOne(t, log); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*RedisBroker){
		"no authority":          func(b *RedisBroker) { b.TLSCA = "" },
		"no client certificate": func(b *RedisBroker) { b.TLSCert, b.TLSKey = "", "" },
		"another name":          func(b *RedisBroker) { b.TLSServerName = "elsewhere" },
		"the name of the URL":   func(b *RedisBroker) { b.TLSServerName = "" },
	} {
		h, log := opened(change)
		e2etest.Await(t, "the failure to be noticed", h.LogAway)
		if err := publishOne(t, log); err == nil || h.LogUp() {
			t.Errorf("with %s Redis was reached", name)
		} else {
			t.Logf("with %s: %v", name, err)
		}
	}
	for name, b := range map[string]*RedisBroker{
		"a CA that is none":      {URLs: []string{url}, TLSCA: file("client.key")},
		"a key of another":       {URLs: []string{url}, TLSCert: file("client.crt"), TLSKey: file("server.key")},
		"a certificate alone":    {URLs: []string{url}, TLSCert: file("client.crt")},
		"TLS options without it": {URLs: []string{"redis://127.0.0.1:" + port}, TLSCA: file("ca.crt")},
	} {
		if err := provision(t, b); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// authority signs certificates.
type authority struct {
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

func newAuthority(t testing.TB, dir string) *authority {
	t.Helper()
	a := &authority{dir: dir}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.certificate, a.key = a.sign(t, "ca", template)
	return a
}

func (a *authority) issue(t testing.TB, file, name string) {
	t.Helper()
	a.sign(t, file, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) sign(t testing.TB, file string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for ending, block := range map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: encoded},
	} {
		if err := os.WriteFile(filepath.Join(a.dir, file+ending), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}
