package redislog

import (
	"cmp"
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// redisCommands are the commands that the ACL user of one hub needs, as docs/brokers.md lists them.
const redisCommands = "hello client|setname ping get set del pttl exists pexpire time eval evalsha " +
	"xadd xread xrange xrevrange xtrim xdel xinfo|stream xgroup|create xgroup|destroy " +
	"hset hget hmget hdel hlen hincrby hscan hrandfield sadd srem zadd zrem zscore zcard zrangebyscore zdiff unlink " +
	"publish subscribe time"

func TestACLUserNeedsOnlyTheHubsKeysAndTheseCommands(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	rules := "ACL SETUSER hub on >pass:w0rd resetkeys ~{sse:default}:* " +
		"resetchannels &sse:messages &{sse:default}:kick -@all"
	docs, err := os.ReadFile("../../docs/brokers.md")
	if err != nil {
		t.Fatal(err)
	}
	for command := range strings.FieldsSeq(redisCommands) {
		rules += " +" + command
		if !slices.Contains(strings.Fields(string(docs)), "+"+command) {
			t.Errorf("docs/brokers.md does not tell that the user needs %s", command)
		}
	}
	do(t, client, rules)
	url := "redis://hub:pass%3Aw0rd@" + server.Addr()
	a, b := start(t, url), start(t, url)
	awaitSubscribed(t, client, "sse:messages", 2)
	r := a.subscribe(hubtest.With("a", "room/*"))
	awaitPresence(a, b)
	b.publish("1", hub.Topics("a")...)
	b.publishAll(withKey("k", "2", hub.Topics("a")...))
	b.publishAll(withKey("k", "2", hub.Topics("a")...))
	passing := newPublication("3", hub.Topics("a")...)
	passing.Ephemeral = true
	r.want("1", "2")
	b.publishAll(passing)
	r.want("1", "2", "3")
	a.purge("a")
	limits := hubtest.Plenty
	limits.History.Age = time.Hour
	a.Apply(limits)
	if err := a.log.trim(t.Context()); err != nil {
		t.Error(err)
	}
	a.claim("c", "alice").leave()
	b.awaitFree("bob").leave()
	r.leave()
	awaitReceivers(t, b, 0, hub.Topics("a")...)
	b.stop()
	awaitPresence(a)
	// A lost log gets another name.
	do(t, client, "XADD "+defaultLog+" * topic a data 4")
	r = a.subscribe(hubtest.With("a"))
	do(t, client, "DEL "+defaultLog)
	do(t, client, "XADD "+defaultLog+" * topic a data 5")
	r.awaitText("5")
	if r.gaps() == 0 {
		t.Error("no gap was told")
	}
	if log := do(t, client, "ACL LOG").([]any); len(log) > 0 {
		t.Errorf("Redis refused %v", log)
	}
	if n := a.warnings("out of reach") + b.warnings("out of reach"); n > 0 {
		t.Errorf("%d warnings", n)
	}
	stats := client.Info(t.Context(), "commandstats").Val()
	for command := range strings.FieldsSeq(redisCommands) {
		if !strings.Contains(stats, "cmdstat_"+command+":") {
			t.Errorf("%s was not needed", command)
		}
	}
	// The user may do nothing else.
	other := admin(t, url)
	for _, command := range []string{
		"GET x", "XADD {sse:chat}:log * topic a data x", "PUBLISH other x", "FLUSHALL", "KEYS *", "CONFIG GET *",
	} {
		if err := other.Do(t.Context(), words(command)...).Err(); err == nil {
			t.Errorf("the user may %s", command)
		}
	}
}

func TestEachServerMustHaveItsOwnNameInTLS(t *testing.T) {
	for _, c := range []struct{ option, address, name string }{
		{"", "two:6379", "two"},
		{"", "10.0.0.2:6379", "one"}, // this server has no name
		{"", "/run/redis.sock", "one"},
		{"all", "two:6379", "all"},
	} {
		l := &Log{Options: Options{
			Addrs: []string{"one:6379", "two:6379"}, MasterName: "m",
			TLS: &tls.Config{ServerName: cmp.Or(c.option, "one")}, OneServer: c.option != "",
		}}
		if got := l.tlsConfigFor(c.address).ServerName; got != c.name {
			t.Errorf("with the name %q, %s is to be %q; want %q", c.option, c.address, got, c.name)
		}
	}
}

func TestPublishOverAUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "redis.sock")
	e2etest.RedisServer(t, "--unixsocket", path)
	i := start(t, "unix://"+path)
	r := i.subscribe(hubtest.With("a"))
	i.publish("hello", hub.Topics("a")...)
	r.want("hello")
}
