package boltlog

import (
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// bbolt uses the pages again that become free, but never gives them back to the disk. So a file that has
// become much too large is copied without them, and the copy takes its place. A process that is killed
// meanwhile leaves the file or the whole copy under the file's name. The file stays locked until its name is
// the copy's.

const (
	smallFile = 16 << 20 // bytes that any file may have
	// maxSlack is how many times what is kept a larger file may have.
	maxSlack = 4
	// quickCopy is how many bytes are copied while publishers wait.
	quickCopy = 16 << 20
	// copySuffix follows the file's name in that of the copy.
	copySuffix = ".shrinking"
	// copyBatch is how many bytes of a copy are one transaction.
	copyBatch = 4 << 20
)

// shrinkAtStart shrinks a file of which half or more would be gained.
func (l *Log) shrinkAtStart() {
	l.shrinkIf(func() (bool, error) {
		kept, err := l.keptBytes()
		return l.Size() > smallFile/4 && kept < l.Size()/2, err
	})
}

// shrinkWhileIdle shrinks a file that is too large, if that takes no longer than a commit may. It is for runs
// that last for months.
func (l *Log) shrinkWhileIdle() {
	l.shrinkIf(func() (bool, error) {
		used, size := l.usedBytes(), l.Size()
		return size > smallFile && used <= min(quickCopy, size/maxSlack), nil
	})
}

// shrinkIf shrinks the file if that is worth it. A file that can't be shrunk is as good as before. The next
// start tries it again.
func (l *Log) shrinkIf(worth func() (bool, error)) {
	if l.unshrinkable {
		return
	}
	var before, after int64
	started := time.Now()
	err := l.onDisk(func() error {
		if yes, err := worth(); !yes || err != nil {
			return err
		}
		before = l.Size()
		err := l.shrink()
		after = l.Size()
		return err
	})
	switch {
	case l.stuck != nil: // the log is being closed
	case err != nil:
		l.unshrinkable = true
		l.Logger.Warn("the log file is much larger than what it keeps, and can't be shrunk; it is fine otherwise",
			zap.String("file", l.path), zap.Error(err))
	case before > 0:
		l.Logger.Info("the log file was shrunk", zap.String("file", l.path),
			zap.Int64("bytes_before", before), zap.Int64("bytes", after), zap.Duration("took", time.Since(started)))
	}
}

// usedBytes returns how many bytes the pages in use have, as the last commit left them.
func (f *File) usedBytes() int64 {
	f.dbMu.RLock()
	defer f.dbMu.RUnlock()
	stats := f.db.Stats()
	return f.Size() - int64(stats.FreePageN+stats.PendingPageN)*int64(f.db.Info().PageSize)
}

// keptBytes returns how many bytes the file's values take. It reads all of them.
func (f *File) keptBytes() (kept int64, err error) {
	err = f.view(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
			s := bucket.Stats()
			kept += int64(s.LeafInuse + s.BranchInuse)
			return nil
		})
	})
	return kept, err
}

// shrink replaces the file by a copy without free pages.
func (f *File) shrink() error {
	f.dbMu.Lock()
	defer f.dbMu.Unlock()
	dense, err := f.copyDense()
	if err != nil {
		return errors.Join(err, removeIfThere(f.path+copySuffix))
	}
	dense.NoSync, dense.AllocSize = f.db.NoSync, growBy
	db, err := replaceFile(f.path, f.db, dense)
	if err != nil {
		err = errors.Join(fmt.Errorf("replacing it by a smaller copy: %w", err), removeIfThere(f.path+copySuffix))
	}
	f.db = db
	return err
}

// copyDense makes a copy of the file without free pages. The copy is on disk, checked, and open.
func (f *File) copyDense() (dense *bbolt.DB, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, err
	}
	path := f.path + copySuffix
	if err := removeIfThere(path); err != nil {
		return nil, err
	}
	var file *os.File
	dense, err = bbolt.Open(path, info.Mode().Perm(), &bbolt.Options{
		FreelistType:   bbolt.FreelistMapType,
		NoFreelistSync: true,
		NoSync:         true,
		OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(name, flag|os.O_EXCL, mode)
			return file, err
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making a smaller copy: %w", err)
	}
	defer func() {
		if err != nil {
			_ = dense.Close()
		}
	}()
	if err := bbolt.Compact(dense, f.db, copyBatch); err != nil {
		return nil, fmt.Errorf("making a smaller copy: %w", err)
	}
	if err := finishCopy(dense, file, info); err != nil {
		return nil, fmt.Errorf("finishing a smaller copy: %w", err)
	}
	return dense, nil
}

// finishCopy gives a copy its size, and the owner and mode of the file that it is of. It checks the copy, and
// leaves all of it on disk.
func finishCopy(dense *bbolt.DB, file *os.File, of os.FileInfo) error {
	var size int64
	err := dense.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	if err != nil {
		return err
	}
	if size >= of.Size() {
		return errors.New("the copy is no smaller")
	}
	if err := cutFile(file, size); err != nil {
		return err
	}
	if err := likeFile(file, of); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if _, err := checkPages(file, size, dense.Info().PageSize); err != nil {
		return err
	}
	return dense.View(checkValues)
}

// removeIfThere removes a file, which may not exist.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
