package boltlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
)

// A disk may not answer for a long time, or ever, and what waits for it can't be interrupted. So whatever
// reads or writes the file does so in a goroutine that can be left behind.

const (
	// diskPatience is how long publishers wait for a disk that does not answer. Then they are refused, until it
	// answers.
	diskPatience = 5 * time.Second
	// startPatience is how long requests wait at the start for one step of what the log reads, and for another
	// hub that still has the file.
	startPatience = 15 * time.Second
	// leavePatience is how long a publisher who leaves waits to hear what became of its messages.
	leavePatience = 200 * time.Millisecond
	// closePatience is how long Close waits for the disk. The exit of the process waits for Close.
	closePatience = 500 * time.Millisecond
)

var (
	errSilent  = errors.New("the disk does not answer; publishing goes on once it does")
	errGivenUp = errors.New("the log was closed while the disk did not answer")
	errBusy    = errors.New("another hub still has the file open; this one goes on once that is closed")
)

// onDisk does work that waits for the disk, and returns what it returns. While the disk does not answer, the
// log is out of reach. Once Close has lost patience, the work is left behind, and errGivenUp returned; none
// is begun any more. Work that may be left behind changes nothing that the log looks at when it failed.
func (l *Log) onDisk(work func() error) error {
	if l.stuck != nil {
		return errSilent
	}
	done := make(chan error, 1)
	go func() { done <- work() }()
	patience := diskPatience
	if !l.loaded {
		patience = startPatience
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-late.C:
			l.fail(errSilent)
			l.ready()
		case <-l.hopeless:
			l.stuck = done
			return errGivenUp
		}
	}
}

// patiently does work of others than the log's own goroutine that waits for the disk. It leaves the work behind
// when the disk does not answer, or ctx is done.
func patiently[T any](ctx context.Context, work func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := work()
		done <- result{value, err}
	}()
	late := time.NewTimer(diskPatience)
	defer late.Stop()
	var none T
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, broker.ErrUnavailable
	case <-late.C:
		return none, fmt.Errorf("%w: %w", broker.ErrUnavailable, errSilent)
	}
}

// change makes a commit.
func (l *Log) change(with func(*bbolt.Tx) error) error {
	return l.onDisk(func() error { return l.update(with) })
}

// look reads the file.
func (l *Log) look(with func(*bbolt.Tx) error) error {
	return l.onDisk(func() error { return l.view(with) })
}

// fail tells the hub that the file can't be read or written.
func (l *Log) fail(err error) { l.replica.LogLost(fmt.Errorf("the log file %s: %w", l.path, err)) }

// awaitTurn waits until no other log of the process uses the file. It returns false if this one is closed
// before.
func (l *Log) awaitTurn() bool {
	late := time.NewTimer(startPatience)
	defer late.Stop()
	for {
		select {
		case l.turn <- struct{}{}:
			return true
		case <-late.C:
			l.fail(errBusy)
			l.ready()
		case <-l.context.Done():
			return false
		}
	}
}

// leave lets the next log have the file, and gives it back. If the disk still has work of this log, that
// happens when it is done.
func (l *Log) leave() {
	if l.stuck == nil {
		<-l.turn
		l.err = errors.Join(l.err, l.Release())
		return
	}
	l.err = fmt.Errorf("the log file %s: %w", l.path, errGivenUp)
	go func() {
		if <-l.stuck != nil {
			l.doubtful = true // a commit that failed at its very end may last or not
		}
		<-l.turn
		_ = l.Release()
	}()
}
