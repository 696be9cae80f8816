package report

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func example() *Results {
	r := NewResults(
		[]Row{{Key: "a", Title: "Row A", Columns: []string{CPU, Publishes, Lost}}, {Key: "b", Title: "Row B", Columns: []string{CPU, Lost}}},
		[]Server{
			{Key: "limit", Name: "Limit", Limit: true},
			{Key: "ours", Name: "Ours & <us>", Ours: true},
			{Key: "peer", Name: "Peer"},
			{Key: "absent", Name: "Absent", Lacks: "it is not there"},
		})
	for i, limit := range []float64{10, 20, 90} { // the last round was noisy, for both
		r.Add("a", "limit", Values{CPU: limit, Publishes: 1000})
		r.Add("a", "ours", Values{CPU: limit / float64(2+i), Publishes: 1500, Lost: float64(i)})
	}
	r.Add("b", "peer", Values{CPU: 123456, Lost: 0})
	r.Fail("b", "ours", errors.New("it broke\nand more"))
	return r
}

func TestFiguresAreMediansAndRatiosAreOfTheSameRound(t *testing.T) {
	r := example()
	for _, test := range []struct {
		of     func(row, server, column string) (float64, bool)
		server string
		column string
		want   float64
		ok     bool
	}{
		{r.Figure, "limit", CPU, 20, true},
		{r.Figure, "ours", CPU, 20. / 3, true},
		{r.Ratio, "ours", CPU, 1. / 3, true},
		{r.Ratio, "ours", Publishes, 1.5, true},
		{r.Figure, "ours", Lost, 3, true}, // added up: no round may lose any
		{r.Ratio, "ours", Lost, 0, false},
		{r.Figure, "peer", CPU, 0, false},
		{r.Ratio, "peer", CPU, 0, false},
	} {
		got, ok := test.of("a", test.server, test.column)
		if ok != test.ok || got < test.want*0.999 || got > test.want*1.001 {
			t.Errorf("%s of %s is %v, %v; want %v, %v", test.column, test.server, got, ok, test.want, test.ok)
		}
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("the median of an even number is %v", m)
	}
}

func TestTargetsAreJudged(t *testing.T) {
	r := example()
	verdicts := r.Judge([]Target{
		{Row: "a", Server: "ours", Column: CPU, Bound: 0.3, OfLimit: true},
		{Row: "a", Server: "ours", Column: CPU, Bound: 0.34, OfLimit: true},
		{Row: "a", Server: "ours", Column: CPU, Bound: 6},
		{Row: "a", Server: "ours", Column: Publishes, Bound: 1.5, OfLimit: true, AtLeast: true},
		{Row: "a", Server: "ours", Column: Publishes, Bound: 1.6, OfLimit: true, AtLeast: true},
		{Row: "a", Server: "ours", Column: P99, Bound: 1}, // was not measured
	})
	var holds []bool
	for _, v := range verdicts {
		holds = append(holds, v.Holds)
	}
	want := []bool{false, true, false, true, false}
	if len(holds) != len(want) {
		t.Fatalf("%d verdicts", len(holds))
	}
	for i := range want {
		if holds[i] != want[i] {
			t.Errorf("verdict %d is %+v", i, verdicts[i])
		}
	}
}

func TestLossIsToldAndCleanCountsShareALine(t *testing.T) {
	r := example()
	r.Add("b", "ours", Values{Lost: 0, Disorder: 0})
	var out strings.Builder
	r.Verdicts(&out, r.Judge(r.Exact(nil)))
	for _, want := range []string{"| Row A | Ours & <us> | ", "lost |", "| **no** |", "Of the 3 counts", "2 are 0"} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("there is no %q in\n%s", want, &out)
		}
	}
}

func TestTablesTellFiguresRatiosAndFailures(t *testing.T) {
	var out strings.Builder
	example().Tables(&out)
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"### Row A", "| Limit | 20.0 | 1,000 |", "| Ours & <us> | 6.67 (0.333 ×) | 1,500 (1.50 ×) | 3 |",
		"| Ours & <us> | failed: it broke |", "| Peer | 123,456 | 0 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(text, "Absent") {
		t.Error("a server that took no part has a line")
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 0.01234: "0.0123", 0.000001: "0.0000", 1: "1.00", 12.34: "12.3", 99.96: "100.0",
		100: "100", 999.6: "1,000", 1234567: "1,234,567", -1234: "-1,234", -5: "-5.00",
	} {
		if got := number(x); got != want {
			t.Errorf("%v is written %q; want %q", x, got, want)
		}
	}
}

func TestPictureIsXMLWithABarForEachFigure(t *testing.T) {
	picture := example().Picture("A & B", []Panel{{"a", CPU}, {"b", CPU}, {"b", P99}})
	bars := 0
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 1+2+1 { // the background, and two panels
		t.Errorf("there are %d rectangles in\n%s", bars, picture)
	}
	if strings.Contains(picture, "Row B: "+P99) {
		t.Error("a panel without figures is drawn")
	}
}
