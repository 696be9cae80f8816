package boltlog

import (
	"errors"
	"os"

	"go.etcd.io/bbolt"
)

// replaceFile gives the name of an open file to an open copy of it. It returns what stands under that name.
// No open file can be replaced here, so for a moment neither is locked. Whoever opens the file in that moment
// has it open when it is to be replaced, which fails then.
func replaceFile(path string, old, dense *bbolt.DB) (*bbolt.DB, error) {
	from, noSync := dense.Path(), old.NoSync
	err := errors.Join(dense.Close(), old.Close())
	if err == nil {
		err = os.Rename(from, path)
	}
	db, openErr := openDB(path)
	if openErr != nil {
		return old, errors.Join(err, openErr) // it is closed, which each use says
	}
	db.NoSync = noSync
	return db, err
}

// cutFile would set the size of an open file. What is in memory can't be cut here.
func cutFile(*os.File, int64) error { return nil }

// likeFile would give a file the owner and mode of another. Here it has those that its directory gives it.
func likeFile(*os.File, os.FileInfo) error { return nil }
