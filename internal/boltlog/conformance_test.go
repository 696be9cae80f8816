package boltlog

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/broker/brokertest"
)

// conformingModule opens logs in one file, as the broker bolt does.
type conformingModule struct {
	path   string
	file   *File       // opened last
	broken atomic.Bool // no commit succeeds
}

func (m *conformingModule) Identity() string { return "bolt " + m.path }

func (m *conformingModule) Open(string) (broker.Log, error) {
	file, release, err := useFile(m.path)
	if err != nil {
		return nil, err
	}
	if file != m.file { // else a log that runs shares it
		m.file = file
		commit := file.update
		file.update = func(change func(*bbolt.Tx) error) error {
			if m.broken.Load() {
				return errDisk
			}
			return commit(change)
		}
	}
	log := Open(file, Options{Sync: true, Logger: zap.NewNop(), Release: release})
	log.closePatience = time.Minute
	return log, nil
}

func TestConformance(t *testing.T) {
	brokertest.Run(t, brokertest.Subject{
		Module: func(t testing.TB) broker.Module {
			return &conformingModule{path: filepath.Join(t.TempDir(), "sse.db")}
		},
		Persistent: true,
		Break: func(_ testing.TB, m broker.Module) (mend func()) {
			module := m.(*conformingModule)
			module.broken.Store(true)
			return func() { module.broken.Store(false) }
		},
	})
}
