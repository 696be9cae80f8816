package e2etest

import (
	"strings"
	"testing"
)

func TestCrashesAreFoundInLogs(t *testing.T) {
	for log, crash := range map[string]bool{
		"": false,
		`{"level":"info","msg":"no panic: all is well"}` + "\n": false,
		"panic: at the first byte":                              true,
		"{}\npanic: boom\n\ngoroutine 1 [running]:":             true,
		"{}\nfatal error: concurrent map writes\n":              true,
		"{}\n==================\nWARNING: DATA RACE\nRead at ":  true,
		`{"msg":"http: panic serving 127.0.0.1:1: boom"}`:       true,
	} {
		found := findCrash(log)
		if (found != "") != crash || !strings.Contains(log, found) {
			t.Errorf("in %q: %q", log, found)
		}
	}
}
