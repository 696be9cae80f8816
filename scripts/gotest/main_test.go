package main

import (
	"strings"
	"testing"
)

func TestOutputIsWhatGoTestPrints(t *testing.T) {
	for name, c := range map[string]struct{ events, want string }{
		"passed": {
			`{"Action":"output","Package":"p","Output":"noise\n"}
			{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
			{"Action":"output","Package":"p","Test":"TestA","Output":"--- PASS: TestA (1.00s)\n"}
			{"Action":"pass","Package":"p","Test":"TestA","Elapsed":1}
			{"Action":"output","Package":"p","Output":"PASS\n"}
			{"Action":"output","Package":"p","Output":"ok  \tp\t1.000s\n"}
			{"Action":"pass","Package":"p","Elapsed":1}`,
			"ok  \tp\t1.000s\n",
		},
		"failed": {
			`{"Action":"output","Package":"p","Test":"TestA","Output":"--- PASS: TestA (1.00s)\n"}
			{"Action":"pass","Package":"p","Test":"TestA"}
			{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
			{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: wrong\n"}
			{"Action":"output","Package":"p","Test":"TestB","Output":"--- FAIL: TestB (0.00s)\n"}
			{"Action":"fail","Package":"p","Test":"TestB"}
			{"Action":"output","Package":"p","Output":"FAIL\n"}
			{"Action":"output","Package":"p","Output":"FAIL\tp\t1.000s\n"}
			{"Action":"fail","Package":"p","Elapsed":1}`,
			"    b_test.go:1: wrong\n--- FAIL: TestB (0.00s)\nFAIL\nFAIL\tp\t1.000s\n",
		},
		"killed":       {`{"Action":"output","Package":"p","Test":"TestA","Output":"so far\n"}`, "so far\n"},
		"not compiled": {`{"Action":"build-output","ImportPath":"p","Output":"p.go:1: undefined\n"}`, "p.go:1: undefined\n"},
		"not JSON":     {"go: no such package\n", "go: no such package\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var printed, times strings.Builder
			if err := readEvents(strings.NewReader(c.events), "", newOutput(&printed, &times)); err != nil {
				t.Fatal(err)
			}
			if printed.String() != c.want {
				t.Errorf("printed %q, want %q", printed.String(), c.want)
			}
		})
	}
}

func TestRunsAreSplit(t *testing.T) {
	for arguments, want := range map[string]int{"./...": 1, "X=1 -p 2 . -- -p 1 ./a": 2} {
		if got := split(strings.Fields(arguments)); len(got) != want {
			t.Errorf("%s: split into %q", arguments, got)
		}
	}
}
