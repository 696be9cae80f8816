package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The picture's measures, in pixels.
const (
	svgWidth    = 860
	svgLabel    = 230 // of the servers' names
	svgBar      = svgWidth - svgLabel - 110
	svgLine     = 22
	svgHeader   = 72
	svgPanelTop = 30
	svgPanelGap = 18
)

// Panel is a part of the picture: one figure of one row.
type Panel struct{ Row, Column string }

// Picture draws each panel's figures as bars, and a line where the limit's ends.
func (r *Results) Picture(caption string, panels []Panel) string {
	var body strings.Builder
	y := svgHeader
	for _, p := range panels {
		y = r.drawPanel(&body, p, y)
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="13">
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="10" y="22" font-size="16" font-weight="bold">Server-sent events, server by server</text>
<text x="10" y="42" fill="#555">%[3]s.</text>
<text x="10" y="60" fill="#555">Shorter is better. The line is the least that the work can cost: a bare loop of write(2).</text>
%[4]s</svg>
`, svgWidth, y, escape(caption), body.String())
}

type bar struct {
	server Server
	figure float64
}

func (r *Results) drawPanel(w io.Writer, p Panel, y int) (next int) {
	var bars []bar
	limit, highest := 0.0, 0.0
	for _, s := range r.Servers {
		x, ok := r.Figure(p.Row, s.Key, p.Column)
		if !ok || x <= 0 {
			continue
		}
		if s.Limit {
			limit = x
		}
		bars = append(bars, bar{s, x})
		highest = max(highest, x)
	}
	if len(bars) == 0 {
		return y
	}
	length := func(x float64) float64 { return max(1, svgBar*x/highest) }
	fmt.Fprintf(w, "<text x=\"10\" y=\"%d\" font-weight=\"bold\">%s: %s</text>\n", y+18, escape(r.title(p.Row)), escape(p.Column))
	top := y + svgPanelTop
	for i, b := range bars {
		at := top + i*svgLine
		fmt.Fprintf(w, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", svgLabel-8, at+13, escape(b.server.Name))
		fmt.Fprintf(w, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"16\" fill=\"%s\"/>\n", svgLabel, at, length(b.figure), color(b.server))
		fmt.Fprintf(w, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", svgLabel+length(b.figure)+6, at+13, number(b.figure))
	}
	bottom := top + len(bars)*svgLine
	if limit > 0 {
		fmt.Fprintf(w, "<path d=\"M%.1f %dV%d\" stroke=\"#333\" stroke-dasharray=\"3 3\"/>\n", svgLabel+length(limit), top-4, bottom)
	}
	return bottom + svgPanelGap
}

func color(s Server) string {
	switch {
	case s.Ours:
		return "#1f88c0"
	case s.Limit:
		return "#777"
	}
	return "#c9a86a"
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes it
	return b.String()
}
