// Package report turns what was measured into tables and a picture.
package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Row is a workload.
type Row struct {
	Key     string
	Title   string
	Columns []string
}

// Server is one that was to be measured.
type Server struct {
	Key, Name, Version string
	Lacks              string // why it was not; "" = it was
	Ours, Limit        bool
}

// Values are the figures of one server in one round, by column.
type Values map[string]float64

// The columns.
const (
	CPU          = "CPU-s/M"           // of the server, per million deliveries
	CPUPublish   = "CPU-s/M publishes" // of the server, per million messages published
	CPUConnect   = "CPU µs/connect"
	CPURedis     = "Redis CPU-s/M"
	Rate         = "deliveries/s"
	Publishes    = "publishes/s"
	Connects     = "connects/s"
	Bytes        = "bytes/client"      // resident
	Heap         = "heap bytes/client" // of Go's, after a collection
	Faster       = "× single POSTs"
	Requests     = "requests/s"
	OfProxy      = "× reverse_proxy" // the same without sse_resume, on the same Caddy
	Kept         = "bytes/event"     // resident, of what is kept
	Calls        = "calls/50 ms"     // of the store, for each answer
	Wire         = "bytes/delivery"  // on the wire, the framing of HTTP with them
	OfPlain      = "× plain"         // the same of the same messages that are not compressed
	CPUOfPlain   = "× plain CPU"
	OfRespond    = "× respond" // of what Caddy alone does
	CPUOfRespond = "× respond CPU"
	OfParts      = "× its parts"    // CPU time, of what the same would take apart
	OfOthers     = "× elsewhere"    // p99, while another server has to do the same
	OfStream     = "× idle streams" // resident, of those that go through the response
	P50          = "p50 ms"
	P99          = "p99 ms"
	Lost         = "lost"
	CutOff       = "cut off" // clients whose stream the server ended
	Disorder     = "out of order"
)

// counted are the columns that no round may have any of: they are added up, not averaged.
var counted = []string{Lost, CutOff, Disorder}

// Results are all rounds of all rows.
type Results struct {
	Rows    []Row
	Servers []Server
	rounds  map[string]map[string][]Values // by row and server
	failed  map[string]map[string]error
}

// NewResults returns results that are empty.
func NewResults(rows []Row, servers []Server) *Results {
	return &Results{
		Rows: rows, Servers: servers,
		rounds: make(map[string]map[string][]Values), failed: make(map[string]map[string]error),
	}
}

// Add enters the figures of one round.
func (r *Results) Add(row, server string, v Values) {
	if r.rounds[row] == nil {
		r.rounds[row] = make(map[string][]Values)
	}
	r.rounds[row][server] = append(r.rounds[row][server], v)
}

// Fail enters that a server could not do it.
func (r *Results) Fail(row, server string, err error) {
	if r.failed[row] == nil {
		r.failed[row] = make(map[string]error)
	}
	r.failed[row][server] = err
}

// Failures returns what servers could not do.
func (r *Results) Failures() (failures []error) {
	for row, servers := range r.failed {
		for server, err := range servers {
			failures = append(failures, fmt.Errorf("%s, %s: %w", row, server, err))
		}
	}
	return failures
}

// Figure returns a server's figure: the median of the rounds.
func (r *Results) Figure(row, server, column string) (figure float64, ok bool) {
	var all []float64
	for _, v := range r.rounds[row][server] {
		if x, ok := v[column]; ok {
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	if slices.Contains(counted, column) {
		sum := 0.0
		for _, x := range all {
			sum += x
		}
		return sum, true
	}
	return median(all), true
}

// Ratio returns a server's figure as a multiple of the limit's: the median of the rounds' ratios, so that a noisy
// round spoils both sides of a fraction or none.
func (r *Results) Ratio(row, server, column string) (ratio float64, ok bool) {
	if slices.Contains(counted, column) {
		return 0, false
	}
	limit := ""
	for _, s := range r.Servers {
		if s.Limit {
			limit = s.Key
		}
	}
	of, by := r.rounds[row][server], r.rounds[row][limit]
	var all []float64
	for i := range min(len(of), len(by)) {
		if x, y := of[i][column], by[i][column]; x > 0 && y > 0 {
			all = append(all, x/y)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	return median(all), true
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}

// format formats a column's figure.
func format(column string, x float64) string {
	if slices.Contains(counted, column) {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return number(x)
}

// number formats a figure with three significant digits, and whole ones with commas.
func number(x float64) string {
	switch {
	case x == 0:
		return "0"
	case math.Abs(x) < 100:
		digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(x)))))
		return strconv.FormatFloat(x, 'f', min(digits, 4), 64)
	}
	s := strconv.FormatFloat(x, 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Line tells the figures of one round in a line.
func (row Row) Line(v Values) string {
	var parts []string
	for _, column := range row.Columns {
		if x, ok := v[column]; ok {
			parts = append(parts, fmt.Sprintf("%s %s", format(column, x), column))
		}
	}
	return strings.Join(parts, ", ")
}
