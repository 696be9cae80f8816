package report

import (
	"fmt"
	"io"
	"strings"
)

// Tables writes a table for each row: its servers, their figures, and beside those what multiple of the limit's they are.
func (r *Results) Tables(w io.Writer) {
	for _, row := range r.Rows {
		if r.rounds[row.Key] == nil && r.failed[row.Key] == nil {
			continue
		}
		fmt.Fprintf(w, "\n### %s\n\n", row.Title)
		table := [][]string{append([]string{""}, row.Columns...)}
		for _, s := range r.Servers {
			if cells := r.cells(row, s); cells != nil {
				table = append(table, cells)
			}
		}
		writeTable(w, 1, table)
	}
}

// cells returns the line of a server in a row's table; nil if it took no part.
func (r *Results) cells(row Row, s Server) []string {
	if err := r.failed[row.Key][s.Key]; err != nil {
		message, _, _ := strings.Cut(err.Error(), "\n")
		return append([]string{s.Name, "failed: " + message}, make([]string, len(row.Columns)-1)...)
	}
	if r.rounds[row.Key][s.Key] == nil {
		return nil
	}
	cells := []string{s.Name}
	for _, column := range row.Columns {
		figure, ok := r.Figure(row.Key, s.Key, column)
		cell := ""
		if ok {
			cell = format(column, figure)
		}
		if ratio, ok := r.Ratio(row.Key, s.Key, column); ok && !s.Limit {
			cell += fmt.Sprintf(" (%s ×)", number(ratio))
		}
		cells = append(cells, cell)
	}
	return cells
}

// writeTable writes a Markdown table that reads well in a terminal, too. The first so many columns are text, the others numbers.
func writeTable(w io.Writer, texts int, table [][]string) {
	width := make([]int, len(table[0]))
	for _, cells := range table {
		for i, cell := range cells {
			width[i] = max(width[i], len([]rune(cell)), 3)
		}
	}
	for n, cells := range table {
		var line strings.Builder
		for i, cell := range cells {
			format := "| %*s "
			pad := width[i]
			if i < texts {
				pad = -pad
			}
			fmt.Fprintf(&line, format, pad, cell)
		}
		fmt.Fprintln(w, line.String()+"|")
		if n > 0 {
			continue
		}
		line.Reset()
		for i := range cells {
			rule := strings.Repeat("-", width[i]+2)
			if i >= texts {
				rule = rule[1:] + ":"
			}
			line.WriteString("|" + rule)
		}
		fmt.Fprintln(w, line.String()+"|")
	}
}
