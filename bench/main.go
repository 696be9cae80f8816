//go:build linux

// Command bench measures SSE servers beside each other on one machine: this repository's Caddy, others, and the least
// that the work can cost. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
	"github.com/caddy-sse/caddy-sse/bench/workload"
)

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		err = serve(os.Args[2:])
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		err = bench(ctx)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// The load client's readers and publishers are threads of their own, which the kernel is to schedule: with as many as there
// are processors, a publisher would wait for readers to pause.
const threads = 10

type options struct {
	rows, servers string
	rounds        int
	caddy, out    string
	bench         workload.Bench
}

func parseOptions() (o options) {
	flag.StringVar(&o.rows, "rows", "", "comma-separated groups of rows to measure; empty: all")
	flag.StringVar(&o.servers, "servers", "", "comma-separated servers to measure; empty: all")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each row is measured; slow ones are in a third of the rounds")
	flag.StringVar(&o.caddy, "caddy", "", "a Caddy with this module; empty: built now")
	flag.StringVar(&o.out, "out", "", "directory to write the results to; empty: only print them")
	flag.Float64Var(&o.bench.Scale, "scale", 1, "multiplies the numbers of clients")
	flag.DurationVar(&o.bench.Warmup, "warmup", 500*time.Millisecond, "how long a load runs before it is measured")
	flag.DurationVar(&o.bench.Measure, "measure", 2*time.Second, "how long a load is measured")
	flag.DurationVar(&o.bench.Settle, "settle", 250*time.Millisecond, "how often an idle server's memory is looked at until it is steady")
	flag.StringVar(&o.bench.Profile, "profile", "", "directory for CPU profiles of this repository's Caddy; empty: none")
	flag.Parse()
	return o
}

func bench(ctx context.Context) error {
	o := parseOptions()
	runtime.GOMAXPROCS(runtime.NumCPU() + threads)
	groups, err := choose("rows", o.rows, workload.All(), func(g workload.Group) string { return g.Key })
	if err != nil {
		return err
	}
	peers, err := choose("servers", o.servers, peer.All(), func(p peer.Peer) string { return p.Key })
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "caddy-sse-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	env, err := prepare(dir, o.caddy)
	if err != nil {
		return err
	}
	o.bench.Env = env
	results := measure(ctx, &o, groups, peers)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return present(results, &o)
}

// choose returns the things that a flag names, or all.
func choose[T any](flag, value string, all []T, key func(T) string) (chosen []T, err error) {
	if value == "" {
		return all, nil
	}
	for name := range strings.SplitSeq(value, ",") {
		i := slices.IndexFunc(all, func(t T) bool { return key(t) == name })
		if i < 0 {
			var keys []string
			for _, t := range all {
				keys = append(keys, key(t))
			}
			return nil, fmt.Errorf("-%s: there is no %q; there are %s", flag, name, strings.Join(keys, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// prepare finds or builds what servers need.
func prepare(dir, caddy string) (*peer.Env, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if caddy != "" {
		caddy, err = filepath.Abs(caddy)
		return &peer.Env{Dir: dir, Self: self, Caddy: caddy}, err
	}
	root, err := repoRoot()
	if err != nil {
		return nil, err
	}
	caddy = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", caddy, "./cmd/caddy")
	build.Dir, build.Env, build.Stderr = root, append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building ./cmd/caddy: %w", err)
	}
	return &peer.Env{Dir: dir, Self: self, Caddy: caddy}, nil
}

// repoRoot returns the directory above bench/, where that is the working directory.
func repoRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	mod := strings.TrimSpace(string(out))
	if err != nil || filepath.Base(filepath.Dir(mod)) != "bench" {
		return "", errors.New("run it as `go -C bench run .`, or name a Caddy with -caddy")
	}
	return filepath.Dir(filepath.Dir(mod)), nil
}

// measure runs each group for so many rounds. In each round every server has its turn, so that what the machine does
// meanwhile spoils all of them alike.
func measure(ctx context.Context, o *options, groups []workload.Group, peers []peer.Peer) *report.Results {
	var rows []report.Row
	for _, g := range groups {
		rows = append(rows, g.Rows...)
	}
	servers, able := describe(o.bench.Env, peers)
	results := report.NewResults(rows, servers)
	for _, g := range groups {
		broken := make(map[string]bool)
		rounds := o.rounds
		if g.Slow {
			rounds = (rounds + 2) / 3
		}
		for range rounds {
			for _, p := range able {
				if !g.Takes(p) || broken[p.Key] || ctx.Err() != nil {
					continue
				}
				if err := measureOne(ctx, o, g, p, results); err != nil {
					broken[p.Key] = true
					fmt.Fprintf(os.Stderr, "%-16s %s: %v\n", g.Key, p.Key, err)
				}
			}
		}
	}
	return results
}

func measureOne(ctx context.Context, o *options, g workload.Group, p peer.Peer, results *report.Results) error {
	at := 0 // the row that is being measured
	b := o.bench
	b.Record = func(key string, p peer.Peer, v report.Values) {
		at = slices.IndexFunc(g.Rows, func(r report.Row) bool { return r.Key == key })
		fmt.Fprintf(os.Stderr, "%-16s %-10s %s\n", key, p.Key, g.Rows[at].Line(v))
		results.Add(key, p.Key, v)
		at++
	}
	err := g.Run(ctx, &b, p)
	if err != nil && at < len(g.Rows) {
		results.Fail(g.Rows[at].Key, p.Key, err)
	}
	return err
}

// describe says what the servers are, and which of them can run.
func describe(env *peer.Env, peers []peer.Peer) (servers []report.Server, able []peer.Peer) {
	for _, p := range peers {
		s := report.Server{Key: p.Key, Name: p.Name, Ours: p.Ours, Limit: p.Limit, Lacks: p.Lacks(env)}
		if s.Lacks == "" {
			s.Version = p.Version(env)
			able = append(able, p)
		} else {
			fmt.Fprintf(os.Stderr, "%s is left out: %s\n", p.Key, s.Lacks)
		}
		servers = append(servers, s)
	}
	return servers, able
}
