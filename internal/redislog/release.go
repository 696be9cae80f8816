package redislog

import (
	"context"
	"errors"
	"sync"
	"time"
)

// releases are client_ids whose owners are given up unless they turn out to be in use, some seconds later: by then a
// claim that came meanwhile, on whichever instance, is old enough for presence to tell of it.
type releases struct {
	mu      sync.Mutex // guards all below
	waiting []string   // since the last turn
	due     []string   // since the turn before
}

const (
	releaseEvery = presenceSettles + time.Second // a claim counts as recent for presenceSettles
	maxReleases  = 100_000                       // the keys of others expire
)

// Release implements broker.Claimer.
func (l *Log) Release(clientID string) {
	r := &l.releases
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting)+len(r.due) < maxReleases {
		r.waiting = append(r.waiting, clientID)
	}
}

// turn returns what is due, and makes due what waits.
func (r *releases) turn() (due []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	due, r.due, r.waiting = r.due, r.waiting, nil
	return due
}

// postpone has client_ids come up again with the next turn.
func (r *releases) postpone(clientIDs []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due = append(r.due, clientIDs[:min(len(clientIDs), maxReleases-len(r.waiting)-len(r.due))]...)
}

// keepReleasing gives up, every releaseEvery, the client_ids that are due.
func (l *Log) keepReleasing() {
	ticker := time.NewTicker(releaseEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-l.context.Done():
			return
		}
		due := l.releases.turn()
		for len(due) > 0 {
			term, all := l.presence.known()
			some := due[:min(len(due), ownersChunk)]
			if !all || !l.replica.LogInReach() {
				break
			}
			if err := l.release(term, some); err != nil {
				l.logFailure("releasing client_ids failed", err)
				break
			}
			due = due[len(some):]
		}
		l.releases.postpone(due)
	}
}

// release removes the keys of client_ids that are certainly in use nowhere. It needs the name of totals that have
// all.
func (l *Log) release(term string, clientIDs []string) error {
	ctx, cancel := context.WithTimeout(l.context, l.Timeout)
	defer cancel()
	if !l.catchUp(ctx) {
		return errors.New("this instance is behind the log")
	}
	var questions []ownerQuestion
	for _, id := range clientIDs {
		if _, inUse := l.replica.Owner(id); !inUse && !l.mayBeKeptElsewhere(id) {
			questions = append(questions, ownerQuestion{clientID: id, way: takeOver})
		}
	}
	if len(questions) == 0 {
		return nil
	}
	_, err := l.askOwners(ctx, term, questions...)
	return err
}
