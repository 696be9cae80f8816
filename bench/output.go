//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/bench/report"
)

// panels are the figures that the picture shows.
var panels = []report.Panel{
	{Row: "fanout-closed", Column: report.CPU},
	{Row: "fanout-1", Column: report.CPU},
	{Row: "fanout-8", Column: report.CPU},
	{Row: "latency", Column: report.CPU},
	{Row: "latency", Column: report.P99},
	{Row: "idle", Column: report.Bytes},
	{Row: "stalled", Column: report.Bytes},
	{Row: "tls", Column: report.CPU},
	{Row: "h2-100", Column: report.CPU},
	{Row: "h2-1", Column: report.CPU},
}

// present prints what was measured, and writes it into a directory if there is one to write into.
func present(results *report.Results, o *options) error {
	var page bytes.Buffer
	writePage(&page, results, o)
	if _, err := os.Stdout.Write(page.Bytes()); err != nil || o.out == "" {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	page.WriteString("\n![The figures as bars](results.svg)\n")
	if err := os.WriteFile(filepath.Join(o.out, "README.md"), page.Bytes(), 0o644); err != nil {
		return err
	}
	picture := results.Picture(caption(), panels)
	return os.WriteFile(filepath.Join(o.out, "results.svg"), []byte(picture), 0o644)
}

// caption says where and when.
func caption() string { return report.Machine() + ", " + time.Now().UTC().Format(time.DateOnly) }

func writePage(w io.Writer, results *report.Results, o *options) {
	fmt.Fprintf(w, "# Results\n\n%s, commit %s.\n", caption(), revision())
	fmt.Fprintf(w, "Every load was measured for %v after %v of warming up, in %d rounds, or in a third of them where it takes\n"+
		"long; told are the medians. × is a multiple of what the bare loop of write(2) came to in the same round.\n",
		o.bench.Measure, o.bench.Warmup, o.rounds)
	if o.bench.Scale != 1 {
		fmt.Fprintf(w, "**The numbers of clients were multiplied by %g, so these are not the rows that they say they are.**\n", o.bench.Scale)
	}
	fmt.Fprint(w, "What a row means, and how to run this, is told in [bench/README.md](../README.md).\n\n")
	for _, s := range results.Servers {
		if s.Lacks != "" {
			fmt.Fprintf(w, "- %s: not measured, %s\n", s.Name, s.Lacks)
		} else {
			fmt.Fprintf(w, "- %s: %s\n", s.Name, s.Version)
		}
	}
	fmt.Fprint(w, "\n## Targets\n\n")
	results.Verdicts(w, results.Judge(results.Exact(targets)))
	fmt.Fprint(w, "\n## Figures\n")
	results.Tables(w)
}

// revision is the commit that was measured, where git tells it.
func revision() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown commit"
	}
	return strings.TrimSpace(string(out))
}
