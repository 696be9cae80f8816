package sse_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// withHistory is an open route whose hub keeps what the option says.
func withHistory(t testing.TB, history string) *site {
	t.Helper()
	return serve(t, openRoute, globals("sse {\n"+history+"\n}"))
}

func TestReturningClientGetsExactlyWhatItMissed(t *testing.T) {
	s := serve(t, openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		topic := url.QueryEscape("for " + p.name)
		stream := e2etest.Subscribe(t, p.url("/events?client_id=x&topic="+topic), p.via)
		connected := stream.Connected(t)
		publish(t, p.url("/events?topic="+topic), "had")
		had := stream.Expect(t, "had")
		stream.Close()
		publish(t, p.url("/events?topic="+topic), "missed")
		publish(t, p.url("/events?topic=other"), "not mine")
		publish(t, p.url("/events?client_id=x"), "missed too")
		publish(t, p.url("/events?topic="+topic+"&ephemeral"), "passed")

		for how, again := range map[string]*e2etest.Stream{
			"header":      e2etest.Subscribe(t, p.url("/events?client_id=x&topic="+topic), p.via, e2etest.LastEventID(had.ID)),
			"lastEventId": e2etest.Subscribe(t, p.url("/events?client_id=x&topic="+topic+"&lastEventId="+had.ID), p.via),
			"the last of several": e2etest.Subscribe(t,
				p.url("/events?client_id=x&topic="+topic+"&last_event_id=a&lastEventId=b&last_event_id=c&lastEventID="+had.ID), p.via),
			"query": e2etest.Subscribe(t, p.url("/events?client_id=x&topic="+topic+"&last_event_id="+had.ID), p.via),
			"the header wins": e2etest.Subscribe(t, p.url("/events?client_id=x&topic="+topic+"&last_event_id=unknown"), p.via,
				e2etest.LastEventID(had.ID)),
		} {
			told := again.Connected(t)
			if told.Resume != "complete" || told.ID != had.ID || told.ClientID != "x" {
				t.Errorf("%s: resumed after %s and was told %+v", how, had.ID, told)
			}
			again.Expect(t, "missed")
			again.Expect(t, "missed too")
		}
		// One that has not had a message yet goes on from the position it was told.
		fresh := e2etest.Subscribe(t, p.url("/events?client_id=x&topic="+topic), p.via, e2etest.LastEventID(connected.ID))
		if told := fresh.Connected(t); told.Resume != "complete" || told.ID != connected.ID {
			t.Errorf("resumed after %s and was told %+v", connected.ID, told)
		}
		for _, data := range []string{"had", "missed", "missed too"} {
			fresh.Expect(t, data)
		}
		publish(t, p.url("/events?topic="+topic), "live")
		fresh.Expect(t, "live")
	})
}

func TestNewClientBeginsAtThePresentPosition(t *testing.T) {
	s := serve(t, openRoute)
	publish(t, s.url("/events?topic=a"), "before")
	latest := *publish(t, s.url("/events?topic=b"), "before").ID
	stream := e2etest.Subscribe(t, s.url("/events?topic=a"))
	if told := stream.Connected(t); told.Resume != "none" || told.ID != latest {
		t.Errorf("joined after %s and was told %+v", latest, told)
	}
	publish(t, s.url("/events?topic=a"), "after")
	stream.Expect(t, "after")
	empty := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.Header("Last-Event-ID", ""))
	if told := empty.Connected(t); told.Resume != "none" {
		t.Errorf("an empty Last-Event-ID was told %q", told.Resume)
	}
}

func TestUnknownIDIsAGapAndNeverAnError(t *testing.T) {
	s := serve(t, openRoute)
	first := *publish(t, s.url("/events?topic=a"), "one").ID
	publish(t, s.url("/events?topic=a"), "two")
	epoch, _, _ := strings.Cut(first, "-")
	for _, id := range []string{
		"7", "-", "-1", epoch, epoch + "-", epoch + "-3", epoch + "-999999999999", epoch + "-1-1", epoch + "-1-0", epoch + "-01",
		epoch + "-+1", epoch + "--1", epoch + "-1 ", epoch + "-99999999999999999999", strings.ToUpper(epoch) + "x-1", "0123456789abcdef-1",
		"*", "\u00e9", strings.Repeat("9", 4000), `","resume":"complete`, "a\nb", "a\x00b",
	} {
		stream := e2etest.Subscribe(t, s.url("/events?topic=a&last_event_id="+url.QueryEscape(id)))
		if told := stream.Connected(t); told.Resume != "gap" || told.ID != epoch+"-0" {
			t.Errorf("%q: told %+v", id, told)
		}
		stream.Expect(t, "one") // replay starts with the oldest kept message
		stream.Expect(t, "two")
		stream.Close()
	}
	nothing := e2etest.Subscribe(t, s.url("/events?topic=nothing"), e2etest.LastEventID("unknown"))
	if told := nothing.Connected(t); told.Resume != "gap" || told.ID != epoch+"-2" {
		t.Errorf("without anything kept, told %+v", told)
	}
}

func TestTrimmedMessagesAreToldAsAGap(t *testing.T) {
	s := withHistory(t, "history 3")
	ids := make([]string, 10)
	for i := range ids {
		ids[i] = *publish(t, s.url("/events?topic=a"), strconv.Itoa(i)).ID
		publish(t, s.url("/events?topic=b"), "other")
	}
	for i, want := range map[int]string{0: "gap", 5: "gap", 6: "complete", 8: "complete", 9: "complete"} {
		stream := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.LastEventID(ids[i]))
		if told := stream.Connected(t); told.Resume != want {
			t.Errorf("resuming after message %d of 0 to 9, of which 3 are kept, is %q", i, told.Resume)
		}
		for next := max(7, i+1); next < len(ids); next++ {
			if event := stream.Expect(t, strconv.Itoa(next)); event.ID != ids[next] {
				t.Errorf("message %d has the ID %s, and had %s", next, event.ID, ids[next])
			}
		}
		stream.Close()
	}
	// What was trimmed for others is no loss of ours.
	other := e2etest.Subscribe(t, s.url("/events?topic=c"), e2etest.LastEventID(ids[0]))
	if told := other.Connected(t); told.Resume != "complete" {
		t.Errorf("a topic that lost nothing is told %q", told.Resume)
	}
}

func TestWithoutHistoryWhatWasMissedIsAGap(t *testing.T) {
	s := withHistory(t, "history off")
	stream := e2etest.Subscribe(t, s.url("/events?topic=a"))
	start := stream.Connected(t).ID
	publish(t, s.url("/events?topic=a"), "live")
	had := stream.Expect(t, "live").ID
	for id, want := range map[string]string{start: "gap", had: "complete"} {
		again := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.LastEventID(id))
		if told := again.Connected(t); told.Resume != want {
			t.Errorf("after %s, told %q, want %q", id, told.Resume, want)
		}
	}
}

// For an unknown ID nothing is known of what was missed; the whole past of many topics would be too much.
func TestUnknownIDReplaysAtMostHistoryOverAllTopics(t *testing.T) {
	s := withHistory(t, "history 5")
	for i := range 12 {
		publish(t, s.url(fmt.Sprintf("/events?topic=t/%d", i%4)), strconv.Itoa(i))
	}
	stream := e2etest.Subscribe(t, s.url("/events?topic=t/*"), e2etest.LastEventID("unknown"))
	if told := stream.Connected(t); told.Resume != "gap" {
		t.Errorf("told %q", told.Resume)
	}
	for i := 7; i < 12; i++ {
		stream.Expect(t, strconv.Itoa(i))
	}
}

func TestReplayCutInTheMiddleResumesRightly(t *testing.T) {
	s := withHistory(t, "history 5000")
	var body strings.Builder
	const n = 2000
	for i := range n {
		fmt.Fprintf(&body, "%d %s\n", i, strings.Repeat("x", 200))
	}
	stream := e2etest.Subscribe(t, s.url("/events?topic=a"))
	id := stream.Connected(t).ID
	stream.Close()
	answer := post(t, s.url("/events?topic=a"), "application/x-ndjson", body.String())
	if answer.Status != http.StatusOK {
		t.Fatal(answer.Body)
	}
	for next := 0; next < n; {
		part := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.LastEventID(id))
		if told := part.Connected(t); told.Resume != "complete" || told.ID != id {
			t.Fatalf("after %s, told %+v", id, told)
		}
		for range 300 { // and leaves with more on its way
			event, err := part.Next(patience)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, _ := strings.Cut(string(event.Data), " "); got != strconv.Itoa(next) {
				t.Fatalf("message %s follows message %d", got, next-1)
			}
			if next++; next == n {
				break
			}
		}
		id = part.LastID()
		part.Close()
	}
}

func TestStreamsAndResumeOutliveAReload(t *testing.T) {
	s := serve(t, openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := e2etest.Subscribe(t, p.url("/events?topic=a"), p.via)
		start := stream.Connected(t).ID
		before := publish(t, p.url("/events?topic=a"), "before", e2etest.Header("Idempotency-Key", p.name))
		if err := s.load(); err != nil {
			t.Fatal(err)
		}
		if again := persist(t, p.url("/events?topic=a"), "before", p.name); *again.ID != *before.ID {
			t.Errorf("the idempotency key was forgotten: %s became %s", *before.ID, *again.ID)
		}
		persist(t, p.url("/events?topic=a"), "after", "after "+p.name)
		stream.Expect(t, "before")
		stream.Expect(t, "after")
		again := e2etest.Subscribe(t, p.url("/events?topic=a"), e2etest.LastEventID(start))
		if told := again.Connected(t); told.Resume != "complete" {
			t.Errorf("after the reload, told %q", told.Resume)
		}
		again.Expect(t, "before")
		again.Expect(t, "after")
	})
}

// persist publishes under a key until there is an answer: the listener that a reload closes may have taken
// the connection with it.
func persist(t *testing.T, url, body, idempotencyKey string) (r receipt) {
	t.Helper()
	eventually(t, patience, "an answer", func() bool {
		answer, err := e2etest.Do(t.Context(), http.MethodPost, url, body, key(idempotencyKey))
		if err != nil {
			return false
		}
		answer.Decode(t, &r)
		return true
	})
	return r
}
