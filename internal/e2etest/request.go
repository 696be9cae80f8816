package e2etest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// Option changes one request: of [Do] and its like, [Subscribe] or [Reconnect].
type Option func(*request)

type request struct {
	header http.Header
	client *http.Client // nil = one of its own, with one connection
	each   func(eventstream.Event)
	keep   bool

	method, body string // of a stream; "" = GET
}

// Header sets a header. The Host is that of the URL without it.
func Header(name, value string) Option {
	return func(r *request) { r.header.Set(name, value) }
}

// LastEventID subscribes from after the event with this ID; "" is no ID.
func LastEventID(id string) Option {
	return func(r *request) {
		r.header.Del("Last-Event-ID")
		if id != "" {
			r.header.Set("Last-Event-ID", id)
		}
	}
}

// Post has a stream asked for by a POST with this body.
func Post(body string) Option {
	return func(r *request) { r.method, r.body = http.MethodPost, body }
}

// Via sends the request through a client such as that of [H1], [H2] or [H3],
// which keeps its connections for the next. Without it every request has a
// connection of its own.
func Via(client *http.Client) Option {
	return func(r *request) { r.client = client }
}

func newRequest(options []Option) *request {
	r := &request{header: http.Header{}}
	for _, option := range options {
		option(r)
	}
	return r
}

// send returns the response and what frees the connection after its body was
// closed.
func (r *request) send(ctx context.Context, method, url, body string) (*http.Response, func(), error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header = r.header
	if host := r.header.Get("Host"); host != "" {
		req.Host = host
	}
	client, free := r.client, func() {}
	if client == nil {
		client = &http.Client{Transport: transport(false)}
		free = client.CloseIdleConnections
	}
	resp, err := client.Do(req)
	if err != nil {
		free()
		return nil, nil, err
	}
	return resp, free, nil
}

// Answer is an HTTP response that was read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Decode parses the JSON of the body, unknown fields included in the error.
func (a Answer) Decode(t testing.TB, into any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(a.Body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("decoding %q: %v", a.Body, err)
	}
}

// Do makes a request and reads the whole answer. It may be called from any
// goroutine. No Content-Type is sent but what an option says.
func Do(ctx context.Context, method, url, body string, options ...Option) (Answer, error) {
	resp, free, err := newRequest(options).send(ctx, method, url, body)
	if err != nil {
		return Answer{}, err
	}
	defer free()
	return readAnswer(resp)
}

func readAnswer(resp *http.Response) (Answer, error) {
	content, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(content)}, err
}

// Send is [Do] for a test's goroutine: the test fails unless there is an
// answer, of whatever status.
func Send(t testing.TB, method, url, body string, options ...Option) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := Do(ctx, method, url, body, options...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return answer
}

// Publish posts a body; the test fails unless the answer is 200.
func Publish(t testing.TB, url, body string, options ...Option) Answer {
	t.Helper()
	answer := Send(t, http.MethodPost, url, body, options...)
	if answer.Status != http.StatusOK {
		t.Fatalf("POST %s: %d: %s", url, answer.Status, answer.Body)
	}
	return answer
}

// H1 returns a client that speaks HTTP/1.1, over TLS for https URLs.
func H1(t testing.TB) *http.Client {
	return closing(t, transport(false))
}

// H2 returns a client that speaks HTTP/2, without TLS (h2c) for http URLs. Its
// requests share connections, as a browser's tabs do.
func H2(t testing.TB) *http.Client {
	return closing(t, transport(true))
}

// H3 returns a client that speaks HTTP/3 to https URLs.
func H3(t testing.TB) *http.Client {
	h3 := &http3.Transport{TLSClientConfig: anyCertificate(), DisableCompression: true}
	t.Cleanup(func() { _ = h3.Close() })
	return &http.Client{Transport: h3}
}

func closing(t testing.TB, transport *http.Transport) *http.Client {
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// transport asks for no compression by itself and uses no proxy.
func transport(h2 bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	protocols.SetUnencryptedHTTP2(h2)
	return &http.Transport{
		Protocols:           protocols,
		TLSClientConfig:     anyCertificate(),
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1000,
	}
}

// anyCertificate trusts the one that Caddy has made for itself.
func anyCertificate() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true}
}
