package sse

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/internal/boltlog"
	"github.com/caddy-sse/caddy-sse/internal/option"
)

func init() { caddy.RegisterModule(BoltBroker{}) }

// BoltBroker keeps a hub's log in a file of this machine. Acknowledged messages survive restarts and crashes,
// and clients resume exactly. One process, one hub, one file; a hub that is renamed takes its file along.
type BoltBroker struct {
	// The file. It is made if it does not exist; its directory must exist. Placeholders such as {env.X} are
	// replaced.
	File string `json:"file,omitempty"`
	// Whether each publish is on disk before it is answered. If not, a crash of the machine may lose the
	// last messages, and clients are told of a gap; a crash of the process loses none. Default: true.
	Sync *bool `json:"sync,omitempty"`

	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (BoltBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "sse.brokers.bolt", New: func() caddy.Module { return new(BoltBroker) }}
}

// Provision fills in the defaults.
func (b *BoltBroker) Provision(ctx caddy.Context) error {
	b.logger = ctx.Logger()
	on := true
	option.Default(&b.Sync, &on)
	file := caddy.NewReplacer().ReplaceAll(b.File, "")
	if file == "" {
		return fmt.Errorf("broker bolt: the file %q is empty or not set; "+
			"give it one, such as /var/lib/caddy/sse.db", b.File)
	}
	var err error
	b.File, err = filepath.Abs(file)
	return err
}

// Identity implements [broker.Module].
func (b *BoltBroker) Identity() string { return fmt.Sprintf("bolt %t %s", *b.Sync, b.File) }

// boltFiles are the open files by path. The old and the new config of a reload share one, since the file's
// lock is the process's.
var boltFiles = caddy.NewUsagePool()

// Open implements [broker.Module]. If the config before has the file open, both share it, even if it is
// another hub's there: the log of this hub then begins once that one has ended.
func (b *BoltBroker) Open(string) (broker.Log, error) {
	path, err := b.path()
	if err != nil {
		return nil, err
	}
	value, _, err := boltFiles.LoadOrNew(path, func() (caddy.Destructor, error) {
		return boltlog.OpenFile(path)
	})
	if err != nil {
		return nil, err
	}
	release := func() error {
		_, err := boltFiles.Delete(path)
		return err
	}
	options := boltlog.Options{Sync: *b.Sync, Logger: b.logger, Release: release}
	return boltlog.Open(value.(*boltlog.File), options), nil
}

// path returns the one path of the file, and makes the file if there is none. Caddy's data folder is made, too: Caddy
// itself makes it only when it first needs it.
func (b *BoltBroker) path() (string, error) {
	if dir := filepath.Dir(b.File); dir == filepath.Clean(caddy.AppDataDir()) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
	}
	return boltlog.Path(b.File)
}

// checkBoltFiles says which hubs of one config have their logs in one file.
func checkBoltFiles(brokers map[string]broker.Module) error {
	owners := make(map[string]string) // by path
	for _, hub := range slices.Sorted(maps.Keys(brokers)) {
		bolt, ok := brokers[hub].(*BoltBroker)
		if !ok {
			continue
		}
		path, err := bolt.path()
		if err != nil {
			return fmt.Errorf("hub %s: %w", hub, err)
		}
		if owner, taken := owners[path]; taken {
			return fmt.Errorf("hub %s: the log file %s is that of hub %q; give each hub a file of its own",
				hub, path, owner)
		}
		owners[path] = hub
	}
	return nil
}
