package redislog

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// named sets Options.MasterName.
func named(master string) func(*Options) {
	return func(o *Options) { o.MasterName = master }
}

func TestTheLogSaysWhatToChangeInTheConfig(t *testing.T) {
	sentinels, server := e2etest.RedisSentinels(t), e2etest.RedisServer(t)
	protected := e2etest.RedisServer(t, "--requirepass", "right")
	cluster := e2etest.RedisCluster(t)
	node := cluster.Masters[0]
	if node == cluster.MasterOf(defaultLog) {
		node = cluster.Masters[1]
	}
	for name, test := range map[string]struct {
		addrs  []string
		change func(*Options)
		says   string
	}{
		"Sentinels without a name": {sentinels.Addrs(), named(""), "write master_name mymaster"},
		"one Sentinel":             {sentinels.Addrs()[:1], named(""), "write master_name mymaster"},
		"a password for Redis": {
			sentinels.Addrs()[:1], func(o *Options) { o.Password = "s3cret" }, "write master_name mymaster",
		},
		"a wrong name":          {sentinels.Addrs(), named("other"), `no master "other": write master_name mymaster`},
		"a name, no Sentinel":   {[]string{server.Addr()}, named("mymaster"), "leave master_name out"},
		"several URLs of one":   {[]string{server.Addr(), server.Addr()}, named(""), "write one URL"},
		"one node of several":   {[]string{node.Addr()}, named(""), "URLs of two or more of its nodes"},
		"no password":           {[]string{protected.Addr()}, named(""), "NOAUTH"},
		"nobody at the address": {[]string{"127.0.0.1:1"}, named(""), "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := launch(t, newOptions(t, "", at(test.addrs), test.change))
			e2etest.Await(t, "the failure to be logged", func() bool { return i.warnings("out of reach") > 0 })
			said := fmt.Sprint(i.logs.FilterMessageSnippet("out of reach").All()[0].ContextMap()["error"])
			for _, want := range []string{test.says, test.addrs[0]} {
				if !strings.Contains(said, want) {
					t.Errorf("the log says %q; want %q in it", said, want)
				}
			}
			for _, line := range i.logs.All() {
				if strings.Contains(fmt.Sprint(line.Message, line.ContextMap()), "s3cret") {
					t.Errorf("the log tells the password: %v", line)
				}
			}
		})
	}
}

// Sentinels often start later than Caddy. Then the first reason is another, and it is told already.
func TestTheLogSaysWhatToChangeEvenIfRedisWasAwayBefore(t *testing.T) {
	sentinels := e2etest.RedisSentinels(t)
	proxy := e2etest.NewProxy(t, sentinels.Addrs()[0])
	proxy.Cut()
	i := launch(t, newOptions(t, proxy.URL()))
	e2etest.Await(t, "the failure to be logged", func() bool { return i.warnings("out of reach") > 0 })
	proxy.Heal()
	e2etest.Await(t, "the advice to be logged", func() bool {
		lines := i.logs.FilterMessageSnippet("redis can't be used").All()
		return len(lines) == 1 && strings.Contains(fmt.Sprint(lines[0].ContextMap()), "write master_name mymaster")
	})
}

// A server that does not know AUTH repeats its arguments.
func TestTheLogDoesNotTellAPasswordThatAServerRepeats(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := make([]byte, 4096)
				for {
					if n, err := conn.Read(b); n == 0 || err != nil {
						return
					}
					fmt.Fprint(conn, "-ERR unknown command 'AUTH', with args beginning with: 's3cret' \r\n")
				}
			}()
		}
	}()
	i := launch(t, newOptions(t, "", at([]string{listener.Addr().String()}), withTimeout(time.Second),
		func(o *Options) { o.Password = "s3cret" }))
	e2etest.Await(t, "the failure to be logged", func() bool { return i.warnings("out of reach") > 0 })
	if _, err := i.tryPublish(newPublication("x", hub.Topics("a")...)); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("publishing gives %v", err)
	}
	for _, line := range i.logs.All() {
		if strings.Contains(fmt.Sprint(line.Message, line.ContextMap()), "s3cret") {
			t.Errorf("the log tells the password: %v", line)
		}
	}
}
