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
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// redisCommands are what the ACL user of one hub needs; the README says so.
const redisCommands = "hello client|setname ping get set del pttl exists pexpire eval evalsha " +
	"xadd xread xrange xrevrange xtrim xinfo|stream xgroup|create xgroup|destroy hset hget hmget hdel sadd srem smembers publish subscribe"

func TestRedisACLUserNeedsOnlyItsHubsKeysAndTheseCommands(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	rules := "ACL SETUSER hub on >pass:w0rd resetkeys ~{sse:default}:* resetchannels &sse:messages &{sse:default}:kick -@all"
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for command := range strings.FieldsSeq(redisCommands) {
		rules += " +" + command
		if !slices.Contains(strings.Fields(string(readme)), "+"+command) {
			t.Errorf("the README does not tell that the user needs %s", command)
		}
	}
	do(t, client, rules)
	url := "redis://hub:pass%3Aw0rd@" + server.Addr()
	a, b := start(t, url), start(t, url)
	awaitSubscribed(t, client, "sse:messages", 2)
	r := a.subscribe(with("a", "room/*"))
	awaitPresence(a, b)
	b.publish("1", Topics("a")...)
	b.publishAll(withKey("k", "2", Topics("a")...))
	b.publishAll(withKey("k", "2", Topics("a")...))
	passing := newPublication("3", Topics("a")...)
	passing.Ephemeral = true
	r.want("1", "2")
	b.publishAll(passing)
	r.want("1", "2", "3")
	limits := plenty
	limits.History.Age = time.Hour
	a.Apply(limits)
	if err := a.log.trimByAge(); err != nil {
		t.Error(err)
	}
	a.claim("c", "alice").leave()
	b.awaitFree("bob").leave()
	r.leave()
	awaitReceivers(t, b, 0, Topics("a")...)
	b.stop()
	awaitPresence(a)
	// A lost log is named anew.
	do(t, client, "XADD "+defaultLog+" * topic a data 4")
	r = a.subscribe(with("a"))
	do(t, client, "DEL "+defaultLog)
	do(t, client, "XADD "+defaultLog+" * topic a data 5")
	r.awaitText("5")
	if r.gaps() == 0 {
		t.Error("no gap was told")
	}
	if log := do(t, client, "ACL LOG").([]any); len(log) > 0 {
		t.Errorf("Redis refused %v", log)
	}
	if n := a.warnings("out of reach") + b.warnings("out of reach"); n > 0 {
		t.Errorf("%d warnings", n)
	}
	stats := client.Info(t.Context(), "commandstats").Val()
	for command := range strings.FieldsSeq(redisCommands) {
		if !strings.Contains(stats, "cmdstat_"+command+":") {
			t.Errorf("%s was not needed", command)
		}
	}
	// Elsewhere the user may do nothing.
	other := admin(t, url)
	for _, command := range []string{"GET x", "XADD {sse:chat}:log * topic a data x", "PUBLISH other x", "FLUSHALL", "KEYS *", "CONFIG GET *"} {
		var args []any
		for word := range strings.FieldsSeq(command) {
			args = append(args, word)
		}
		if err := other.Do(t.Context(), args...).Err(); err == nil {
			t.Errorf("the user may %s", command)
		}
	}
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
			i := launch(t, b)
			i.awaitUp()
			i.publish("hello", Topics("a")...)
		})
	}
}

func provision(t testing.TB, b *RedisBroker) error {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	return errors.Join(b.Provision(ctx), b.Validate())
}

func TestRedisSecretsStandInNoErrorLogOrIdentity(t *testing.T) {
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
		Timeout: caddyDuration(300 * time.Millisecond),
	}
	if err := provision(t, b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.Identity(), secret) {
		t.Errorf("the identity tells the secret: %s", b.Identity())
	}
	other := *b
	options := *b.options
	options.Password = "another"
	other.options = &options
	if other.Identity() == b.Identity() {
		t.Error("another password is no other broker")
	}
	i := launch(t, b) // with the wrong password
	i.awaitReady()
	_, err := i.tryPublish(newPublication("x", Topics("a")...))
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("publishing with a wrong password gave %v", err)
	}
	e2etest.Await(t, "the failure to be logged", func() bool { return i.warnings("out of reach") > 0 })
	for _, entry := range i.logs.All() {
		if line := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(line, secret) {
			t.Errorf("the log tells the secret: %s", line)
		}
	}
}

func TestEachOfSeveralServersIsHeldAgainstItsOwnName(t *testing.T) {
	for _, c := range []struct{ option, address, name string }{
		{"", "two:6379", "two"},
		{"", "10.0.0.2:6379", "one"}, // which is not known by a name
		{"", "/run/redis.sock", "one"},
		{"all", "two:6379", "all"},
	} {
		b := newBroker(t, "rediss://one:6379", func(b *RedisBroker) {
			b.URLs = append(b.URLs, "rediss://two:6379")
			b.MasterName, b.TLSServerName = "m", c.option
		})
		l := &redisLog{RedisBroker: b}
		if got := l.tlsConfigFor(c.address).ServerName; got != c.name {
			t.Errorf("with the name %q, %s is to be %q; want %q", c.option, c.address, got, c.name)
		}
	}
}

func TestRedisOverAUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sse") // short enough for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "redis.sock")
	e2etest.RedisServer(t, "--unixsocket", path)
	i := start(t, "unix://"+path)
	r := i.subscribe(with("a"))
	i.publish("hello", Topics("a")...)
	r.want("hello")
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
	a, b := start(t, url, right), start(t, url, right)
	r := b.subscribe(with("a"))
	large := strings.Repeat("x", 1<<20)
	a.publish(large, Topics("a")...)
	a.publish("hello", Topics("a")...)
	r.want(large, "hello")
	insecure := start(t, url, right, func(b *RedisBroker) { b.TLSCA, b.TLSServerName, b.TLSInsecureSkipVerify = "", "", true })
	insecure.publish("insecure", Topics("a")...)
	for name, change := range map[string]func(*RedisBroker){
		"no authority":          func(b *RedisBroker) { b.TLSCA = "" },
		"no client certificate": func(b *RedisBroker) { b.TLSCert, b.TLSKey = "", "" },
		"another name":          func(b *RedisBroker) { b.TLSServerName = "elsewhere" },
		"the name of the URL":   func(b *RedisBroker) { b.TLSServerName = "" },
	} {
		i := launch(t, newBroker(t, url, right, change, withTimeout(time.Second)))
		i.awaitReady()
		if _, err := i.tryPublish(newPublication("x", Topics("a")...)); err == nil || i.log.Up() {
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
