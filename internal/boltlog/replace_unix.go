//go:build !windows

package boltlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/bbolt"
)

// replaceFile gives the name of an open file to an open copy of it. It returns what stands under that name.
// Both are locked until then, so nobody else has written to either.
func replaceFile(path string, old, dense *bbolt.DB) (*bbolt.DB, error) {
	if err := os.Rename(dense.Path(), path); err != nil {
		return old, errors.Join(err, dense.Close())
	}
	err := syncDirectory(filepath.Dir(path))
	_ = old.Close() // it has no name any more, and nothing that is not in the copy
	return dense, err
}

// syncDirectory leaves the names in a directory on disk.
func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// cutFile sets the size of an open file.
func cutFile(file *os.File, size int64) error { return file.Truncate(size) }

// likeFile gives a file the owner and mode of another.
func likeFile(file *os.File, of os.FileInfo) error {
	if err := file.Chmod(of.Mode().Perm()); err != nil {
		return err
	}
	own, err := file.Stat()
	if err != nil {
		return err
	}
	is, _ := own.Sys().(*syscall.Stat_t)
	want, ok := of.Sys().(*syscall.Stat_t)
	if !ok || is == nil || is.Uid == want.Uid && is.Gid == want.Gid {
		return nil
	}
	if err := file.Chown(int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("giving it the owner of the file: %w", err)
	}
	return nil
}
