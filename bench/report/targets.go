package report

import (
	"fmt"
	"io"
)

// Target is a bound that this repository's Caddy is to keep.
type Target struct {
	Row, Server, Column string
	Bound               float64
	OfLimit             bool // it is a multiple of the limit's figure in the same run
	AtLeast             bool // else: at most
}

// Verdict is what became of a target.
type Verdict struct {
	Target
	Measured float64
	Holds    bool
}

// Judge compares the targets with what was measured. What was not measured is left out.
func (r *Results) Judge(targets []Target) (verdicts []Verdict) {
	for _, t := range targets {
		of := r.Figure
		if t.OfLimit {
			of = r.Ratio
		}
		if measured, ok := of(t.Row, t.Server, t.Column); ok {
			holds := measured <= t.Bound
			if t.AtLeast {
				holds = measured >= t.Bound
			}
			verdicts = append(verdicts, Verdict{t, measured, holds})
		}
	}
	return verdicts
}

// Exact adds to the targets that no server of ours loses a message, sends one out of order or cuts off a client, in any
// row.
func (r *Results) Exact(targets []Target) []Target {
	for _, row := range r.Rows {
		for _, s := range r.Servers {
			for _, column := range counted {
				if s.Ours {
					targets = append(targets, Target{Row: row.Key, Server: s.Key, Column: column})
				}
			}
		}
	}
	return targets
}

// Verdicts writes the table of targets. Counts that are as they must be, namely zero, share a line.
func (r *Results) Verdicts(w io.Writer, verdicts []Verdict) {
	table := [][]string{{"", "server", "figure", "target", "measured", "holds"}}
	clean := 0
	for _, v := range verdicts {
		if v.Bound == 0 && v.Holds {
			clean++
			continue
		}
		comparison, unit := "<=", ""
		if v.AtLeast {
			comparison = ">="
		}
		if v.OfLimit {
			unit = " ×"
		}
		holds := "yes"
		if !v.Holds {
			holds = "**no**"
		}
		table = append(table, []string{
			r.title(v.Row), r.name(v.Server), v.Column,
			comparison + " " + format(v.Column, v.Bound) + unit, format(v.Column, v.Measured) + unit, holds,
		})
	}
	if len(table) > 1 {
		writeTable(w, 3, table)
		fmt.Fprintln(w)
	}
	if clean > 0 {
		fmt.Fprintf(w, "Of the %d counts of messages lost or out of order, or of clients cut off, %d are 0, as they have to be.\n",
			clean+r.unclean(verdicts), clean)
	}
}

// unclean counts what should be zero and is not.
func (r *Results) unclean(verdicts []Verdict) (n int) {
	for _, v := range verdicts {
		if v.Bound == 0 && !v.Holds {
			n++
		}
	}
	return n
}

func (r *Results) title(row string) string {
	for _, other := range r.Rows {
		if other.Key == row {
			return other.Title
		}
	}
	return row
}

func (r *Results) name(server string) string {
	for _, s := range r.Servers {
		if s.Key == server {
			return s.Name
		}
	}
	return server
}
