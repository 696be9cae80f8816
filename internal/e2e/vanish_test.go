package e2e

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// network is a UDP socket whose host can fall off the network: from then on
// nothing comes and nothing goes.
type network struct {
	net.PacketConn
	gone atomic.Bool
}

func (n *network) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		size, from, err := n.PacketConn.ReadFrom(p)
		if err != nil || !n.gone.Load() {
			return size, from, err
		}
	}
}

func (n *network) WriteTo(p []byte, to net.Addr) (int, error) {
	if n.gone.Load() {
		return len(p), nil
	}
	return n.PacketConn.WriteTo(p, to)
}

// vanishing returns an HTTP/3 client and what makes it vanish without a word.
func vanishing(t *testing.T) (client *http.Client, vanish func()) {
	t.Helper()
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{PacketConn: socket}
	transport := &quic.Transport{Conn: n}
	h3 := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Dial: func(ctx context.Context, address string, tlsConfig *tls.Config, config *quic.Config) (*quic.Conn, error) {
			to, err := net.ResolveUDPAddr("udp4", address)
			if err != nil {
				return nil, err
			}
			return transport.DialEarly(ctx, to, tlsConfig, config)
		},
	}
	t.Cleanup(func() {
		_ = h3.Close()
		_ = transport.Close()
		_ = socket.Close()
	})
	return &http.Client{Transport: h3}, func() { n.gone.Store(true) }
}

func TestVanishedHTTP3ClientsDoNotHoldTheExitUp(t *testing.T) {
	server := e2etest.Start(t, tlsSite(siteOptions{}), awaitTLS, e2etest.Plain())
	secure := server.Expand("https://localhost:{{tls}}/events?topic=load")
	f, lost := newFleet(t), newFleet(t)
	f.via(t, e2etest.H3(t), secure, 20, "h3")
	client, vanish := vanishing(t)
	lost.via(t, client, secure, 20, "vanished")
	vanish()
	terminate(t, server)
	f.checkFarewell(t, 2*time.Second, 5*time.Second)
}

// What was on its way to a peer that freezes, or vanishes, stays on its way.
func TestFrozenPeersDoNotHoldTheExitUp(t *testing.T) {
	for name, connect := range map[string]func(t *testing.T) (client *http.Client, freeze func()){
		"h1 over TLS": func(t *testing.T) (*http.Client, func()) { h1 := e2etest.H1(t); return h1, e2etest.Freezing(h1) },
		"h2":          func(t *testing.T) (*http.Client, func()) { h2 := e2etest.H2(t); return h2, e2etest.Freezing(h2) },
		"h3":          vanishing,
	} {
		t.Run(name, func(t *testing.T) {
			server := e2etest.Start(t, tlsSite(siteOptions{route: patientRoute}), awaitTLS, e2etest.Plain())
			plain, secure := server.URL("/events?topic=load"), server.Expand("https://localhost:{{tls}}/events?topic=load")
			f, frozen := newFleet(t), newFleet(t)
			f.dial(t, plain, 10)
			client, freeze := connect(t)
			frozen.via(t, client, secure, 1, "first") // or HTTP/2 dials several connections, and a handshake is frozen
			frozen.via(t, client, secure, 7, "frozen")
			freeze()
			publishBeyondBuffers(t, plain)
			f.await(t, beyondBuffers)
			terminate(t, server)
			f.checkFarewell(t, 2*time.Second, 5*time.Second)
		})
	}
}
