package memlog

import (
	"crypto/sha256"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
)

// answers remembers the answer to each idempotency key for broker.IdempotencyPeriod. The mutex of Log guards
// it.
type answers struct {
	byKey map[string]answer
	order []string // keys in the order of keep, oldest first
}

// answer is what one key was answered, and for which message.
type answer struct {
	receipt     broker.Receipt
	fingerprint [sha256.Size]byte
	at          time.Time
}

func newAnswers() *answers { return &answers{byKey: make(map[string]answer)} }

// find gives p the answer that its key got before. It returns ErrKeyReused if the key came with another
// message.
func (a *answers) find(p *broker.Publication) (found bool, err error) {
	if p.Key == "" {
		return false, nil
	}
	a.forget(time.Now())
	old, found := a.byKey[p.Key]
	switch {
	case !found:
		return false, nil
	case old.fingerprint != p.Fingerprint:
		return false, broker.ErrKeyReused
	}
	p.Receipt, p.Repeated = old.receipt, true
	return true, nil
}

// keep remembers the answer that p got.
func (a *answers) keep(p *broker.Publication) {
	if p.Key != "" {
		a.byKey[p.Key] = answer{p.Receipt, p.Fingerprint, time.Now()}
		a.order = append(a.order, p.Key)
	}
}

// forget drops the answers whose time is over.
func (a *answers) forget(now time.Time) {
	for len(a.order) > 0 && now.Sub(a.byKey[a.order[0]].at) >= broker.IdempotencyPeriod {
		delete(a.byKey, a.order[0])
		a.order[0] = ""
		a.order = a.order[1:]
	}
}
