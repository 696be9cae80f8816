package sse_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func key(k string) e2etest.Option { return e2etest.Header("Idempotency-Key", k) }

func TestSameKeyPublishesOnceAndGetsTheSameAnswer(t *testing.T) {
	s := serveOnce(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		for i, c := range []struct{ query, media, body, data string }{
			{"?topic=a", "", "one", "one"},
			{"?topic=a&event=e&ephemeral", "", "two", "two"},
			{"", jsonType, `{"topic":"a","data":{"x": 1}}`, `{"x":1}`},
			{"", jsonType, `{"topic":"a","data":"k","idempotency_key":"own ` + p.name + `"}`, "k"},
			{"", formType, "topic=a&data=f&idempotency_key=form+" + strings.ReplaceAll(p.name, " ", "+"), "f"},
			{"", jsonType, `[{"topic":"a","data":"arr"},{"topic":"b","data":"ay","ephemeral":true}]`, "arr ay"},
			{"?topic=a", ndjsonType, "l1\nl2", "l1 l2"},
			{"?topic=a", eventsType, "data: e1\n\nevent: e\ndata: e2", "e1 e2"},
		} {
			with := []e2etest.Option{p.via, key(fmt.Sprint(p.name, i))}
			if strings.Contains(c.body, "idempotency_key") {
				with = with[:1]
			}
			first := post(t, p.url("/events"+c.query), c.media, c.body, with...)
			later := e2etest.Subscribe(t, s.url("/events?topic=a")) // which would be one more receiver
			later.Connected(t)
			again := post(t, p.url("/events"+c.query), c.media, c.body, with...)
			if first.Status != http.StatusOK || again.Status != first.Status || again.Body != first.Body {
				t.Errorf("%s is answered %d %s, and then %d %s", c.body, first.Status, first.Body, again.Status, again.Body)
			}
			for data := range strings.FieldsSeq(c.data) {
				stream.Expect(t, data)
			}
			stream.wantNothing(t)
			later.Close()
		}
	})
}

func TestManyAtOnceWithTheSameKeyPublishOnce(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	var group sync.WaitGroup
	answers := make([]string, 20)
	for i := range answers {
		group.Go(func() {
			answer, err := e2etest.Do(t.Context(), http.MethodPost, s.url("/events?topic=a"), "x", key("k"))
			answers[i] = fmt.Sprint(answer.Status, answer.Body, err)
		})
	}
	group.Wait()
	for _, answer := range answers {
		if answer != answers[0] {
			t.Errorf("one is answered %s, another %s", answers[0], answer)
		}
	}
	stream.Expect(t, "x")
	stream.wantNothing(t)
}

func TestSameKeyWithAnotherBodyIs422(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	const object = `{"topic":"a","data":"z"}`
	requests := []struct{ query, media, body string }{
		{"?topic=a", "", "x"},
		{"?topic=a", "", "y"},
		{"?topic=b", "", "x"},
		{"?topic=a&topic=b", "", "x"},
		{"?client_id=a", "", "x"},
		{"?user=a", "", "x"},
		{"?broadcast", "", "x"},
		{"?topic=a&event=e", "", "x"},
		{"?topic=a&key=e", "", "x"},
		{"?topic=a&event=e&key=e", "", "x"},
		{"?topic=a&retry=1000", "", "x"},
		{"?topic=a&retry=2000", "", "x"},
		{"?topic=a&ephemeral", "", "x"},
		{"", jsonType, object},
		{"", jsonType, "[" + object + "]"},
		{"", jsonType, "[" + object + "," + object + "]"},
		{"", jsonType, "[" + object + `,{"topic":"a","data":"x"}]`},
		{"?topic=a", ndjsonType, "line\nx"},
		{"?topic=a", eventsType, "data: event\n\n"},
		{"", formType, "topic=a&data=form"},
	}
	for i, first := range requests {
		k := key(fmt.Sprint("key ", i))
		if answer := post(t, s.url("/events"+first.query), first.media, first.body, k); answer.Status != http.StatusOK {
			t.Fatalf("%+v is answered %d %s", first, answer.Status, answer.Body)
		}
		stream.skip(t)
		for j, other := range requests {
			if j != i {
				wantRefusal(t, post(t, s.url("/events"+other.query), other.media, other.body, k), http.StatusUnprocessableEntity, "Idempotency-Key")
			}
		}
		stream.wantNothing(t)
	}
}

func TestKeysOfHeaderAndBodyAreTheSameKeys(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	first := publish(t, s.url("/events?topic=a"), "x", key("k"))
	again := post(t, s.url("/events"), jsonType, `{"topic":"a","data":"x","idempotency_key":"k"}`)
	var r receipt
	again.Decode(t, &r)
	if again.Status != http.StatusOK || *r.ID != *first.ID {
		t.Errorf("answered %d %s", again.Status, again.Body)
	}
	stream.Expect(t, "x")
	wantRefusal(t, post(t, s.url("/events"), jsonType, `{"topic":"a","data":"y","idempotency_key":"k"}`), http.StatusUnprocessableEntity)
	stream.wantNothing(t)
}

// A slash and a number in a key must not make it that of a message within a longer body.
func TestKeysThatLookAlikeAreDistinct(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for i, k := range []string{"k/1", "k/2", "k", "k/1/1", "k/", "/1", "K"} {
		answer := post(t, s.url("/events?topic=a"), ndjsonType, fmt.Sprintf("%d a\n%d b\n", i, i), key(k))
		if answer.Status != http.StatusOK {
			t.Fatalf("key %q is answered %d %s", k, answer.Status, answer.Body)
		}
		stream.Expect(t, fmt.Sprint(i, " a"))
		stream.Expect(t, fmt.Sprint(i, " b"))
	}
	publish(t, s.url("/events?topic=a"), "single", key("k/3"))
	stream.Expect(t, "single")
}

func TestKeysAreScopedToPublisherAndHub(t *testing.T) {
	s := serveOnce(t, withUsers(listenedRoute+`
		sse /anonymous {
			publish {
				open
			}
		}
		sse /token {
			publish {
				token one two
			}
		}
		sse /other {
			hub other
			publish {
				open
			}
		}`), globals("sse {\nhub other\n}"))
	stream := &listener{e2etest.Subscribe(t, s.url("/listen?topic=**"), As("alice")), s}
	stream.Connected(t)
	other := e2etest.Subscribe(t, s.url("/other?topic=**"), As("alice"))
	other.Connected(t)
	for i, c := range []struct {
		path string
		who  e2etest.Option
	}{
		{"/events", As("alice")}, {"/events", As("bob")}, {"/anonymous", e2etest.Header("X-None", "")},
	} {
		publish(t, s.url(c.path+"?topic=a"), fmt.Sprint(i), c.who, key("k"))
		stream.Expect(t, fmt.Sprint(i))
		wantRefusal(t, post(t, s.url(c.path+"?topic=a"), "", "other", c.who, key("k")), http.StatusUnprocessableEntity)
	}
	publish(t, s.url("/other?topic=a"), "other hub", As("alice"), key("k"))
	other.Expect(t, "other hub")
}

func TestTokensHaveKeysOfTheirOwn(t *testing.T) {
	s := serveOnce(t, listenedRoute+`
		sse /token {
			publish {
				token one two
			}
		}`)
	stream := s.listen(t)
	publish(t, s.url("/token?topic=a"), "one", bearer("one"), key("k"))
	publish(t, s.url("/token?topic=a"), "two", bearer("two"), key("k"))
	stream.Expect(t, "one")
	stream.Expect(t, "two")
	wantRefusal(t, post(t, s.url("/token?topic=a"), "", "two", bearer("one"), key("k")), http.StatusUnprocessableEntity)
	stream.wantNothing(t)
}

func TestRefusedRequestLeavesItsKeyFree(t *testing.T) {
	s := serveOnce(t, listenedRoute+`
		sse /strict {
			publish {
				token secret
				topics a
				max_size 10
				rate 1 2
			}
		}`)
	stream := s.listen(t)
	array := func(n int) string {
		return "[" + strings.Repeat(`{"topic":"a","data":1},`, n-1) + `{"topic":"a","data":1}]`
	}
	for _, c := range []struct {
		status             int
		query, media, body string
		token              string
	}{
		{401, "?topic=a", "", "x", "wrong"},
		{403, "?topic=b", "", "x", "secret"},
		{400, "?topic=*", "", "x", "secret"},
		{400, "", jsonType, `{"topic":"a"}`, "secret"},
		{400, "?topic=a", ndjsonType, "\xff", "secret"},
		{413, "?topic=a", "", strings.Repeat("x", 11), "secret"},
		{413, "", jsonType, array(3), "secret"},
	} {
		wantRefusal(t, post(t, s.url("/strict"+c.query), c.media, c.body, bearer(c.token), key("k")), c.status)
	}
	publish(t, s.url("/strict?topic=a"), "taken", bearer("secret"), key("k"))
	stream.Expect(t, "taken")
	stream.wantNothing(t)
}

// What broke in the middle is sent again as a whole, and only the rest is published.
func TestBodyThatBrokeOffIsResumedUnderItsKey(t *testing.T) {
	s := serveOnce(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		for i, kind := range lineBodies {
			k := fmt.Sprint(p.name, i)
			var whole strings.Builder
			for n := range 5 {
				fmt.Fprintf(&whole, kind.message, fmt.Sprint(k, n))
			}
			body := startUpload(t, p.client, p.url("/events"+kind.query), kind.media, "Idempotency-Key", k)
			for n := range 2 {
				body.write(fmt.Sprintf(kind.message, fmt.Sprint(k, n)))
				stream.Expect(t, fmt.Sprint(k, n))
			}
			body.breakOff()
			for range 2 { // and once more
				answer := post(t, p.url("/events"+kind.query), kind.media, whole.String(), p.via, key(k))
				if answer.Status != http.StatusOK || !strings.Contains(answer.Body, `"published":5,`) {
					t.Errorf("answered %d %s", answer.Status, answer.Body)
				}
			}
			for n := 2; n < 5; n++ {
				stream.Expect(t, fmt.Sprint(k, n))
			}
			stream.wantNothing(t)
		}
	})
}

// A repeated body of lines that differs from what was published says where.
func TestLinesThatDifferFromBeforeAreRefused(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for i, kind := range lineBodies {
		k := fmt.Sprint("key ", i)
		body := func(n, other int) string {
			var b strings.Builder
			for m := range n {
				text := fmt.Sprint(k, m)
				if m == other {
					text = "other"
				}
				fmt.Fprintf(&b, kind.message, text)
			}
			return b.String()
		}
		send := func(body string) e2etest.Answer {
			return post(t, s.url("/events"+kind.query), kind.media, body, key(k))
		}
		first := send(body(5, -1))
		for m := range 5 {
			stream.Expect(t, fmt.Sprint(k, m))
		}
		ends := strings.NewReplacer("\r\n", "\n", "\r", "\n")
		linesOf := func(messages int) int { return strings.Count(ends.Replace(body(messages, -1)), "\n") }
		for other := range 5 {
			r := wantRefusal(t, send(body(7, other)), http.StatusUnprocessableEntity, "Idempotency-Key")
			if r.Published == nil || *r.Published != other || r.Line == nil ||
				*r.Line <= linesOf(other) || *r.Line > linesOf(other+1) {
				t.Errorf("with message %d changed, %q is answered %+v", other, k, r)
			}
		}
		r := wantRefusal(t, send(body(3, -1)), http.StatusUnprocessableEntity, "2 more messages")
		if r.Published == nil || *r.Published != 3 {
			t.Errorf("a shorter body is answered %+v", r)
		}
		if again := send(body(5, -1)); again.Status != http.StatusOK || again.Body != first.Body {
			t.Errorf("the same body is answered %d %s, before it was %s", again.Status, again.Body, first.Body)
		}
		stream.wantNothing(t)
	}
}

// Of a long body a difference is found soon behind it, and what is said is true.
func TestLongBodyThatDiffersTellsWhereToLook(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	lines := make([]string, 500)
	for n := range lines {
		lines[n] = fmt.Sprint(n)
	}
	send := func() e2etest.Answer {
		return post(t, s.url("/events?topic=quiet"), ndjsonType, strings.Join(lines, "\n"), key("k"))
	}
	if answer := send(); answer.Status != http.StatusOK {
		t.Fatal(answer.Status, answer.Body)
	}
	lines[300] = "other"
	r := wantRefusal(t, send(), http.StatusUnprocessableEntity, "stands in lines")
	if *r.Line > 301 || *r.Line < 301-16 || *r.Published != *r.Line-1 {
		t.Errorf("answered line %d, published %d; line 301 differs", *r.Line, *r.Published)
	}
}

// Messages of a body may have keys of their own, which they share with other requests.
func TestLinesWithKeysOfTheirOwn(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	own := func(text string) string {
		return `{"topic":"a","data":"` + text + `","idempotency_key":"` + text + `"}`
	}
	plain := func(text string) string { return `{"topic":"a","data":"` + text + `"}` }
	passing := func(text string) string { return `{"topic":"a","data":"` + text + `","ephemeral":true}` }
	send := func(media string, body string) e2etest.Answer {
		answer := post(t, s.url("/events"), media, body, key("request"+media))
		if answer.Status != http.StatusOK {
			t.Errorf("%s is answered %d %s", body, answer.Status, answer.Body)
		}
		return answer
	}
	send(jsonType, own("x"))
	stream.Expect(t, "x")
	lines := strings.Join([]string{plain("1"), own("x"), plain("2"), own("y"), passing("3")}, "\n")
	first := send(ndjsonType, lines)
	for _, text := range []string{"1", "2", "y", "3"} {
		stream.Expect(t, text)
	}
	if again := send(ndjsonType, lines); again.Body != first.Body {
		t.Errorf("answered %s, and then %s", first.Body, again.Body)
	}
	send(jsonType, own("y"))
	stream.wantNothing(t)
}

// Keys are checked before anything of an array is published, as all else.
func TestArrayWithAKeyOfAnotherMessageIsRefusedAsAWhole(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	publish(t, s.url("/events?topic=a"), "before", key("taken"))
	stream.Expect(t, "before")
	for _, body := range []string{
		`[{"topic":"a","data":"1"},{"topic":"a","data":"2","idempotency_key":"taken"},{"topic":"a","data":"3"}]`,
		`[{"topic":"a","data":"1","idempotency_key":"new"},{"topic":"a","data":"2","idempotency_key":"new"}]`,
	} {
		r := wantRefusal(t, post(t, s.url("/events"), jsonType, body, key("k")), http.StatusUnprocessableEntity, "message 2")
		if r.Published != nil || r.Line != nil {
			t.Errorf("%s is answered %+v", body, r)
		}
	}
	stream.wantNothing(t)
	publish(t, s.url("/events?topic=a"), "after", key("new"))
	stream.Expect(t, "after")
}

// Of an array none of which was published, an error tells neither lines nor numbers.
func TestArrayThatIsRefusedAsAWholeTellsNothingOfItsParts(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	publish(t, s.url("/events?topic=a"), "before", key("taken"))
	stream.Expect(t, "before")
	for _, body := range []string{
		`[{"topic":"a","data":"1"},{"topic":"a","data":"2"}]`,
		`[{"topic":"a","data":"1","idempotency_key":"taken"},{"topic":"a","data":"2"}]`,
	} {
		r := wantRefusal(t, post(t, s.url("/events"), jsonType, body, key("taken")), http.StatusUnprocessableEntity, "Idempotency-Key")
		if r.Published != nil || r.Line != nil {
			t.Errorf("%s is answered %+v", body, r)
		}
	}
	stream.wantNothing(t)
}

func TestKeysHaveALimit(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	publish(t, s.url("/events?topic=a"), "x", key(strings.Repeat("k", 255)))
	wantRefusal(t, post(t, s.url("/events?topic=a"), "", "x", key(strings.Repeat("k", 256))), http.StatusBadRequest, "Idempotency-Key", "255")
}
