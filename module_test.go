package sse_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"

	_ "github.com/caddy-sse/caddy-sse"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience is how long a test waits for what ought to happen at once.
const patience = 20 * time.Second

// openRoute is the whole of most sites here: anybody may subscribe, and publish.
const openRoute = `
	sse /events {
		publish {
			open
		}
	}`

// site is a Caddy that runs in this process, with one site of the test's own. A process has one Caddy
// only, so none of these tests is parallel.
type site struct {
	t    testing.TB
	dir  string
	port int    // of http
	tls  int    // of https, 0 without it
	conf string // the whole Caddyfile
}

type siteOption func(*siteConfig)

type siteConfig struct {
	globals string
	tls     bool
}

// globals adds global options.
func globals(text string) siteOption { return func(c *siteConfig) { c.globals = text } }

// withTLS serves the site over https too, and so over HTTP/2 and HTTP/3.
func withTLS(c *siteConfig) { c.tls = true }

// longHeads lets requests have heads of up to 1 MiB.
var longHeads = globals("servers {\nmax_header_size 1MiB\n}\n")

// serve runs a site with the directives of body, until the test ends.
func serve(t testing.TB, body string, options ...siteOption) *site {
	t.Helper()
	var config siteConfig
	for _, option := range options {
		option(&config)
	}
	s := &site{t: t, dir: filepath.ToSlash(t.TempDir()), port: e2etest.FreePort(t)}
	s.conf = fmt.Sprintf(`{
		admin off
		persist_config off
		skip_install_trust
		auto_https disable_redirects
		storage file_system %[1]s/storage
		storage_clean_interval off
		log {
			output file %[1]s/log {
				roll_disabled
			}
			level DEBUG
			exclude http events tls admin pki
		}
		%[2]s
	}
	http://127.0.0.1:%[3]d {
		%[4]s
	}
	`, s.dir, config.globals, s.port, body)
	if config.tls {
		s.tls = e2etest.FreePort(t)
		writeCertificate(t, s.dir)
		s.conf += fmt.Sprintf(`https://127.0.0.1:%[1]d {
			tls %[2]s/cert.pem %[2]s/key.pem
			%[3]s
		}
		`, s.tls, s.dir, body)
	}
	t.Cleanup(s.stop)
	if err := s.load(); err != nil {
		t.Fatalf("loading the config: %v", err)
	}
	return s
}

// serveOnce is serve for a test that is not about streams.
func serveOnce(t testing.TB, body string, options ...siteOption) *site {
	t.Helper()
	e2etest.NotAboutStreams(t)
	return serve(t, body, options...)
}

// load loads the config, again if it runs already.
func (s *site) load() error {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.conf), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	if err := caddy.Load(e2etest.OfThisRun(s.t, config), true); err != nil {
		return err
	}
	for _, port := range []int{s.port, s.tls} {
		if err := e2etest.AwaitOneListener(port); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) stop() {
	if err := caddy.Stop(); err != nil {
		s.t.Errorf("stopping caddy: %v", err)
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Errorf("reading the log: %v", err)
	}
	if bytes.Contains(log, []byte("panic")) {
		s.t.Errorf("a handler panicked")
	}
	if s.t.Failed() {
		s.t.Logf("caddy's log:\n%s", log)
	}
}

// url returns the address of a path of the site, over plain HTTP.
func (s *site) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", s.port, path) }

// secure returns the address of a path of the site over https.
func (s *site) secure(path string) string { return fmt.Sprintf("https://127.0.0.1:%d%s", s.tls, path) }

// dial opens a connection to the site's plain HTTP port.
func (s *site) dial() *net.TCPConn {
	s.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

// protocol is a way to speak HTTP to a site.
type protocol struct {
	name   string
	major  int
	client *http.Client
	via    e2etest.Option // the client
	url    func(path string) string
}

// eachProtocol runs a test over HTTP/1.1, HTTP/2 and HTTP/3. The site must have TLS.
func eachProtocol(t *testing.T, s *site, test func(t *testing.T, p protocol)) {
	for _, p := range []struct {
		protocol
		newClient func(testing.TB) *http.Client
	}{
		{protocol{name: "HTTP 1", major: 1, url: s.url}, e2etest.H1},
		{protocol{name: "HTTP 1 over TLS", major: 1, url: s.secure}, e2etest.H1},
		{protocol{name: "HTTP 2", major: 2, url: s.secure}, e2etest.H2},
		{protocol{name: "HTTP 3", major: 3, url: s.secure}, e2etest.H3},
	} {
		t.Run(p.name, func(t *testing.T) {
			p.protocol.client = p.newClient(t)
			p.via = e2etest.Via(p.protocol.client)
			test(t, p.protocol)
		})
	}
}

// certificate is made once: nobody checks it.
var certificate = sync.OnceValues(func() (cert, key []byte) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		panic(err)
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
})

func writeCertificate(t testing.TB, dir string) {
	t.Helper()
	cert, key := certificate()
	for name, content := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// receipt is any answer of 200 to a POST.
type receipt struct {
	ID        *string   `json:"id"`
	IDs       []*string `json:"ids"`
	Receivers any       `json:"receivers"`
	Published *int      `json:"published"`
	LastID    *string   `json:"last_id"`
}

// publish posts a body that must be taken, and returns what was answered.
func publish(t testing.TB, url, body string, options ...e2etest.Option) receipt {
	t.Helper()
	answer := e2etest.Publish(t, url, body, options...)
	if media := answer.Header.Get("Content-Type"); media != "application/json" {
		t.Errorf("answered as %q", media)
	}
	var r receipt
	answer.Decode(t, &r)
	return r
}

// receivers publishes a message that only counts, and returns to how many clients it went.
func receivers(t testing.TB, url string) int {
	t.Helper()
	n, ok := publish(t, url, "").Receivers.(float64)
	if !ok {
		t.Fatal("the answer has no receivers")
	}
	return int(n)
}

// refusal is the body of an error.
type refusal struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Published *int   `json:"published"`
	Line      *int   `json:"line"`
}

// wantRefusal fails the test unless the answer is a problem with this status whose detail holds each
// of the words.
func wantRefusal(t testing.TB, answer e2etest.Answer, status int, words ...string) refusal {
	t.Helper()
	if answer.Status != status {
		t.Fatalf("answered %d, want %d: %s", answer.Status, status, answer.Body)
	}
	if media := answer.Header.Get("Content-Type"); media != "application/problem+json" {
		t.Errorf("%d answered as %q", status, media)
	}
	var r refusal
	answer.Decode(t, &r)
	if r.Status != status || r.Type == "" || r.Title == "" {
		t.Errorf("the problem is not complete: %s", answer.Body)
	}
	for _, word := range words {
		if !strings.Contains(r.Detail, word) {
			t.Errorf("the detail %q does not speak of %q", r.Detail, word)
		}
	}
	return r
}

// get makes a GET that is expected to be refused; send makes any request, with the Content-Type if it
// has one.
func get(t testing.TB, url string, options ...e2etest.Option) e2etest.Answer {
	t.Helper()
	return e2etest.Send(t, http.MethodGet, url, "", options...)
}

func post(t testing.TB, url, contentType, body string, options ...e2etest.Option) e2etest.Answer {
	t.Helper()
	if contentType != "" {
		options = append(options, e2etest.Header("Content-Type", contentType))
	}
	return e2etest.Send(t, http.MethodPost, url, body, options...)
}

// eventually polls until the condition holds. It fails the test if that takes longer than limit.
func eventually(t testing.TB, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
