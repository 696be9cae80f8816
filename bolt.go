package sse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(BoltBroker{}) }

// BoltBroker keeps a hub's log in a file of this machine: what was acknowledged survives restarts and
// crashes, and clients resume exactly. One process, one hub, one file.
type BoltBroker struct {
	// The file. It is made if it does not exist; its directory must exist.
	File string `json:"file,omitempty"`
	// Whether each publish is on disk before it is answered. Without, a crash of the machine, but not
	// of the process, may lose the last messages, and clients are told a gap. Default: true.
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
	if b.Sync == nil {
		on := true
		b.Sync = &on
	}
	b.File = caddy.NewReplacer().ReplaceAll(b.File, "")
	if b.File == "" {
		return errors.New("broker bolt: give it a file")
	}
	var err error
	b.File, err = filepath.Abs(b.File)
	return err
}

// Identity implements BrokerModule.
func (b *BoltBroker) Identity() string { return fmt.Sprintf("bolt %t %s", *b.Sync, b.File) }

// Open implements BrokerModule. A file that is open already, for a config before this one, is shared.
func (b *BoltBroker) Open(hub string) (Broker, error) {
	file, err := openBoltFile(b.File, hub)
	if err != nil {
		return nil, err
	}
	l := &boltLog{BoltBroker: b, boltFile: file, queue: make(chan *boltRequest, maxPending)}
	l.context, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// boltLog is a hub's log in a file. Publishes that are under way share a commit; when it is on disk
// they are delivered and answered.
type boltLog struct {
	*BoltBroker
	*boltFile
	replica *Hub
	epoch   string
	queue   chan *boltRequest
	// undropped are messages that could not be removed yet; the committing goroutine's.
	undropped []*Message

	context context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	reach   // of the last commit
}

// boltRequest is one request's batch on its way into the file.
type boltRequest struct {
	batch     []*Publication
	published int
	err       error
	done      chan struct{}
}

const (
	maxCommitBatch = 1024 // messages of one commit, about
	trimFileEvery  = 2 * time.Second
	cleanFileEvery = 5 * time.Minute
	maxTrimBatch   = 10_000 // messages removed in one commit
	maxMarks       = 1 << 16
)

// Start implements Broker.
func (l *boltLog) Start(h *Hub, ready func()) {
	l.replica = h
	if err := l.load(); err != nil {
		l.lost(h, fmt.Errorf("reading the log file %s: %w", l.path, err))
	} else {
		l.found(h)
	}
	l.wg.Go(l.commitPending)
	ready()
}

// Close implements Broker. What is being published is still answered.
func (l *boltLog) Close() error {
	l.cancel()
	l.wg.Wait()
	if l.replica == nil {
		return l.release() // it never began
	}
	return errors.Join(l.end(), l.release())
}

// load hands the replica what the file keeps.
func (l *boltLog) load() error {
	if err := l.begin(*l.Sync); err != nil {
		return err
	}
	return l.db.View(func(tx *bbolt.Tx) error {
		l.epoch = string(tx.Bucket(metaBucket).Get(epochKey))
		floor := positionOf(tx.Bucket(metaBucket).Get(floorKey))
		l.replica.Follow(Origin{Epoch: l.epoch, Lost: floor, Trims: true})
		err := tx.Bucket(marksBucket).ForEach(func(address, mark []byte) error {
			l.replica.Forget(addressOf(address), positionOf(mark))
			return nil
		})
		if err != nil {
			return err
		}
		log := tx.Bucket(logBucket)
		cursor := log.Cursor()
		for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
			m, err := decodeStored(key, value)
			if err != nil {
				return fmt.Errorf("message %d: %w", binary.BigEndian.Uint64(key), err)
			}
			l.replica.Restore(m)
		}
		// The newest messages may have been trimmed.
		l.replica.Advance(Position{Major: log.Sequence()})
		l.replica.Announce("broker_changed")
		return nil
	})
}

// Publish implements Broker.
func (l *boltLog) Publish(ctx context.Context, batch []*Publication) (int, error) {
	if len(batch) == 0 {
		return 0, nil
	}
	r := &boltRequest{batch: batch, done: make(chan struct{})}
	select {
	case l.queue <- r:
	case <-ctx.Done():
		return 0, ErrUnavailable
	case <-l.context.Done():
		return 0, ErrUnavailable
	}
	<-r.done // a disk answers, late perhaps
	for _, p := range batch[:r.published] {
		l.replica.Wait(ctx, p.Receipt.Receivers)
	}
	return r.published, r.err
}

// commitPending commits what waits, one commit at a time: while one is under way, the next gathers.
func (l *boltLog) commitPending() {
	trimming, cleaning := time.NewTicker(trimFileEvery), time.NewTicker(cleanFileEvery)
	defer trimming.Stop()
	defer cleaning.Stop()
	for {
		select {
		case first := <-l.queue:
			l.commit(l.gather(first))
		case <-trimming.C:
			l.trim()
		case <-cleaning.C:
			l.clean()
		case <-l.context.Done():
			for {
				select {
				case r := <-l.queue:
					l.commit(l.gather(r))
				default:
					l.trim()
					return
				}
			}
		}
	}
}

func (l *boltLog) gather(r *boltRequest) (requests []*boltRequest) {
	requests, messages := append(requests, r), len(r.batch)
	for messages < maxCommitBatch {
		select {
		case r := <-l.queue:
			requests = append(requests, r)
			messages += len(r.batch)
		default:
			return requests
		}
	}
	return requests
}

// commit puts the requests' messages into the file, then delivers and answers them.
func (l *boltLog) commit(requests []*boltRequest) {
	defer func() {
		for _, r := range requests {
			close(r.done)
		}
	}()
	var fresh []*Publication
	err := l.db.Update(func(tx *bbolt.Tx) error {
		fresh = fresh[:0]
		for _, r := range requests {
			stored, err := l.store(tx, r)
			if err != nil {
				return err
			}
			fresh = append(fresh, stored...)
		}
		return nil
	})
	if err != nil {
		l.lost(l.replica, fmt.Errorf("writing the log file %s: %w", l.path, err))
		for _, r := range requests {
			r.published, r.err = 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return
	}
	l.found(l.replica)
	for _, p := range fresh {
		l.replica.Deliver(p.Message)
	}
}

// store puts one request's messages into a transaction. It returns those that are to be delivered:
// all but the ones whose keys had an answer. A key that is refused ends the request.
func (l *boltLog) store(tx *bbolt.Tx, r *boltRequest) (fresh []*Publication, err error) {
	r.published, r.err = 0, nil
	log, answers := tx.Bucket(logBucket), tx.Bucket(answersBucket)
	for _, p := range r.batch {
		if p.Key != "" {
			found, err := findAnswer(answers, p, time.Now())
			if errors.Is(err, ErrKeyReused) {
				r.err = err
				return fresh, nil
			}
			if err != nil {
				return nil, err
			}
			if found {
				r.published++
				continue
			}
		}
		p.Receipt = Receipt{Receivers: l.replica.Reach(p.To)}
		p.Time = time.Now()
		if !p.Ephemeral {
			if err := storeMessage(log, p.Message); err != nil {
				return nil, err
			}
			p.Receipt.ID = ID{l.epoch, p.Position}.String()
		}
		if p.Key != "" {
			if err := keepAnswer(answers, p); err != nil {
				return nil, err
			}
		}
		fresh = append(fresh, p)
		r.published++
	}
	return fresh, nil
}

// trim removes from the file what the replica no longer keeps.
func (l *boltLog) trim() {
	dropped := append(l.undropped, l.replica.Dropped()...)
	l.undropped = nil
	for len(dropped) > 0 {
		n := min(len(dropped), maxTrimBatch)
		if err := l.db.Update(func(tx *bbolt.Tx) error { return removeMessages(tx, dropped[:n]) }); err != nil {
			l.logger.Warn("trimming the log failed", zap.String("file", l.path), zap.Error(err))
			l.undropped = dropped
			return
		}
		dropped = dropped[n:]
	}
}

// clean keeps bounded what the file knows beside its messages.
func (l *boltLog) clean() {
	now := time.Now()
	keep := max(time.Hour, 2*l.replica.Limits().History.Age)
	for _, update := range []func(*bbolt.Tx) error{forgetAnswers(now), foldMarks(keep, maxMarks, now)} {
		if err := l.db.Update(update); err != nil {
			l.logger.Warn("cleaning the log failed", zap.String("file", l.path), zap.Error(err))
			return
		}
	}
}

// storedMessage is a message as it stands in the file.
type storedMessage struct {
	To    []Address
	Event string `json:",omitempty"`
	Data  string
	Retry *int64 `json:",omitempty"`
	Time  int64  // Unix milliseconds
}

func storeMessage(log *bbolt.Bucket, m *Message) error {
	position, err := log.NextSequence()
	if err != nil {
		return err
	}
	m.Position = Position{Major: position}
	s := storedMessage{To: m.To, Event: m.Event, Data: string(m.Data), Time: m.Time.UnixMilli()}
	if m.HasRetry {
		s.Retry = &m.Retry
	}
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return log.Put(binary.BigEndian.AppendUint64(nil, position), value)
}

func decodeStored(key, value []byte) (*Message, error) {
	var s storedMessage
	if err := json.Unmarshal(value, &s); err != nil {
		return nil, err
	}
	m := &Message{To: s.To, Event: s.Event, Data: []byte(s.Data), Time: time.UnixMilli(s.Time), Position: positionOf(key)}
	if s.Retry != nil {
		m.Retry, m.HasRetry = *s.Retry, true
	}
	return m, nil
}
