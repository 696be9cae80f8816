package sse_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestAClientBeginsWhereItsQueryOrItsRouteSays(t *testing.T) {
	s := serve(t, openRoute+`
		sse /latest {
			since latest
		}
		sse /two {
			since -2
		}
		sse /hour {
			since 1h
		}
		sse /long-ago {
			since 2026-11-30T08:00:00Z
		}
		sse /to-come {
			since 4000000000
		}`)
	for i := range 3 {
		publish(t, s.url("/events?topic=a"), fmt.Sprint("a", i))
		publish(t, s.url("/events?topic=b"), fmt.Sprint("b", i))
	}
	middle := time.Now()
	time.Sleep(2 * time.Millisecond) // the clock, in which times are kept, goes on
	last := *publish(t, s.url("/events?topic=b"), "b3").ID
	for request, want := range map[string]string{
		"/events?":                "",
		"/events?since=now":       "",
		"/events?since=all":       "a0 b0 a1 b1 a2 b2 b3",
		"/events?since=latest":    "a2 b3",
		"/events?since=-3":        "a2 b2 b3",
		"/events?since=-1":        "b3",
		"/events?since=-99999999": "a0 b0 a1 b1 a2 b2 b3",
		"/events?since=1h":        "a0 b0 a1 b1 a2 b2 b3",
		"/events?since=2d":        "a0 b0 a1 b1 a2 b2 b3",
		"/events?since=1ns":       "",
		"/events?since=1000":      "a0 b0 a1 b1 a2 b2 b3",
		"/events?since=0":         "a0 b0 a1 b1 a2 b2 b3",
		"/events?since=" + url.QueryEscape(middle.Format(time.RFC3339Nano)):             "b3",
		"/events?since=" + middle.In(time.FixedZone("", 3600)).Format(time.RFC3339Nano): "b3",
		"/events?since=" + middle.Add(time.Hour).UTC().Format(time.RFC3339):             "",
		"/events?since=all&since=-1":       "b3",
		"/latest?":                         "a2 b3",
		"/latest?since=now":                "",
		"/latest?since=-1":                 "b3",
		"/latest?last_event_id=" + last:    "",
		"/latest?last_event_id=&since=all": "a0 b0 a1 b1 a2 b2 b3",
		"/two?":                            "b2 b3",
		"/hour?":                           "a0 b0 a1 b1 a2 b2 b3",
		"/long-ago?":                       "a0 b0 a1 b1 a2 b2 b3",
		"/to-come?":                        "",
	} {
		for _, topics := range []string{"topic=*", "topic=a&topic=b"} {
			stream := e2etest.Subscribe(t, s.url(request+"&"+topics))
			resume := "none"
			if strings.Contains(request, last) {
				resume = "complete"
			}
			if told := stream.Connected(t); told.Resume != resume {
				t.Errorf("%s is told %q", request, told.Resume)
			}
			publish(t, s.url("/events?ephemeral&topic=a"), "live")
			var got []string
			for data := ""; data != "live"; got = append(got, data) {
				data = string(mustNext(t, stream).Data)
			}
			if text := strings.Join(got, " "); text != strings.TrimSpace(want+" live") {
				t.Errorf("%s begins with %q; want %q", request, text, want)
			}
			stream.Close()
		}
	}
}

func TestMistakesInHowAClientWantsToReadAreAnsweredWithWhatToChange(t *testing.T) {
	s := serve(t, openRoute)
	const accepted = "now | all | latest | -50 | 10m | 2026-11-30T08:00:00Z | seconds"
	for query, words := range map[string]string{
		"since=":                      accepted,
		"since=yesterday":             `"yesterday" | ` + accepted,
		"since=Latest":                `"Latest" | ` + accepted,
		"since=-0":                    accepted,
		"since=%2B5":                  accepted,
		"since=-5m":                   "not in the past | " + accepted,
		"since=0s":                    "not in the past | " + accepted,
		"since=1796026266000":         "not in seconds | " + accepted,
		"since=2026-11-30":            accepted,
		"since=99999999999999999999":  accepted,
		"since=-99999999999999999999": accepted,
		"since=2026-11-30T08:00:00":   accepted,
		"since=5%00":                  accepted,
		"since=now&since=x":           `"x" | ` + accepted,
		"format=":                     "sse, envelope, ndjson or json",
		"format=xml":                  `sse, envelope, ndjson or json | "xml"`,
		"format=JSON":                 `sse, envelope, ndjson or json | "JSON"`,
		"format=json&limit=0":         `1 to 1000 | "0"`,
		"format=json&limit=1001":      `1 to 1000 | "1001"`,
		"format=json&limit=-1":        `1 to 1000 | "-1"`,
		"format=json&limit=many":      `1 to 1000 | "many"`,
		"format=json&limit=":          `1 to 1000`,
		"format=json&wait=61s":        `30s | 60s | "61s"`,
		"format=json&wait=-1s":        `30s | 60s | "-1s"`,
		"format=json&wait=30":         `30s | 60s | "30"`,
		"format=json&wait=":           "30s | 60s",
		"format=ndjson&wait=1s":       "wait | format=json",
		"limit=5":                     "limit | format=json",
		"sice=all":                    "sice | write since",
		"Since=all":                   "Since | write since",
		"fromat=json":                 "fromat | write format",
		"formats=json":                "formats | write format",
		"format=json&limits=5":        "limits | write limit",
		"format=json&wiat=5s":         "wiat | write wait",
	} {
		var split []string
		for word := range strings.SplitSeq(words, "|") {
			split = append(split, strings.TrimSpace(word))
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			answer := e2etest.Send(t, method, s.url("/events?topic=a&"+query), "")
			if method == http.MethodHead {
				if answer.Status != http.StatusBadRequest {
					t.Errorf("HEAD %s is answered %d", query, answer.Status)
				}
				continue
			}
			t.Run(query, func(t *testing.T) { wantRefusal(t, answer, http.StatusBadRequest, split...) })
		}
	}
	for _, passes := range []string{"form=1", "list=1", "once=1", "from=1", "wa=1", "sort=desc", "page=2&per_page=10", "link=x"} {
		stream := e2etest.Subscribe(t, s.url("/events?topic=a&"+passes))
		stream.Connected(t)
		stream.Close()
	}
}
