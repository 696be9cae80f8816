package mercure

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// cursorOfAnswer is what the header of a stream's answer tells; "-" if there is none.
func cursorOfAnswer(stream *e2etest.Stream) string {
	values := stream.Response.Header.Values("Last-Event-ID")
	if len(values) == 0 {
		return "-"
	}
	return strings.Join(values, ", ")
}

// transports are the options of hubs by where they keep updates, each with a place of its own.
func transports(t *testing.T) map[string]string {
	return map[string]string{
		"local": "transport local\n",
		"bolt":  "transport bolt {\npath {{dir}}/updates.db\n}\n",
		"redis": "transport redis {\nurl " + e2etest.RedisServer(t).URL() + "\n}\n",
	}
}

func TestRule33To41AClientGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	for name, transport := range transports(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clientsGoOn(t, serve(t, "anonymous\n"+transport))
		})
	}
}

func clientsGoOn(t *testing.T, s *site) {
	var ids []string
	for i, pairs := range [][]string{
		{"topic", "a"},
		{"topic", "a", "id", "chosen"},
		{"topic", "b", "id", "of another topic"},
		{"topic", "a", "private", "on"},
		{"topic", "a", "topic", "b", "id", "urn:uuid:0b6f3a64-6a4f-4a5e-9d3b-0f6f5d8c7e21"},
	} {
		ids = append(ids, s.publish(append(pairs, "data", fmt.Sprint(i+1))...))
	}
	// By each ID, chosen or not, of whatever topic, the client gets all after it that is for it, and what comes.
	var streams []*e2etest.Stream
	var wanted [][]string
	for _, c := range []struct {
		after, told string
		want        []string
	}{
		{ids[0], ids[0], []string{"2", "5"}},
		{ids[1], ids[1], []string{"5"}},
		{ids[2], ids[2], []string{"5"}},
		{ids[3], ids[3], []string{"5"}},
		{ids[4], ids[4], nil},
		{"", "-", nil},
		{"earliest", "earliest", []string{"1", "2", "5"}},
		{"nobody knows this", "earliest", []string{"1", "2", "5"}},
	} {
		for _, stream := range []*e2etest.Stream{
			s.subscribe([]string{"a"}, e2etest.LastEventID(c.after)),
			e2etest.Subscribe(t, s.topics("a")+"&lastEventID="+url.QueryEscape(c.after)),
		} {
			if got := cursorOfAnswer(stream); got != c.told {
				t.Errorf("after %q the answer tells %q", c.after, got)
			}
			streams, wanted = append(streams, stream), append(wanted, c.want)
		}
	}
	s.publish("topic", "a", "data", "live")
	for i, stream := range streams {
		for _, event := range wantTexts(t, stream, append(wanted[i], "live")...) {
			if event.ID == "" { // rule 34
				t.Errorf("the event %q has no ID", event.Data)
			}
		}
	}
}

func TestRule33PrivateUpdatesOnReplay(t *testing.T) {
	t.Parallel()
	for name, transport := range transports(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, "anonymous\n"+transport)
			s.publish("topic", "a", "data", "1")
			s.publish("topic", "a", "topic", "users/alice", "private", "on", "data", "2")
			s.publish("topic", "a", "topic", "users/bob", "private", "on", "data", "3")
			s.publish("topic", "a", "data", "4")
			all := e2etest.LastEventID("earliest")
			wantTexts(t, s.subscribe([]string{"a"}, all), "1", "4")
			wantTexts(t, s.subscribe([]string{"*"}, all, bearer(subscribing("users/{name}"))), "1", "2", "3", "4")
			wantTexts(t, s.subscribe([]string{"{x}"}, all, bearer(subscribing("users/alice"))), "1", "2", "4")
			wantTexts(t, s.subscribe([]string{"*"}, all, bearer(subscribing("b"))), "1", "4")
		})
	}
}

func TestRule35And36SpellingsOfTheCursor(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	first, second := s.publish("topic", "a", "data", "1"), s.publish("topic", "a", "data", "2")
	s.publish("topic", "a", "data", "3")
	first, second = url.QueryEscape(first), url.QueryEscape(second)
	for query, told := range map[string]string{
		"lastEventID=" + second:                                 second,
		"lastEventId=" + second:                                 second,
		"Last-Event-ID=" + second:                               second,
		"lastEventID=" + second + "&Last-Event-ID=" + second:    second,
		"lastEventID=" + first + "&lastEventId=" + second:       second, // as a polyfill appends it
		"lastEventID=" + second + "&lastEventId=":               second,
		"lasteventid=&last_event=" + first:                      "",
		"lastEventID=" + strings.ReplaceAll(second, "%3A", ":"): second,
	} {
		stream := e2etest.Subscribe(t, s.topics("a")+"&"+query)
		want, _ := url.QueryUnescape(told)
		if want == "" {
			want = "-"
		}
		if got := cursorOfAnswer(stream); got != want {
			t.Errorf("%s: the answer tells %q, want %q", query, got, want)
		}
		stream.Close()
	}
	s.publish("topic", "a", "data", "4", "id", "é")
	for _, header := range []string{"é", "\xe9"} { // of EventSource, of fetch
		stream := s.subscribe([]string{"a"}, e2etest.LastEventID(header))
		if got := cursorOfAnswer(stream); got != "é" {
			t.Errorf("%q: the answer tells %q", header, got)
		}
	}
	stream := e2etest.Subscribe(t, s.topics("a")+"&lastEventID="+first, e2etest.Header("Last-Event-ID", "earliest"))
	wantTexts(t, stream, "1", "2", "3")
	empty := e2etest.Subscribe(t, s.topics("a")+"&lastEventID="+first, e2etest.Header("Last-Event-ID", " "))
	wantTexts(t, empty, "2", "3")
}

func TestRule41OfAnIDThatIsUsedTwiceTheOlderCounts(t *testing.T) {
	t.Parallel()
	for name, transport := range transports(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, "anonymous\n"+transport)
			s.publish("topic", "a", "id", "x", "data", "1")
			s.publish("topic", "a", "data", "2")
			s.publish("topic", "a", "id", "x", "data", "3")
			s.publish("topic", "a", "data", "4")
			wantTexts(t, s.subscribe([]string{"a"}, e2etest.LastEventID("x")), "2", "3", "4")
		})
	}
}

// After a restart a client goes on by any ID, if its hub keeps updates over restarts.
func TestIDsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	for name, transport := range transports(t) {
		if name == "local" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, "anonymous\n"+transport)
			made := s.publish("topic", "a", "data", "1")
			s.publish("topic", "a", "data", "2", "id", "chosen")
			s.publish("topic", "a", "topic", "b", "data", "3", "private", "on")
			s.Restart()
			s.publish("topic", "a", "data", "4")
			wantTexts(t, s.subscribe([]string{"a"}, e2etest.LastEventID(made)), "2", "4")
			stream := s.subscribe([]string{"{x}"}, e2etest.LastEventID("chosen"), bearer(subscribing("b")))
			if told := cursorOfAnswer(stream); told != "chosen" {
				t.Errorf("the answer tells %q", told)
			}
			wantTexts(t, stream, "3", "4")
		})
	}
}

func TestStreamsLiveThroughAReload(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	stream := s.subscribe([]string{"a"})
	s.publish("topic", "a", "data", "1")
	if err := s.Reload(siteWith("", inMemory+"heartbeat 1s\n")); err != nil {
		t.Fatal(err)
	}
	s.publish("topic", "a", "data", "2")
	wantTexts(t, stream, "1", "2")
}

// The farewell is no event, and the client keeps its ID.
func TestExitTellsWhenToComeBack(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory+"heartbeat 0s")
	stream := s.subscribe([]string{"a"})
	s.publish("topic", "a", "data", "1", "id", "x")
	wantTexts(t, stream, "1")
	s.Stop()
	if err := stream.Ended(patience); err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
	farewell, found := strings.CutPrefix(stream.Raw(), ":\nid: x\ndata: 1\n\n:\nretry: ")
	if !found || strings.Trim(farewell, "0123456789") != "\n" {
		t.Errorf("the stream was %q", stream.Raw())
	}
}

func TestInstancesOverRedis(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	options := "anonymous\ntransport redis {\naddress " + redis.Addr() + "\nstream updates\n}\n"
	one, two := serve(t, options), serve(t, options)
	listener := two.subscribe([]string{"books/{id}"})
	private := two.subscribe([]string{"*"}, bearer(subscribing("users/{name}")))
	made := one.publish("topic", "books/1", "data", "1")
	chosen := one.publish("topic", "books/2", "id", "chosen", "data", "2")
	one.publish("topic", "books/3", "topic", "users/alice", "private", "", "data", "3")
	two.publish("topic", "books/4", "data", "4")
	wantTexts(t, listener, "1", "2", "4")
	wantTexts(t, private, "1", "2", "3", "4")
	for _, s := range []*site{one, two} {
		for id, want := range map[string][]string{made: {"2", "4"}, chosen: {"4"}, "unknown": {"1", "2", "4"}} {
			stream := s.subscribe([]string{"books/{id}"}, e2etest.LastEventID(id))
			told := id
			if id == "unknown" {
				told = "earliest"
			}
			if got := cursorOfAnswer(stream); got != told {
				t.Errorf("after %s the answer tells %q", id, got)
			}
			wantTexts(t, stream, want...)
			stream.Close()
		}
	}
	// A client that comes to the other instance at once, with the ID that the publisher has just been given.
	for i := range 50 {
		id := one.publish("topic", "books/9", "id", fmt.Sprint("fast-", i), "data", "fast")
		stream := two.subscribe([]string{"books/9"}, e2etest.LastEventID(id))
		if got := cursorOfAnswer(stream); got != id {
			t.Fatalf("after %s the answer tells %q", id, got)
		}
		stream.Close()
	}
}

// What is private stays private, whatever a route of "sse" on the same hub asks for.
func TestPrivateUpdatesReachNoRouteOfSSE(t *testing.T) {
	t.Parallel()
	s := shared(t, "anonymous")
	streams := []*e2etest.Stream{}
	for _, query := range []string{"topic=a", "topic=**", "topic=*", "topic=a&client_id=a&topic=**", "topic=**&since=all"} {
		streams = append(streams, e2etest.Subscribe(t, s.URL("/events?"+query)))
	}
	mercure := s.subscribe([]string{"*"}, bearer(subscribing("*")))
	s.publish("topic", "a", "private", "on", "data", "private")
	s.publish("topic", "a", "data", "public")
	e2etest.Publish(t, s.URL("/events?topic=a"), "from sse")
	for _, stream := range streams {
		wantTexts(t, stream, "public", "from sse")
	}
	wantTexts(t, mercure, "private", "public", "from sse")
	late := e2etest.Subscribe(t, s.URL("/events?topic=**&since=all"))
	wantTexts(t, late, "public", "from sse")
	unknown := e2etest.Subscribe(t, s.URL("/events?topic=**"), e2etest.LastEventID("nobody-1"))
	wantTexts(t, unknown, "public", "from sse")
	poll := e2etest.Send(t, http.MethodGet, s.URL("/events?topic=**&format=json&since=all"), "")
	if strings.Contains(poll.Body, "private") || !strings.Contains(poll.Body, "public") {
		t.Errorf("a poll has %s", poll.Body)
	}
	e2etest.Publish(t, s.URL("/events?broadcast=true"), "for everybody")
	e2etest.Publish(t, s.URL("/events?topic=a"), "end")
	wantTexts(t, mercure, "end")
	wantRefusal(t, s.post(form("topic", "a", "type", "gap"), bearer(publishing("*"))), http.StatusBadRequest, "reserved")
}
