package redislog

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// NewClient returns a client with the options of a log, for what others keep beside it. It touches no network
// before it is used. Close it by the function: that also ends calls that Redis does not answer.
func NewClient(o Options) (client redis.UniversalClient, closeClient func()) {
	l := &Log{Options: o}
	l.severed, l.sever = context.WithCancel(context.Background())
	options := o.redisOptions()
	options.Dialer = l.dialer(false)
	client = redis.NewUniversalClient(options)
	return client, func() {
		l.sever()
		_ = client.Close()
	}
}
