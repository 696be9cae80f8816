package redislog

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
)

// The epoch is the name of the log's origin. Every log with a name has a stream, even if that is empty. A
// name without a stream belongs to a log that was deleted: nobody may go on under that name, or positions
// could be given out twice.

// readEpoch returns the log's name. It gives the log a new name if it has none, or if its stream is gone.
func (l *Log) readEpoch(ctx context.Context, node redis.Cmdable) (string, error) {
	return l.changeEpoch(ctx, node, "")
}

// changeEpoch gives the log a new name if it is still called old, and returns its name.
func (l *Log) changeEpoch(ctx context.Context, node redis.Cmdable, old string) (string, error) {
	return epochScript.Run(ctx, node, []string{l.logKey, l.epochKey}, old, hub.NewEpoch()).Text()
}

// epochScript makes sure that there are a stream and a name. It creates an empty stream with a consumer
// group, which has no other use.
//
// KEYS: the log, the epoch.
//
// ARGV: the name to replace, the new name.
var epochScript = redis.NewScript(`
local epoch = redis.call('GET', KEYS[2])
local gone = redis.call('EXISTS', KEYS[1]) == 0
if not epoch or gone or epoch == ARGV[1] then
	epoch = ARGV[2]
	redis.call('SET', KEYS[2], epoch)
end
if gone then
	redis.call('XGROUP', 'CREATE', KEYS[1], 'nobody', '0', 'MKSTREAM')
	redis.call('XGROUP', 'DESTROY', KEYS[1], 'nobody')
end
return epoch
`)
