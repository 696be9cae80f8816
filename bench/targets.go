//go:build linux

package main

import (
	"github.com/caddy-sse/caddy-sse/bench/model"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// targets are what this repository's Caddy is held to. OfLimit: as a multiple of the bare loop's figure in the same
// run.
var targets = []report.Target{
	{Row: "fanout-closed", Server: "ours", Column: report.CPU, Bound: 0.30, OfLimit: true},
	{Row: "fanout-1", Server: "ours", Column: report.CPU, Bound: 0.12, OfLimit: true},
	{Row: "fanout-8", Server: "ours", Column: report.CPU, Bound: 0.08, OfLimit: true},
	{Row: "fanout-8", Server: "ours", Column: report.P99, Bound: 200},
	{Row: "fanout-1", Server: "handler", Column: report.CPU, Bound: 0.9, OfLimit: true},
	{Row: "fanout-8", Server: "handler", Column: report.CPU, Bound: 0.25, OfLimit: true},
	{Row: "latency", Server: "ours", Column: report.CPU, Bound: 1.15, OfLimit: true},
	{Row: "latency", Server: "ours", Column: report.P50, Bound: 1.2, OfLimit: true},
	{Row: "latency", Server: "ours", Column: report.P99, Bound: 1.2, OfLimit: true},
	{Row: "topics", Server: "ours", Column: report.Publishes, Bound: 0.6, OfLimit: true, AtLeast: true},
	{Row: "idle", Server: "ours", Column: report.Bytes, Bound: 2000},
	{Row: "stalled", Server: "ours", Column: report.Bytes, Bound: 16_000},
	{Row: "publish-stream", Server: "ours", Column: report.Faster, Bound: 10, AtLeast: true},
	{Row: "publish-respond", Server: "ours", Column: report.OfRespond, Bound: 0.8, AtLeast: true},
	{Row: "tls", Server: "ours", Column: report.CPU, Bound: 7},
	{Row: "h2-100", Server: "ours", Column: report.CPU, Bound: 4.5},
	{Row: "h2-1", Server: "ours", Column: report.CPU, Bound: 10},
	{Row: "h2-1-paced", Server: "ours", Column: report.CPU, Bound: 21},
	{Row: "answer", Server: "ours", Column: report.OfProxy, Bound: 1.3},
	{Row: "answer-json", Server: "ours", Column: report.OfProxy, Bound: 0.95, AtLeast: true},
	{Row: "answer-kept", Server: "ours", Column: report.Kept, Bound: 1.5*float64(len(model.Event)) + 48},
	{Row: "answer-redis", Server: "ours", Column: report.Calls, Bound: 1},
	{Row: "gzip-ticks", Server: "ours", Column: report.OfPlain, Bound: 0.28},
	{Row: "gzip-tokens", Server: "ours", Column: report.OfPlain, Bound: 0.12},
	{Row: "gzip-ticks", Server: "ours", Column: report.CPUOfPlain, Bound: 1.15},
	{Row: "gzip-idle", Server: "ours", Column: report.Heap, Bound: 100},
	{Row: "conflate", Server: "ours", Column: report.OfParts, Bound: 1},
	{Row: "latest", Server: "ours", Column: report.OfOthers, Bound: 1.5},
	{Row: "polls", Server: "ours", Column: report.OfStream, Bound: 1},
	{Row: "h2-100-idle", Server: "ours", Column: report.Bytes, Bound: 20_000},
	{Row: "h2-1-idle", Server: "ours", Column: report.Bytes, Bound: 65_000},
}
