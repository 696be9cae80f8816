package boltlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// File is an open file.
type File struct {
	path string // without symbolic links: a file has one
	hub  string
	db   *bbolt.DB
	// doubtful: the newest commit may be lost, or may not last.
	doubtful bool
	// update is db.Update. Tests let it fail.
	update func(func(*bbolt.Tx) error) error
}

// What a file holds. Every value is sealed.
var (
	metaBucket    = []byte("meta")    // what is said of the whole, below
	logBucket     = []byte("log")     // messages by position
	marksBucket   = []byte("marks")   // by address, the newest message that was removed, and when
	answersBucket = []byte("answers") // by idempotency key, what was answered, and when

	formatKey = []byte("format") // of all this
	epochKey  = []byte("epoch")
	lastKey   = []byte("last")  // the newest position given out
	floorKey  = []byte("floor") // up to where marks may have been removed
	// unsyncedKey is there from the start to the clean end of a run that does not sync: it names the
	// boot of the machine, since what a process wrote survives its own death but not the machine's.
	unsyncedKey = []byte("unsynced")
	// probeKey is written while the log is out of reach, to see whether there is room again.
	probeKey = []byte("probe")

	fileFormat = []byte("caddy-sse 1")
)

// lockTimeout is how long another process may take to let go of a file.
const lockTimeout = time.Second

// OpenFile opens the file at a path that Path returned, for a hub. All of it is read once, so that damage is an
// error now and not a crash later.
func OpenFile(path, hub string) (*File, error) {
	db, doubtful, err := openChecked(path)
	if err != nil {
		return nil, explainOpen(path, err)
	}
	return &File{path: path, hub: hub, db: db, doubtful: doubtful, update: db.Update}, nil
}

// Hub returns the hub that the file was opened for.
func (f *File) Hub() string { return f.hub }

// Path makes sure that there is a file at a path, if an empty one, and returns the one path that it has: without
// symbolic links.
func Path(path string) (string, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", explainOpen(path, err)
	}
	_ = file.Close()
	return filepath.EvalSymlinks(path)
}

// Destruct closes the file, as Caddy's pools do with what nobody uses any more.
func (f *File) Destruct() error { return f.db.Close() }

// Size implements broker.Sizer: it returns how many bytes the file has.
func (f *File) Size() int64 {
	info, err := os.Stat(f.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

var (
	errDamaged = errors.New("it is damaged")
	errForeign = errors.New("it is not a log")
)

// openChecked opens a file and makes sure that all of it can be read, so that damage is an error now
// and not a crash later.
func openChecked(path string) (db *bbolt.DB, doubtful bool, err error) {
	if info, err := os.Stat(path); err != nil {
		return nil, false, err
	} else if info.Size() > 0 {
		if doubtful, err = checkFile(path); err != nil {
			return nil, false, err
		}
	}
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	return db, doubtful, err
}

// checkFile opens a file only to look at it, while nobody else can write it.
func checkFile(path string) (doubtful bool, err error) {
	var file *os.File
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockTimeout, ReadOnly: true,
		OpenFile: func(name string, flag int, mode fs.FileMode) (*os.File, error) {
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		},
	})
	var system syscall.Errno
	switch {
	case errors.As(err, &system), errors.Is(err, bolterrors.ErrTimeout):
		return false, err
	case err != nil:
		return false, fmt.Errorf("%w: %w", errDamaged, err)
	}
	defer db.Close()
	info, err := file.Stat()
	if err != nil {
		return false, err
	}
	if doubtful, err = checkPages(file, info.Size(), db.Info().PageSize); err != nil {
		return false, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return doubtful, db.View(checkValues)
}

// checkValues says what is wrong with what stands in sound pages.
func checkValues(tx *bbolt.Tx) error {
	if key, _ := tx.Cursor().First(); key == nil {
		return nil // it is new
	}
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		return errForeign
	}
	if format, err := get(meta, formatKey); err != nil || !bytes.Equal(format, fileFormat) {
		return errForeign
	}
	for _, name := range [][]byte{metaBucket, logBucket, marksBucket, answersBucket} {
		bucket := tx.Bucket(name)
		if bucket == nil {
			return fmt.Errorf("%w: %s is missing", errDamaged, name)
		}
		if err := each(bucket, func(_, _ []byte) error { return nil }); err != nil {
			return err
		}
	}
	last, err := get(meta, lastKey)
	if err == nil && positionOf(last).Major != tx.Bucket(logBucket).Sequence() {
		err = fmt.Errorf("%w: the last position is not the last", errDamaged)
	}
	return err
}

// explainOpen says what to do about a file that can't be opened.
func explainOpen(path string, err error) error {
	advice := "it can't be opened; see to that, or name another file"
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		advice = "its directory does not exist; make it, writable for Caddy"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, bolterrors.ErrDatabaseReadOnly):
		advice = "Caddy may not write it; change its owner or mode, and those of its directory"
	case errors.Is(err, syscall.EISDIR):
		advice = "it is a directory; name a file"
	case errors.Is(err, syscall.ENOSPC):
		advice = "the disk is full; make room"
	case errors.Is(err, bolterrors.ErrTimeout):
		advice = "another process has it open; stop that one, or name another file"
	case errors.Is(err, errForeign):
		advice = "it belongs to another program, or to another version of this one; name another file"
	case errors.Is(err, errDamaged):
		advice = "it can't be read; move it away to begin anew, which clients are told as a gap"
	}
	return fmt.Errorf("the log file %s: %s: %w", path, advice, err)
}

// seal appends to a value a sum of it and its key, so that damage shows.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, sumOf(key, value))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - 4
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != sumOf(key, sealed[:n]) {
		return nil, fmt.Errorf("%w: the value of %q is not what was written", errDamaged, key)
	}
	return sealed[:n:n], nil
}

func put(bucket *bbolt.Bucket, key, value []byte) error { return bucket.Put(key, seal(key, value)) }

// get returns a key's value, nil if there is none. It is good for as long as the transaction.
func get(bucket *bbolt.Bucket, key []byte) ([]byte, error) {
	sealed := bucket.Get(key)
	if sealed == nil {
		return nil, nil
	}
	return unseal(key, sealed)
}

// each visits all keys of a bucket in order.
func each(bucket *bbolt.Bucket, visit func(key, value []byte) error) error {
	return bucket.ForEach(func(key, sealed []byte) error {
		value, err := unseal(key, sealed)
		if err != nil {
			return err
		}
		return visit(key, value)
	})
}

// begin readies the file for a run. If what it holds may not be all that was acknowledged, the log gets
// another name.
func (f *File) begin(sync bool) (renamed bool, err error) {
	f.db.NoSync = false
	err = f.update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{metaBucket, logBucket, marksBucket, answersBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(metaBucket)
		epoch, err := get(meta, epochKey)
		if err != nil {
			return err
		}
		unsynced, err := get(meta, unsyncedKey)
		if err != nil {
			return err
		}
		renamed = f.doubtful || unsynced != nil && !bytes.Equal(unsynced, bootID())
		if epoch == nil || renamed {
			epoch = []byte(hub.NewEpoch())
		}
		err = errors.Join(put(meta, formatKey, bytes.Clone(fileFormat)), put(meta, epochKey, bytes.Clone(epoch)),
			put(meta, lastKey, positionKey(hub.Position{Major: tx.Bucket(logBucket).Sequence()})))
		if sync {
			return errors.Join(err, meta.Delete(unsyncedKey))
		}
		return errors.Join(err, put(meta, unsyncedKey, bootID()))
	})
	if err == nil {
		f.doubtful = false
	}
	f.db.NoSync = !sync
	return renamed, err
}

// end leaves the file so that all of it is on disk.
func (f *File) end() error {
	if !f.db.NoSync {
		return nil
	}
	if err := f.db.Sync(); err != nil {
		return err
	}
	f.db.NoSync = false
	return f.update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(unsyncedKey) })
}

// bootID names this boot of the machine. Where it has no name, no boot is like another.
func bootID() []byte {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return []byte(hub.NewEpoch())
	}
	return bytes.TrimSpace(id)
}
