package sse

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"
)

// boltFiles are the files that are open, by path: the old and the new config of a reload share one,
// since its lock is the process's.
var boltFiles = caddy.NewUsagePool()

// boltFile is an open file.
type boltFile struct {
	path string
	hub  string
	db   *bbolt.DB
}

// What a file holds.
var (
	metaBucket    = []byte("meta")    // epoch, floor, and how the file was left
	logBucket     = []byte("log")     // messages by position
	marksBucket   = []byte("marks")   // by address, the newest message that was removed, and when
	answersBucket = []byte("answers") // by idempotency key, what was answered, and when

	epochKey = []byte("epoch")
	floorKey = []byte("floor") // up to where marks may have been removed
	// unsyncedKey is there from the start to the clean end of a run that does not sync: it names the
	// boot of the machine, since what a process wrote survives its own death but not the machine's.
	unsyncedKey = []byte("unsynced")
)

// lockTimeout is how long another process may take to let go of a file.
const lockTimeout = time.Second

// openBoltFile opens a file for a hub, or takes a share in it if it is open already.
func openBoltFile(path, hub string) (*boltFile, error) {
	value, _, err := boltFiles.LoadOrNew(path, func() (caddy.Destructor, error) {
		db, err := openChecked(path)
		if err != nil {
			return nil, err
		}
		return &boltFile{path, hub, db}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("the log file %s: %w", path, explainOpen(err))
	}
	file := value.(*boltFile)
	if file.hub != hub {
		_ = file.release()
		return nil, fmt.Errorf("the log file %s is that of hub %q; give each hub a file of its own", path, file.hub)
	}
	return file, nil
}

// release gives a share back; the last one closes the file.
func (f *boltFile) release() error {
	_, err := boltFiles.Delete(f.path)
	return err
}

// Destruct closes the file.
func (f *boltFile) Destruct() error { return f.db.Close() }

// size returns how many bytes the file has.
func (f *boltFile) size() int64 {
	info, err := os.Stat(f.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

var errCorrupt = errors.New("it is damaged")

// openChecked opens a file and makes sure that it can be read, so that damage is an error now and not
// a panic later.
func openChecked(path string) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errCorrupt, p)
		}
		if err != nil && db != nil {
			_ = db.Close()
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	return db, db.View(func(tx *bbolt.Tx) error {
		if info, err := os.Stat(path); err != nil || info.Size() < tx.Size() {
			return fmt.Errorf("%w: it ends too early", errCorrupt)
		}
		for problem := range tx.Check() {
			return fmt.Errorf("%w: %w", errCorrupt, problem)
		}
		return nil
	})
}

// explainOpen says what to do about a file that can't be opened.
func explainOpen(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("its directory does not exist; make it, writable for Caddy: %w", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, bbolt.ErrDatabaseReadOnly):
		return fmt.Errorf("Caddy may not write it; change its owner or mode: %w", err)
	case errors.Is(err, bbolt.ErrTimeout):
		return fmt.Errorf("another process has it open; stop that one, or use another file: %w", err)
	case errors.Is(err, errCorrupt), errors.Is(err, bbolt.ErrInvalid), errors.Is(err, bbolt.ErrChecksum), errors.Is(err, bbolt.ErrVersionMismatch):
		return fmt.Errorf("it can't be read; restore it from a copy, or move it away to begin anew, which clients are told as a gap: %w", err)
	}
	return err
}

// begin readies the file for a run. If what it holds may not be all that was acknowledged, the log gets
// another name.
func (f *boltFile) begin(sync bool) error {
	f.db.NoSync = false
	err := f.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{metaBucket, logBucket, marksBucket, answersBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(metaBucket)
		unsynced := meta.Get(unsyncedKey)
		if meta.Get(epochKey) == nil || unsynced != nil && !bytes.Equal(unsynced, bootID()) {
			if err := meta.Put(epochKey, []byte(NewEpoch())); err != nil {
				return err
			}
		}
		if sync {
			return meta.Delete(unsyncedKey)
		}
		return meta.Put(unsyncedKey, bootID())
	})
	f.db.NoSync = !sync
	return err
}

// end leaves the file so that all of it is on disk.
func (f *boltFile) end() error {
	if !f.db.NoSync {
		return nil
	}
	if err := f.db.Sync(); err != nil {
		return err
	}
	f.db.NoSync = false
	return f.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(unsyncedKey) })
}

// bootID names this boot of the machine. Where it has no name, no boot is like another.
func bootID() []byte {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return []byte(NewEpoch())
	}
	return bytes.TrimSpace(id)
}

// removeMessages takes messages out of the log and remembers by address that they are gone.
func removeMessages(tx *bbolt.Tx, messages []*Message) error {
	log, marks := tx.Bucket(logBucket), tx.Bucket(marksBucket)
	now := uint64(time.Now().UnixMilli())
	for _, m := range messages {
		key := positionKey(m.Position)
		if err := log.Delete(key); err != nil {
			return err
		}
		for _, to := range m.To {
			address := append([]byte{byte(to.Kind)}, to.Name...)
			if positionOf(marks.Get(address)).After(m.Position) {
				continue
			}
			if err := marks.Put(address, binary.BigEndian.AppendUint64(key, now)); err != nil {
				return err
			}
		}
	}
	return nil
}

// foldMarks forgets which addresses old marks were of: whoever comes back with an ID from before the
// newest of them is told a gap. That keeps the marks bounded.
func foldMarks(keep time.Duration, most int, now time.Time) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		meta, marks := tx.Bucket(metaBucket), tx.Bucket(marksBucket)
		over := marks.Stats().KeyN > most
		floor := positionOf(meta.Get(floorKey))
		var old [][]byte
		err := marks.ForEach(func(address, mark []byte) error {
			made := time.UnixMilli(int64(binary.BigEndian.Uint64(mark[8:])))
			if !over && now.Sub(made) < keep {
				return nil
			}
			old = append(old, bytes.Clone(address))
			if p := positionOf(mark); p.After(floor) {
				floor = p
			}
			return nil
		})
		for _, address := range old {
			err = errors.Join(err, marks.Delete(address))
		}
		if err != nil || len(old) == 0 {
			return err
		}
		return meta.Put(floorKey, positionKey(floor))
	}
}

func addressOf(key []byte) Address { return Address{Kind(key[0]), string(key[1:])} }

func positionKey(p Position) []byte { return binary.BigEndian.AppendUint64(nil, p.Major) }

// positionOf reads a position at the beginning of b; the zero Position if there is none.
func positionOf(b []byte) Position {
	if len(b) < 8 {
		return Position{}
	}
	return Position{Major: binary.BigEndian.Uint64(b)}
}

// storedAnswer is what an idempotency key was answered.
type storedAnswer struct {
	ID          string
	Receivers   int
	Fingerprint [sha256.Size]byte
	At          int64 // Unix milliseconds
}

// findAnswer gives p the answer that its key got before. It returns ErrKeyReused if that was for
// another message.
func findAnswer(answers *bbolt.Bucket, p *Publication, now time.Time) (found bool, err error) {
	value := answers.Get([]byte(p.Key))
	if value == nil {
		return false, nil
	}
	var a storedAnswer
	if err := json.Unmarshal(value, &a); err != nil {
		return false, err
	}
	switch {
	case now.Sub(time.UnixMilli(a.At)) >= idempotencyPeriod:
		return false, nil
	case a.Fingerprint != p.Fingerprint:
		return false, ErrKeyReused
	}
	p.Receipt = Receipt{a.ID, a.Receivers}
	return true, nil
}

func keepAnswer(answers *bbolt.Bucket, p *Publication) error {
	value, err := json.Marshal(storedAnswer{p.Receipt.ID, p.Receipt.Receivers, p.Fingerprint, p.Time.UnixMilli()})
	if err != nil {
		return err
	}
	return answers.Put([]byte(p.Key), value)
}

// forgetAnswers removes the answers whose time is over.
func forgetAnswers(now time.Time) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		answers := tx.Bucket(answersBucket)
		var old [][]byte
		err := answers.ForEach(func(key, value []byte) error {
			var a storedAnswer
			if json.Unmarshal(value, &a) != nil || now.Sub(time.UnixMilli(a.At)) >= idempotencyPeriod {
				old = append(old, bytes.Clone(key))
			}
			return nil
		})
		for _, key := range old {
			err = errors.Join(err, answers.Delete(key))
		}
		return err
	}
}
