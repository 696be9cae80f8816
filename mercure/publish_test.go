package mercure

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestRule13AnUpdateReachesSubscribersOfAnyOfItsTopics(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	one, two, three := s.subscribe([]string{"a"}), s.subscribe([]string{"b"}), s.subscribe([]string{"c"})
	id := s.publish("topic", "a", "topic", "b", "data", "1")
	s.publish("topic", "a", "topic", "b", "topic", "c", "data", "2")
	for _, stream := range []*e2etest.Stream{one, two} {
		if event := wantTexts(t, stream, "1", "2")[0]; event.ID != id {
			t.Errorf("the event has the ID %q, the answer %q", event.ID, id)
		}
	}
	wantTexts(t, three, "2")
}

func TestRule14PrivateIsByPresence(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	anybody, granted := s.subscribe([]string{"a"}), s.subscribe([]string{"a"}, bearer(subscribing("a")))
	for _, value := range []string{"on", "true", "1", "", "off", "false"} {
		s.publish("topic", "a", "private", value, "data", "private "+value)
	}
	s.publish("topic", "a", "data", "public")
	wantTexts(t, anybody, "public")
	wantTexts(t, granted, "private on", "private true", "private 1", "private ", "private off", "private false", "public")
}

func TestRule15AChosenIDIsTheEventsAndTheAnswers(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	stream := s.subscribe([]string{"a"})
	for _, id := range []string{"1", "urn:uuid:4c4f5e5e-6d2f-4ddc-8b2f-4c6d4a8f2d11", "snöw ☃", "a,b c", strings.Repeat("x", 255)} {
		if answer := s.publish("topic", "a", "id", id, "data", "x"); answer != id {
			t.Errorf("%q is answered %q", id, answer)
		}
		if event := stream.Expect(t, "x"); event.ID != id {
			t.Errorf("%q came as %q", id, event.ID)
		}
	}
}

var urn = regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestRule16AnIDThatIsMadeUpIsAUUID(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	stream := s.subscribe([]string{"a"})
	seen := map[string]bool{}
	for range 10 {
		id := s.publish("topic", "a", "data", "x", "id", "")
		if !urn.MatchString(id) || seen[id] {
			t.Errorf("the ID is %q", id)
		}
		seen[id] = true
		if event := stream.Expect(t, "x"); event.ID != id {
			t.Errorf("the event has the ID %q, the answer %q", event.ID, id)
		}
	}
}

func TestRule17IDsAndTypesThatAreNone(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	publisher := bearer(publishing("*"))
	for field, values := range map[string][]string{
		"id":    {"#5", "earliest", "a\nb", "a\rb", "a\x00b", strings.Repeat("x", 256), "\xff"},
		"type":  {"a\nb", "a\rb", "a\x00b"},
		"retry": {"-1", "1.5", "soon", "+1", " 1", "0x10", "99999999999999999999"},
		"data":  {"\xff"},
		"topic": {"", "\xff"},
	} {
		for _, value := range values {
			pairs := []string{field, value}
			if field != "topic" {
				pairs = append(pairs, "topic", "a")
			}
			if answer := s.post(form(pairs...), publisher); answer.Status != http.StatusBadRequest {
				t.Errorf("%s=%q: %d: %s", field, value, answer.Status, answer.Body)
			}
		}
	}
}

func TestRule18FieldsThatAreEmptyOrUnknown(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	stream := s.subscribe([]string{"a"})
	s.publish("topic", "a", "id", "", "type", "", "retry", "", "targets", "x", "targets", "y", "data", "1")
	s.publish("topic", "a", "type", "message", "data", "2")
	s.publish("topic", "a", "type", "gap", "data", "3", "retry", "0")
	for i, event := range wantTexts(t, stream, "1", "2", "3") {
		if want := []string{"", "message", "gap"}[i]; event.Name != want || event.HasRetry != (i == 2) {
			t.Errorf("event %d: %+v", i+1, event)
		}
	}
}

func TestRule19TheBodyIsAForm(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	publisher := bearer(publishing("*"))
	for content, status := range map[string]int{
		formContent: 200, formContent + ";charset=UTF-8": 200, "Application/X-WWW-Form-URLEncoded ; charset=utf-8": 200,
		"application/json": 400, "multipart/form-data; boundary=x": 400, "": 400, "text/plain": 400,
	} {
		answer := e2etest.Send(t, http.MethodPost, s.hub(), "topic=a&data=1", publisher, e2etest.Header("Content-Type", content))
		if answer.Status != status {
			t.Errorf("%s: %d: %s", content, answer.Status, answer.Body)
		}
	}
	inQuery := e2etest.Send(t, http.MethodPost, s.hub("topic", "a", "data", "1"), "", publisher, e2etest.Header("Content-Type", formContent))
	wantRefusal(t, inQuery, http.StatusBadRequest, "no field topic")
	wantRefusal(t, s.post("topic=%zz", publisher), http.StatusBadRequest, "can't be read")
	wantRefusal(t, s.post("data=1", publisher), http.StatusBadRequest, "topic")
}

func TestRule20SuccessIsPlainText(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	answer := s.post(form("topic", "a", "id", "x-1"), bearer(publishing("*")))
	if answer.Status != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain") || answer.Body != "x-1" {
		t.Errorf("%d %v %q", answer.Status, answer.Header, answer.Body)
	}
}

func TestRule42TheHubsOwnTopicsAreReserved(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	for _, topic := range []string{Path, Path + "/subscriptions/a/b", Path + "/"} {
		answer := s.post(form("topic", "a", "topic", topic, "data", "1"), bearer(publishing("*")))
		wantRefusal(t, answer, http.StatusForbidden, topic, "own")
	}
	s.publish("topic", "/.well-known/mercurex", "data", "1")
}

func TestRule42NobodyForgesWhoSubscribes(t *testing.T) {
	t.Parallel()
	s := shared(t, "anonymous\nsubscriptions")
	const forged = subscriptionsPath + "/a/urn:uuid:x"
	for _, options := range [][]e2etest.Option{
		{e2etest.Header("Content-Type", "application/json")}, {e2etest.Header("Content-Type", "application/x-ndjson")},
	} {
		body, _ := json.Marshal(map[string]any{"topic": []string{"b", forged}, "data": "x"})
		answer := e2etest.Send(t, http.MethodPost, s.URL("/events"), string(body), options...)
		if answer.Status != http.StatusBadRequest || !strings.Contains(answer.Body, "the hub's own") {
			t.Errorf("%d %s", answer.Status, answer.Body)
		}
	}
	wantRefusal(t, e2etest.Send(t, http.MethodPost, s.URL("/events?topic="+forged), "x"), http.StatusBadRequest, "the hub's own")
	admin := e2etest.Send(t, http.MethodPost, s.AdminURL("/sse/hubs/default/publish"), `{"topic":"`+forged+`","data":"x"}`,
		e2etest.Header("Content-Type", "application/json"))
	if admin.Status != http.StatusBadRequest {
		t.Errorf("by the admin endpoint: %d %s", admin.Status, admin.Body)
	}
	wantRefusal(t, s.post(form("topic", "b", "topic", forged), bearer(publishing("*"))), http.StatusForbidden, "own")
}

func TestAPublisherIsHeldToItsRate(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory+"rate 0.001 2")
	publisher := bearer(publishing("*"))
	for i, status := range []int{200, 200, 429} {
		if answer := s.post(form("topic", "a"), publisher); answer.Status != status {
			t.Errorf("update %d: %d", i+1, answer.Status)
		}
	}
	if answer := s.post(form("topic", "a"), bearer(publishing("*", "other"))); answer.Status != 200 {
		t.Errorf("another publisher: %d", answer.Status)
	}
}
