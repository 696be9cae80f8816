//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
	"github.com/caddy-sse/caddy-sse/bench/workload"
)

// The tests' program is also the servers that this program holds.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// tiny is a benchmark that takes seconds.
func tiny(t *testing.T) *options {
	t.Helper()
	o := &options{rounds: 1, out: t.TempDir()}
	env, err := prepare(t.TempDir(), os.Getenv("SSE_TEST_CADDY"))
	if err != nil {
		t.Fatal(err)
	}
	o.bench = workload.Bench{
		Env: env, Scale: 0.004, Warmup: 10 * time.Millisecond, Measure: 100 * time.Millisecond, Settle: 10 * time.Millisecond,
	}
	return o
}

func TestEveryRowIsMeasuredAndNothingIsLost(t *testing.T) {
	o := tiny(t)
	peers := slices.DeleteFunc(peer.All(), func(p peer.Peer) bool { return p.Lacks(o.bench.Env) != "" })
	for _, g := range workload.All() {
		if _, err := exec.LookPath("redis-server"); err != nil && g.Key == "redis" {
			lack(t, "redis-server")
			continue
		}
		t.Run(g.Key, func(t *testing.T) {
			results := measure(t.Context(), o, []workload.Group{g}, peers)
			if failures := results.Failures(); len(failures) > 0 {
				t.Fatal(failures)
			}
			for _, row := range g.Rows {
				for _, p := range peers {
					wantFigures(t, results, row, p, g.Takes(p))
				}
			}
		})
	}
}

func wantFigures(t *testing.T, results *report.Results, row report.Row, p peer.Peer, takesPart bool) {
	t.Helper()
	if !takesPart || strings.HasPrefix(row.Key, "publish-") && !p.Ours {
		return
	}
	for _, column := range row.Columns {
		figure, ok := results.Figure(row.Key, p.Key, column)
		zero := slices.Contains([]string{report.Lost, report.CutOff, report.Disorder}, column)
		// Memory and CPU time are too little here to be told from none.
		small := slices.Contains([]string{
			report.Bytes, report.CPU, report.CPUPublish, report.CPUConnect, report.CPURedis,
			report.OfProxy, report.Kept, report.Calls, report.CPUOfPlain, report.CPUOfRespond, report.Heap, report.OfParts, report.OfStream,
		}, column)
		if !ok || zero && figure != 0 || !zero && !small && figure <= 0 {
			t.Errorf("%s, %s: %s is %v, %v", row.Key, p.Key, column, figure, ok)
		}
	}
}

// lack says that something could not be tested, which under SSE_TEST_REQUIRE_ALL=1 is a failure.
func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("SSE_TEST_REQUIRE_ALL") == "1" {
		t.Fatalf("needs %s, and SSE_TEST_REQUIRE_ALL=1", what)
	}
	t.Logf("SKIPPED in part: needs %s", what)
}

func TestTargetsNameRowsServersAndColumnsThatThereAre(t *testing.T) {
	rows := make(map[string]report.Row)
	for _, g := range workload.All() {
		for _, row := range g.Rows {
			rows[row.Key] = row
		}
	}
	for _, target := range targets {
		if !slices.Contains(rows[target.Row].Columns, target.Column) {
			t.Errorf("there is no %q in the row %q", target.Column, target.Row)
		}
		if !slices.ContainsFunc(peer.All(), func(p peer.Peer) bool { return p.Key == target.Server && p.Ours }) {
			t.Errorf("there is no server %q", target.Server)
		}
	}
	for _, panel := range panels {
		if !slices.Contains(rows[panel.Row].Columns, panel.Column) {
			t.Errorf("there is no %q in the row %q", panel.Column, panel.Row)
		}
	}
}

func TestServerThatFailsIsToldAndTheOthersAreMeasured(t *testing.T) {
	o := tiny(t)
	broken := peer.Peer{
		Key: "broken", Name: "Broken", Lacks: func(*peer.Env) string { return "" }, Version: func(*peer.Env) string { return "1" },
		Start: func(*peer.Env) (*peer.Server, error) { return nil, os.ErrNotExist },
	}
	absent := peer.Peer{Key: "absent", Name: "Absent", Lacks: func(*peer.Env) string { return "it is elsewhere" }}
	group := workload.All()[0]
	results := measure(t.Context(), o, []workload.Group{group}, append(peer.All()[:1], broken, absent))
	var page bytes.Buffer
	writePage(&page, results, o)
	for _, want := range []string{"| Broken ", "failed: " + os.ErrNotExist.Error(), "Absent: not measured, it is elsewhere", "were multiplied by 0.004"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("there is no %q in\n%s", want, &page)
		}
	}
	if _, ok := results.Figure(group.Rows[0].Key, "limit", report.Rate); !ok {
		t.Error("the limit was not measured")
	}
}

func TestResultsAreWrittenWithoutTheHostsName(t *testing.T) {
	o := tiny(t)
	row := report.Row{Key: "fanout-8", Title: "Row", Columns: []string{report.CPU}}
	results := report.NewResults([]report.Row{row}, []report.Server{{Key: "ours", Name: "Ours", Version: "1", Ours: true}})
	results.Add("fanout-8", "ours", report.Values{report.CPU: 1})
	if err := present(results, o); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"README.md", "results.svg"} {
		b, err := os.ReadFile(filepath.Join(o.out, file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "Ours") || !strings.Contains(string(b), time.Now().UTC().Format("2006-")) {
			t.Errorf("%s lacks the figures or the date:\n%s", file, b)
		}
		if len(host) > 3 && strings.Contains(string(b), host) {
			t.Errorf("%s names the host", file)
		}
	}
}

func TestFlagsNameWhatThereIs(t *testing.T) {
	key := func(s string) string { return s }
	all := []string{"a", "b", "c"}
	for value, want := range map[string][]string{"": all, "c,a": {"c", "a"}} {
		if got, err := choose("rows", value, all, key); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q chooses %v, %v", value, got, err)
		}
	}
	if _, err := choose("rows", "a,d", all, key); err == nil || !strings.Contains(err.Error(), `no "d"; there are a, b, c`) {
		t.Errorf("the error is %v", err)
	}
}

func TestInterruptEndsTheBenchmark(t *testing.T) {
	o := tiny(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	results := measure(ctx, o, workload.All(), peer.All()[:1])
	if _, ok := results.Figure("fanout-8", "limit", report.CPU); ok {
		t.Error("it goes on")
	}
}
