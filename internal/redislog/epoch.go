package redislog

import (
	"context"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/redis/go-redis/v9"
)

// The epoch is the name of the log's origin. Wherever there is one, there is a stream, be it empty: a
// name without a stream is that of a log that was deleted. Nobody may go on under it, or positions
// could be given out twice.

// readEpoch returns the log's name, giving it one if it has none, or if its stream is gone.
func (l *Log) readEpoch(ctx context.Context, node redis.Cmdable) (string, error) {
	return l.changeEpoch(ctx, node, "")
}

// changeEpoch names the log anew, unless somebody has done so already, and returns its name.
func (l *Log) changeEpoch(ctx context.Context, node redis.Cmdable, old string) (string, error) {
	return epochScript.Run(ctx, node, []string{l.logKey, l.epochKey}, old, hub.NewEpoch()).Text()
}

// epochScript makes sure that there are a stream and a name. A stream that nothing was added to yet
// comes into being with a group of readers, for which there is no other use.
//
// KEYS: the log, the epoch. ARGV: the name to be changed, if it is still that; another.
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
