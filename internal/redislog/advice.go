package redislog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// logLost tells the replica that the log is out of reach, because of err. What the operator could change is
// logged even if the log has been out of reach for another reason before.
func (l *Log) logLost(err error) {
	advice := l.advice(err)
	if advice != "" {
		err = fmt.Errorf("%s (%w)", advice, err)
	}
	if advice != "" && l.replica.LogAway() {
		l.misconfigured.Do(func() { l.Logger.Warn("redis can't be used", zap.Error(l.located(err))) })
	}
	l.replica.LogLost(l.located(err))
}

// located adds to an error where Redis is. It takes out the arguments that Redis repeats of a command that it
// does not know: for AUTH that is the password.
func (l *Log) located(err error) error {
	if err == nil {
		return nil
	}
	return &locatedError{err, strings.Join(l.Addrs, ", ")}
}

type locatedError struct {
	error
	address string
}

// Error implements error.
func (e *locatedError) Error() string {
	text, _, _ := strings.Cut(e.error.Error(), ", with args beginning with")
	return "redis at " + e.address + ": " + text
}

// Unwrap returns the error itself.
func (e *locatedError) Unwrap() error { return e.error }

// advice returns what to change in the config after an error; nothing if it is not to blame.
func (l *Log) advice(err error) string {
	var reply redis.Error
	_, moved := redis.IsMovedError(err)
	switch {
	case !errors.As(err, &reply): // there was no answer
		return ""
	case moved && len(l.Addrs) == 1:
		return "this is a node of a Cluster: write the URLs of two or more of its nodes"
	case strings.Contains(err.Error(), "cluster support disabled"):
		return "several URLs are for a Cluster, or with master_name for Sentinels, and this server is neither: " +
			"write one URL"
	case l.MasterName != "" && strings.Contains(err.Error(), "unknown command"):
		return "with master_name the URLs must be those of Sentinels, and this server is none: " +
			"leave master_name out"
	}
	watched, err := l.watched()
	switch names := strings.Join(watched, ", "); {
	case err != nil || slices.Contains(watched, l.MasterName):
		return ""
	case len(watched) == 0:
		return "the Sentinels watch no master yet"
	case l.MasterName == "":
		return "the URLs are those of Sentinels, which need a master_name: write master_name " + names
	default:
		return fmt.Sprintf("the Sentinels watch no master %q: write master_name %s", l.MasterName, names)
	}
}

// watched returns the names of the masters that the Sentinels watch. It fails if the servers are no Sentinels.
func (l *Log) watched() (names []string, err error) {
	ctx, cancel := context.WithTimeout(l.context, l.Timeout)
	defer cancel()
	for _, address := range l.Addrs {
		options := l.redisOptions().Simple()
		options.Addr, options.DB, options.Dialer = address, 0, l.dialer(false)
		options.Username, options.Password = l.SentinelUsername, l.SentinelPassword
		var masters []any
		err = l.within(ctx, func() (err error) {
			client := redis.NewSentinelClient(options)
			defer func() { _ = client.Close() }()
			masters, err = client.Masters(ctx).Result()
			return err
		})
		if err != nil {
			continue
		}
		for _, master := range masters {
			fields, _ := master.([]any)
			for i := 0; i+1 < len(fields); i += 2 {
				if name, ok := fields[i+1].(string); ok && fields[i] == "name" {
					names = append(names, name)
				}
			}
		}
		slices.Sort(names)
		return names, nil
	}
	return nil, err
}
