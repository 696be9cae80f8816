package sse_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const (
	jsonType   = "application/json"
	ndjsonType = "application/x-ndjson"
	eventsType = "text/event-stream"
	formType   = "application/x-www-form-urlencoded"
)

func TestJSONDataIsSentAsItIsOrAsCompactJSON(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for data, want := range map[string]string{
		`"hello"`:                        "hello",
		`""`:                             "",
		`"a\nb\u0000\u2603\ud83d\ude00"`: "a\nb\x00☃😀",
		`"{\"a\": 1}"`:                   `{"a": 1}`,
		`{ "b" : [ 1 , 2.50, 1e3 ],` + "\n" + `"a": "x  y" }`: `{"b":[1,2.50,1e3],"a":"x  y"}`,
		`[ ]`:                            `[]`,
		` 12.0 `:                         `12.0`,
		`true`:                           `true`,
		`null`:                           `null`,
		`{"c":"\u00e9 <&>"}`:             `{"c":"\u00e9 <&>"}`,
		`123456789012345678901234567890`: `123456789012345678901234567890`,
	} {
		body := `{"topic":"news","data":` + data + `}`
		for media, body := range map[string]string{
			jsonType:                          "\r\n\t " + body + " \n",
			"application/json; charset=utf-8": body,
			"Application/JSON":                body,
			ndjsonType:                        strings.ReplaceAll(body, "\n", " "),
		} {
			if answer := post(t, s.url("/events"), media, body); answer.Status != http.StatusOK {
				t.Fatalf("%s as %s is answered %s", body, media, answer.Body)
			}
			if event := stream.next(t); string(event.Data) != want {
				t.Errorf("data %s became %q, want %q", data, event.Data, want)
			}
		}
	}
}

func TestJSONFieldsAreThoseOfAMessage(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	answer := post(t, s.url("/events"), jsonType,
		`{"event":"update","retry":5000,"data":"x","topic":["a","b"],"ephemeral":false,"idempotency_key":"k"}`)
	if answer.Status != http.StatusOK {
		t.Fatal(answer.Body)
	}
	if event := stream.Expect(t, "x"); event.Name != "update" || event.Retry != 5000 || event.ID == "" {
		t.Errorf("got %+v", event)
	}
	post(t, s.url("/events"), jsonType, `{"ephemeral":true,"data":"y","client_id":"x","event":"","retry":100}`)
	if event := stream.Expect(t, "y"); event.Name != "" || event.Retry != 100 || event.ID != "" {
		t.Errorf("got %+v", event)
	}
}

// badMessages are objects that none may publish, with a word that the detail holds.
var badMessages = map[string]string{
	`{"data":"x"}`:                                         "target",
	`{"topic":"a"}`:                                        "data",
	`{"topic":"a","date":"x"}`:                             `"date"`,
	`{"topics":["a"],"data":"x"}`:                          `"topics"`,
	`{"topic":"a","data":"x","id":"5"}`:                    `"id"`,
	`{"Topic":"a","data":"x"}`:                             `"Topic"`,
	`{"topic":"a","Data":"x"}`:                             `"Data"`,
	`{"topic":"a","client_Id":"x","data":"x"}`:             `"client_Id"`,
	`{"topic":"a","topic":"b","data":"x"}`:                 `"topic"`,
	`{"topic":"a","data":"x","data":"x"}`:                  `"data"`,
	`{"topic":"a","\u0064ata":"x","data":"x"}`:             `"data"`,
	`{"topic":"a","user":"u","data":"x"}`:                  "one of",
	`{"broadcast":true,"client_id":"x","data":"x"}`:        "one of",
	`{"topic":[],"data":"x"}`:                              "topic",
	`{"topic":5,"data":"x"}`:                               "topic",
	`{"topic":{"a":1},"data":"x"}`:                         "topic",
	`{"topic":["a",5],"data":"x"}`:                         "topic",
	`{"topic":[["a"]],"data":"x"}`:                         "topic",
	`{"topic":"","data":"x"}`:                              "empty",
	`{"topic":"a/*","data":"x"}`:                           "pattern",
	`{"topic":"a\n","data":"x"}`:                           "control",
	`{"client_id":5,"data":"x"}`:                           `"client_id"`,
	`{"client_id":"","data":"x"}`:                          "client_id",
	`{"client_id":["x"],"data":"x"}`:                       `"client_id"`,
	`{"user":true,"data":"x"}`:                             `"user"`,
	`{"user":"","data":"x"}`:                               "user",
	`{"broadcast":"true","data":"x"}`:                      `"broadcast"`,
	`{"broadcast":1,"data":"x"}`:                           `"broadcast"`,
	`{"broadcast":false,"data":"x"}`:                       "target",
	`{"topic":"a","data":"x","event":5}`:                   `"event"`,
	`{"topic":"a","data":"x","event":"a\r"}`:               "event",
	`{"topic":"a","data":"x","event":"a\u0000"}`:           "event",
	`{"topic":"a","data":"x","event":"connected"}`:         "reserved",
	`{"topic":"a","data":"x","event":"gap"}`:               "reserved",
	`{"topic":"a","data":"x","event":"expired"}`:           "reserved",
	`{"topic":"a","data":"x","event":"closed"}`:            "reserved",
	`{"topic":"a","data":"x","key":5}`:                     `"key"`,
	`{"topic":"a","data":"x","key":null}`:                  `"key" is null`,
	`{"topic":"a","data":"x","key":"a\n"}`:                 "key",
	`{"topic":"a","data":"x","retry":"5"}`:                 `"retry"`,
	`{"topic":"a","data":"x","retry":-1}`:                  "from 100 to 60000",
	`{"topic":"a","data":"x","retry":99}`:                  "from 100 to 60000",
	`{"topic":"a","data":"x","retry":60001}`:               "from 100 to 60000",
	`{"topic":"a","data":"x","retry":1.5}`:                 `"retry"`,
	`{"topic":"a","data":"x","retry":1e400}`:               `"retry"`,
	`{"topic":"a","data":"x","retry":9223372036854775808}`: `"retry"`,
	`{"topic":"a","data":"x","ephemeral":"yes"}`:           `"ephemeral"`,
	`{"topic":"a","data":"x","idempotency_key":5}`:         `"idempotency_key"`,
	`{"topic":"a","data":"\ud800"}`:                        "JSON",
	`{"topic":"a","data":"\ude00\ud83d"}`:                  "JSON",
	`{"topic":"a","data":{"x":["\udfff"]}}`:                "JSON",
	`{"topic":"\ud800","data":"x"}`:                        "JSON",
	"{\"topic\":\"a\",\"data\":\"\xff\"}":                  "JSON",
	"{\"topic\":\"a\",\"data\":\"\xed\xa0\x80\"}":          "JSON", // a surrogate in UTF-8
	"{\"topic\":\"a\",\"data\":\"a\tb\"}":                  "JSON",
	`{"topic":"a","data":"x"`:                              "JSON",
	`{"topic":"a","data":"x"}}`:                            "JSON",
	`{"topic":"a","data":"x"} {"topic":"a","data":1}`:      "JSON",
	`{"topic":"a","data":"x",}`:                            "JSON",
	`{'topic':'a','data':'x'}`:                             "JSON",
	`{"topic":"a","data":NaN}`:                             "JSON",
	`{"topic":"a","data":01}`:                              "JSON",
	`{"topic":null,"data":"x"}`:                            "topic must be a string or an array",
	`{"topic":["a",null],"data":"x"}`:                      "topic must be a string or an array",
	`{"topic":null,"user":"u","data":"x"}`:                 "leave it out",
	`{"client_id":null,"data":"x"}`:                        `"client_id" is null`,
	`{"topic":"a","client_id":null,"data":"x"}`:            `"client_id" is null`,
	`{"topic":"a","user":null,"data":"x"}`:                 `"user" is null`,
	`{"topic":"a","broadcast":null,"data":"x"}`:            `"broadcast" is null`,
	`{"topic":"a","event":null,"data":"x"}`:                `"event" is null; leave it out`,
	`{"topic":"a","retry":null,"data":"x"}`:                `"retry" is null`,
	`{"topic":"a","ephemeral": null ,"data":"x"}`:          `"ephemeral" is null`,
	`{"topic":"a","idempotency_key":null,"data":"x"}`:      `"idempotency_key" is null`,
	`null`: "must be a JSON object",
	`{}`:   "",
	`{"topic":"a","data":"x","idempotency_key":"` + strings.Repeat("k", 256) + `"}`: "256",
}

func TestBadJSONMessagesAre400AndSayWhatToChange(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for body, word := range badMessages {
		wantRefusal(t, post(t, s.url("/events"), jsonType, body), http.StatusBadRequest, word)
		// In an array, one such keeps all others from being published.
		r := wantRefusal(t, post(t, s.url("/events"), jsonType, `[{"topic":"a","data":"good"},`+body+`]`), http.StatusBadRequest)
		if r.Published != nil {
			t.Errorf("an array that was refused tells of %d published", *r.Published)
		}
		line := wantRefusal(t, post(t, s.url("/events"), ndjsonType, `{"topic":"a","data":"good"}`+"\n\n"+body), http.StatusBadRequest, word)
		if line.Published == nil || *line.Published != 1 || line.Line == nil || *line.Line != 3 {
			t.Errorf("%s on line 3 is answered %+v", body, line)
		}
		stream.Expect(t, "good") // the line before it
	}
	for _, body := range []string{"", "   ", `"x"`, `5`, `true`, `[5]`, `["x"]`, `[[]]`, `[{"topic":"a","data":1},`, `[{"topic":"a","data":1}`, `\xEF\xBB\xBF{}`} {
		wantRefusal(t, post(t, s.url("/events"), jsonType, body), http.StatusBadRequest, "JSON")
	}
	for _, body := range []string{"null", "[null]", " 5", `"x"`} {
		wantRefusal(t, post(t, s.url("/events"), jsonType, body), http.StatusBadRequest, "must be a JSON object")
	}
	stream.wantNothing(t)
}

func TestArrayIsCheckedAsAWholeAndPublishedInOrder(t *testing.T) {
	s := serveOnce(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		var messages []string
		for i := range 500 {
			messages = append(messages, fmt.Sprintf(`{"topic":"t%d","data":%d}`, i%3, i))
		}
		answer := post(t, p.url("/events"), jsonType, " ["+strings.Join(messages, ", ")+"]", p.via)
		var r receipt
		answer.Decode(t, &r)
		if answer.Status != http.StatusOK || len(r.IDs) != 500 {
			t.Fatalf("answered %d %s", answer.Status, answer.Body)
		}
		for i, id := range r.IDs {
			if event := stream.Expect(t, fmt.Sprint(i)); event.ID != *id {
				t.Fatalf("message %d has the ID %s, answered %s", i, event.ID, *id)
			}
		}
		bad := wantRefusal(t, post(t, p.url("/events"), jsonType, "["+strings.Join(messages, ",")+`,{"topic":"*","data":1}]`, p.via),
			http.StatusBadRequest, "501", "pattern")
		if bad.Published != nil {
			t.Errorf("%d were published", *bad.Published)
		}
		stream.wantNothing(t)
	})
}

func TestJSONOfAnotherContentTypeIs400AndSaysWhichToSend(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for _, media := range []string{"", formType, "text/plain", "application/octet-stream", "application/jsonx", "bad/;;"} {
		for _, body := range []string{
			`{"topic":"a","data":"x"}`, ` [{"topic":"a","data":"x"}]`, "{", `{"topic":"a","data":"x"} y`,
			"{\n\"topic\": \"a\",\n\"data\": {}\n}\n", "[{}]\n[{}]",
		} {
			wantRefusal(t, post(t, s.url("/events"), media, body), http.StatusBadRequest, "application/json")
		}
		for _, body := range []string{"{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"a\",\"data\":2}\n", "{}\r\n\r\n{", "{}{}"} {
			wantRefusal(t, post(t, s.url("/events"), media, body), http.StatusBadRequest, "each line", "application/x-ndjson")
		}
	}
	for _, media := range []string{"application/ndjson", "application/jsonl", "application/jsonlines; charset=utf-8", "Application/X-JSONLines"} {
		wantRefusal(t, post(t, s.url("/events"), media, `{"topic":"a","data":"x"}`+"\n"), http.StatusBadRequest, "application/x-ndjson")
		wantRefusal(t, post(t, s.url("/events"), media, `hello`), http.StatusBadRequest, "target")
	}
	stream.wantNothing(t)
}

func TestFormsHaveTheSameFields(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	answer := post(t, s.url("/events"), formType+"; charset=utf-8",
		"topic=a&topic=b&data=one%0Atwo+%26&event=update&retry=60000&ephemeral=true&idempotency_key=k&broadcast=false")
	if answer.Status != http.StatusOK {
		t.Fatal(answer.Body)
	}
	if event := stream.Expect(t, "one\ntwo &"); event.Name != "update" || event.Retry != 60000 || event.ID != "" {
		t.Errorf("got %+v", event)
	}
	for body, word := range map[string]string{
		"data=x":                         "target",
		"topic=a":                        "data",
		"":                               "",
		"topic=a&data=x&foo=1":           `"foo"`,
		"topic=a&Data=x":                 `"Data"`,
		"topic=a&data=x&data=y":          `"data"`,
		"topic=a&data=x&event=a&event=a": `"event"`,
		"client_id=x&client_id=y&data=x": `"client_id"`,
		"topic=a&client_id=x&data=x":     "one of",
		"topic=a&broadcast=true&data=x":  "one of",
		"broadcast=yes&data=x":           "broadcast",
		"topic=*&data=x":                 "pattern",
		"topic=&data=x":                  "empty",
		"topic=a&data=%FF":               "UTF-8",
		"topic=a&data=%zz":               "form",
		"topic=a;data=x":                 "form",
		"topic=a&data=x&retry=-1":        "retry",
		"topic=a&data=x&retry=x":         "retry",
		"topic=a&data=x&retry=99":        "retry",
		"topic=a&data=x&ephemeral=x":     "ephemeral",
		"topic=a&data=x&event=gap":       "reserved",
		"topic=a&data=x&event=a%0Db":     "event",
		"topic=a&data=x&idempotency_key=" + strings.Repeat("k", 256): "256",
	} {
		wantRefusal(t, post(t, s.url("/events"), formType, body), http.StatusBadRequest, word)
	}
	stream.wantNothing(t)
}

func TestMultipartIs415(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	body := "--x\r\nContent-Disposition: form-data; name=\"topic\"\r\n\r\na\r\n--x--\r\n"
	for _, body := range []string{body, `{"topic":"a","data":"x"}`, "[", ""} {
		wantRefusal(t, post(t, s.url("/events"), "multipart/form-data; boundary=x", body), http.StatusUnsupportedMediaType, formType, jsonType)
	}
	stream.wantNothing(t)
}

func TestBodiesOfOtherTypesNeedATargetInTheURL(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	for _, media := range []string{"", "text/plain", "application/xml"} {
		wantRefusal(t, post(t, s.url("/events"), media, "hello"), http.StatusBadRequest, "target", "?topic=")
	}
	wantRefusal(t, post(t, s.url("/events"), eventsType, "data: x\n\n"), http.StatusBadRequest, "target", "?topic=")
	for _, query := range []string{"event=x", "retry=5", "ephemeral"} { // they go with a target in the URL
		wantRefusal(t, post(t, s.url("/events?"+query), jsonType, `{"topic":"a","data":"x"}`), http.StatusBadRequest, "URL")
	}
}

func TestDataIsUTF8(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for _, bad := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf8\x88\x80\x80\x80"} {
		wantRefusal(t, post(t, s.url("/events?topic=a"), "", bad), http.StatusBadRequest, "UTF-8")
		wantRefusal(t, post(t, s.url("/events?topic=a"), ndjsonType, bad), http.StatusBadRequest, "UTF-8")
		wantRefusal(t, post(t, s.url("/events?topic=a"), eventsType, "data: "+bad+"\n\n"), http.StatusBadRequest, "UTF-8")
	}
	stream.wantNothing(t)
}

func TestDataIsSplitAtEveryLineEnd(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.KeepRaw())
	stream.Connected(t)
	begin := stream.Raw()
	id := *publish(t, s.url("/events?topic=a"), "1\n2\r3\r\n4\n\r5\r\r\n").ID
	stream.Expect(t, "1\n2\n3\n4\n\n5\n\n")
	want := begin + "id: " + id + "\n"
	for _, line := range []string{"1", "2", "3", "4", "", "5", "", ""} {
		want += "data: " + line + "\n"
	}
	if stream.Raw() != want+"\n" {
		t.Errorf("got %q", stream.Raw())
	}
}
