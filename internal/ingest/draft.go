package ingest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/caddy-sse/caddy-sse/hub"
)

// MaxKeyBytes is the size limit of an idempotency key.
const MaxKeyBytes = 255

// Draft is a message as its publisher sent it.
type Draft struct {
	*hub.Message
	Key string // the field idempotency_key; empty for none. Message.Key is another one
}

// Fingerprint tells a draft from any other draft.
func (d Draft) Fingerprint() [sha256.Size]byte {
	hash := sha256.New()
	field := func(b []byte) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(b)))
		hash.Write(length[:])
		hash.Write(b)
	}
	for _, to := range d.To {
		field([]byte{byte(to.Kind)})
		field([]byte(to.Name))
	}
	field(fmt.Appendf(nil, "%t %d %t", d.HasRetry, d.Retry, d.Ephemeral))
	field([]byte(d.Event))
	field(d.Data)
	if d.Message.Key != "" { // else the fingerprint is what it was before there were keys
		field([]byte(d.Message.Key))
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

func checkKey(key string) error {
	if len(key) > MaxKeyBytes {
		return fmt.Errorf("idempotency_key has %d bytes; the limit is %d", len(key), MaxKeyBytes)
	}
	return nil
}

// Bounds of the reconnect delay that a publisher may tell clients, in milliseconds.
const (
	MinRetry = 100
	MaxRetry = 60_000
)

var errRetry = fmt.Errorf("retry must be a whole number of milliseconds from %d to %d, such as 5000",
	MinRetry, MaxRetry)

// ParseRetry reads the value of retry, in milliseconds.
func ParseRetry(text string) (int64, error) {
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, errRetry
	}
	return ms, checkRetry(ms)
}

func checkRetry(ms int64) error {
	if ms < MinRetry || ms > MaxRetry {
		return errRetry
	}
	return nil
}

// BoundRetry brings a retry within its bounds. It is for streams and logs, whose other messages must not be
// lost for it.
func BoundRetry(ms int64) int64 { return min(max(ms, MinRetry), MaxRetry) }

// ParseBool reads true or 1, and false or 0.
func ParseBool(text string) (bool, error) {
	switch text {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errors.New("must be true or false")
}
