package live

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
)

// record keeps the past of a hub in a file, for the process that comes after this one. Whichever process has locked it
// is the hub of that name. One that runs beside it knows nothing of the hub's past, and keeps none.
type record struct {
	path string
	name string   // of the hub
	lock *os.File // nil until it is needed
}

// recorded is what stands in the file.
type recorded struct {
	Hub string `json:"hub"`
	hub.Past
}

// recordOf returns the record of a hub of that name. It may not exist yet.
func recordOf(name string) *record {
	hash := sha256.Sum256([]byte(name)) // names may differ only in what file systems don't tell apart
	file := hex.EncodeToString(hash[:8]) + ".json"
	return &record{path: filepath.Join(caddy.AppDataDir(), "sse", "hubs", file), name: name}
}

// errLocked means that another process has the record.
var errLocked = errors.New("another process has locked it")

// load returns the past that was stored last. If nothing was, it makes no file.
func (r *record) load() (hub.Past, error) {
	if _, err := os.Stat(r.path); errors.Is(err, fs.ErrNotExist) {
		return hub.Past{}, nil
	}
	if err := r.acquire(); err != nil {
		return hub.Past{}, err
	}
	content, err := os.ReadFile(r.path)
	if err != nil {
		return hub.Past{}, err
	}
	var all recorded
	if err := json.Unmarshal(content, &all); err != nil {
		return hub.Past{}, err
	}
	return all.Past, nil
}

// store replaces the past that was stored. It returns once that is on disk.
func (r *record) store(past hub.Past) error {
	content, err := json.Marshal(recorded{r.name, past})
	if err != nil {
		return err
	}
	if err := r.acquire(); err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(r.path), "*.tmp")
	if err != nil {
		return err
	}
	_, err = next.Write(append(content, '\n'))
	err = errors.Join(err, next.Sync(), next.Close())
	if err == nil {
		err = os.Rename(next.Name(), r.path)
	}
	if err != nil {
		_ = os.Remove(next.Name())
	}
	return err
}

// acquire locks the record until the process ends or release.
func (r *record) acquire() error {
	if r.lock != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(r.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := lockFile(lock); err != nil {
		_ = lock.Close()
		return errors.Join(errLocked, err)
	}
	r.lock = lock
	return nil
}

// release lets another process have the record.
func (r *record) release() {
	if r.lock != nil {
		_ = r.lock.Close()
		r.lock = nil
	}
}

// recall tells the hub, before its first broker starts, which logs it followed in processes before, and has that kept
// from now on. Nobody is refused because of it: what can't be kept is logged.
func (h *Hub) recall() {
	past, err := h.record.load()
	h.noteRecord(err)
	h.Core.Recall(past, func(now hub.Past) { h.noteRecord(h.record.store(now)) })
}

// noteRecord tells the operator that a record can't be read or written.
func (h *Hub) noteRecord(err error) {
	if err == nil {
		return
	}
	h.current.Load().Logger.Warn("the hub can't note which log it follows; should it return to a log that it has left, "+
		"over restarts, its clients may not be told that they have missed something",
		zap.String("hub", h.Name), zap.String("file", h.record.path), zap.Error(err))
}
