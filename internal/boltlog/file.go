package boltlog

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/caddy-sse/caddy-sse/hub"
)

// File is an open file with a log. Logs that follow one another, as a config is reloaded, may share it.
//
// Of several logs that have it open, one at a time uses it: the one that has put something into turn.
type File struct {
	path string // without symbolic links, so that each file has one path
	turn chan struct{}

	dbMu sync.RWMutex // held for reading while db is used, for writing while another one takes its place
	db   *bbolt.DB

	// doubtful tells that the newest commit may be lost, or may not last. It belongs to the log that has the
	// turn.
	doubtful bool
	// update is transact. Tests make it fail.
	update func(func(*bbolt.Tx) error) error
}

// lockTimeout is how long another process may take to close a file.
const lockTimeout = time.Second

// growBy is how many bytes a file grows ahead of what is needed.
const growBy = 1 << 20

// Path makes sure that there is a file at a path, if only an empty one. It returns the file's one path,
// without symbolic links.
func Path(path string) (string, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", explainOpen(path, err)
	}
	_ = file.Close()
	return filepath.EvalSymlinks(path)
}

// OpenFile opens the file at a path that Path returned. It reads all of the file once, so that damage is an
// error now and not a crash later.
func OpenFile(path string) (*File, error) {
	db, doubtful, err := openChecked(path)
	if err != nil {
		return nil, explainOpen(path, err)
	}
	f := &File{path: path, turn: make(chan struct{}, 1), db: db, doubtful: doubtful}
	f.update = f.transact
	return f, nil
}

// transact changes the file, in one transaction.
func (f *File) transact(change func(*bbolt.Tx) error) error {
	f.dbMu.RLock()
	defer f.dbMu.RUnlock()
	return f.db.Update(change)
}

// view reads the file.
func (f *File) view(read func(*bbolt.Tx) error) error {
	f.dbMu.RLock()
	defer f.dbMu.RUnlock()
	return f.db.View(read)
}

// Size implements broker.Sizer: it returns how many bytes the file has.
func (f *File) Size() int64 {
	info, err := os.Stat(f.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Destruct closes the file. Caddy's pools call it when nobody uses the file any more.
func (f *File) Destruct() error { return f.db.Close() }

// begin prepares the file for a run. If the file may lack something that was acknowledged, begin gives the
// log another name.
func (f *File) begin(sync bool) (renamed bool, err error) {
	f.db.NoSync = false
	err = f.update(func(tx *bbolt.Tx) error {
		for _, name := range allBuckets {
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
			storeLast(tx))
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

// end leaves all of the file on disk.
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

// bootID returns the name of this boot of the machine. Where boots have no names it returns another name each
// time.
func bootID() []byte {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return []byte(rand.Text())
	}
	return bytes.TrimSpace(id)
}

// What may be wrong with a file that bbolt can open.
var (
	errDamaged = errors.New("it is damaged")
	errForeign = errors.New("it is not a log")
	errMercure = errors.New("it is a log of Mercure's hub")
)

// mercureBucket is what the database of Mercure's hub holds its updates in, as its documentation says.
var mercureBucket = []byte("updates")

// openChecked opens a file once checkFile has read all of it.
func openChecked(path string) (db *bbolt.DB, doubtful bool, err error) {
	if info, err := os.Stat(path); err != nil {
		return nil, false, err
	} else if info.Size() > 0 {
		if doubtful, err = checkFile(path); err != nil {
			return nil, false, err
		}
	}
	if db, err = openDB(path); err != nil {
		return nil, false, err
	}
	_ = removeIfThere(path + copySuffix) // what was killed while it shrank the file has left it
	return db, doubtful, nil
}

// openDB opens a file that is sound.
func openDB(path string) (*bbolt.DB, error) {
	for {
		var file *os.File
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			FreelistType: bbolt.FreelistMapType,
			// The list of free pages would be written with each commit, however long it is. It is made again
			// at the start, when all of the file is read anyway.
			NoFreelistSync: true,
			OpenFile: func(name string, flag int, mode fs.FileMode) (_ *os.File, err error) {
				file, err = os.OpenFile(name, flag, mode)
				return file, err
			},
		})
		if err != nil {
			return nil, err
		}
		opened, err := file.Stat()
		var named os.FileInfo
		if err == nil {
			named, err = os.Stat(path)
		}
		switch {
		case err != nil:
			return nil, errors.Join(err, db.Close())
		case os.SameFile(opened, named):
			db.AllocSize = growBy
			return db, nil
		}
		_ = db.Close() // another process has replaced it by a smaller copy while this one waited for its lock
	}
}

// checkFile reads all of a file and says what is wrong with it. Meanwhile nobody else can write the file.
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

// checkValues says what is wrong with the values in sound pages.
func checkValues(tx *bbolt.Tx) error {
	if key, _ := tx.Cursor().First(); key == nil {
		return nil // the file is new
	}
	meta := tx.Bucket(metaBucket)
	if meta == nil && tx.Bucket(mercureBucket) != nil {
		return errMercure
	}
	if meta == nil {
		return errForeign
	}
	if format, err := get(meta, formatKey); err != nil || !bytes.Equal(format, fileFormat) {
		return errForeign
	}
	for _, name := range allBuckets {
		bucket := tx.Bucket(name)
		if bucket == nil {
			return fmt.Errorf("%w: %s is missing", errDamaged, name)
		}
		if err := each(bucket, func(_, _ []byte) error { return nil }); err != nil {
			return err
		}
	}
	last, err := get(meta, lastKey)
	if err == nil && positionOf(last) != lastPosition(tx) {
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
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS),
		errors.Is(err, bolterrors.ErrDatabaseReadOnly):
		advice = "Caddy may not write it; change its owner or mode, and those of its directory"
	case errors.Is(err, syscall.EISDIR):
		advice = "it is a directory; name a file"
	case errors.Is(err, syscall.ENOSPC):
		advice = "the disk is full; make room"
	case errors.Is(err, bolterrors.ErrTimeout):
		advice = "another process has it open; stop that one, or name another file"
	case errors.Is(err, errMercure):
		advice = "it is the database of a Mercure hub, whose history can't be taken over; name another file"
	case errors.Is(err, errForeign):
		advice = "it belongs to another program, or to another version of this one; name another file"
	case errors.Is(err, errDamaged):
		advice = "it can't be read; move it away to begin anew, which clients are told as a gap"
	}
	return fmt.Errorf("the log file %s: %s: %w", path, advice, err)
}
