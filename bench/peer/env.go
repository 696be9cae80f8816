//go:build linux

package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Env is what servers need to run.
type Env struct {
	Dir   string // for configs and logs; gone in the end
	Self  string // the benchmark's own program, which is also the limit and the tutorial hub
	Caddy string // this repository's Caddy

	certOnce  sync.Once
	cert, key string
	certErr   error

	directOnce sync.Once
	direct     bool
}

// certificate returns the files of a certificate for 127.0.0.1, made for this run.
func (e *Env) certificate() (cert, key string, err error) {
	e.certOnce.Do(func() {
		e.cert, e.key = filepath.Join(e.Dir, "cert.pem"), filepath.Join(e.Dir, "key.pem")
		e.certErr = makeCertificate(e.cert, e.key)
	})
	return e.cert, e.key, e.certErr
}

func makeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644); err != nil {
		return err
	}
	return os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o644)
}

// write writes a config file and returns its path.
func (e *Env) write(name, content string) (string, error) {
	path := filepath.Join(e.Dir, name)
	return path, os.WriteFile(path, []byte(content), 0o644)
}
