package sse_test

import (
	"bufio"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// Requests here are long by a part of no use. What remains of them is to be short.
const (
	uselessBytes = 64 << 10
	requests     = 100
	mayRemain    = requests * uselessBytes / 4
)

// wantLittleToRemain checks how much more memory is in use once something was done, and the last of it has ended.
func wantLittleToRemain(t *testing.T, do func()) {
	t.Helper()
	inUse := func() int64 {
		runtime.GC()
		runtime.GC() // pools give up what they have had for two cycles
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := inUse()
	do()
	what := fmt.Sprintf("%d KiB or less of %d requests of %d KiB remain", mayRemain>>10, requests, uselessBytes>>10)
	eventually(t, patience, what, func() bool { return inUse()-before <= mayRemain })
}

func TestDirectStreamKeepsNothingOfItsRequest(t *testing.T) {
	s := serve(t, `
		sse /events {
			user {query.user}
			client_id {query.client}
			publish {
				open
			}
			direct_writes on
		}`, longHeads)
	useless := strings.Repeat("x", uselessBytes)
	var bodies []*bufio.Reader
	wantLittleToRemain(t, func() {
		for i := range requests {
			conn := s.dial()
			_, err := fmt.Fprintf(conn, "GET /events?useless=%s&topic=a&topic=b/*&user=u&client=%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nLast-Event-ID: %[1]s\r\n\r\n", useless, i, s.port)
			if err != nil {
				t.Fatal(err)
			}
			body := bufio.NewReader(conn)
			for line := ""; line != "event: connected\n"; {
				if line, err = body.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			bodies = append(bodies, body)
		}
	})
	if n := receivers(t, s.url("/events?topic=a")); n != len(bodies) {
		t.Errorf("%d of %d are there", n, len(bodies))
	}
}

func TestKeptMessageKeepsNothingElseOfItsRequest(t *testing.T) {
	s := serve(t, openRoute, longHeads)
	useless := strings.Repeat("x", uselessBytes)
	twice := strings.Repeat("topic=a&", uselessBytes/len("topic=a&"))
	for from, send := range map[string]func(){
		"a URL": func() { publish(t, s.url("/events?event=e&topic=a&useless="+useless), "1") },
		"a form": func() {
			if answer := post(t, s.url("/events"), formType, "event=e&data=1&"+twice); answer.Status != http.StatusOK {
				t.Fatalf("answered %d %s", answer.Status, answer.Body)
			}
		},
	} {
		t.Run("of "+from, func(t *testing.T) {
			wantLittleToRemain(t, func() {
				for range requests {
					send()
				}
			})
		})
	}
}
