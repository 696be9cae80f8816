package sse_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// rigged is a request of somebody who wants more than is theirs.
type rigged struct {
	method, path, body string
	options            []e2etest.Option
	status             int
	word               string // what the refusal has to speak of
}

func With(options ...e2etest.Option) []e2etest.Option { return options }

// TestRiggedRequestsAreRefused is made by Mallory, who has a good token with few grants, and by nobody.
func TestRiggedRequestsAreRefused(t *testing.T) {
	s := serveAttacked(t)
	hers := s.token(map[string]any{"sub": "alice", "sse": map[string]any{"subscribe": list("alice/**")}})
	his := s.token(map[string]any{"sse": map[string]any{"subscribe": list("mallory/*"), "publish": list("mallory/*")}})
	powerful := s.token(nil) // all grants
	nobodys := s.token(map[string]any{"sub": nil, "sse": nil})
	alice := e2etest.Subscribe(t, s.url("/events?topic=alice/inbox&client_id=alices"), bearer(hers))
	alice.Connected(t)
	own := s.url("")
	basic := func(user, password string) e2etest.Option {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return e2etest.Header("Authorization", r.Header.Get("Authorization"))
	}
	const (
		in, out       = http.MethodGet, http.MethodPost
		noToken, no   = http.StatusUnauthorized, http.StatusForbidden
		bad           = http.StatusBadRequest
		notGranted    = "does not grant"
		needsToken    = "needs a token"
		needsOrigin   = "Origin header must be"
		asJSON        = `{"topic":"alice/inbox","data":"got in"}`
		belongs       = "client_id belongs to another user"
		notAcceptable = "accepted here"
	)
	escape := url.QueryEscape
	contentType := func(media string) e2etest.Option { return e2etest.Header("Content-Type", media) }
	for name, r := range map[string]rigged{
		// listening without a token
		"a topic that is not public":   {in, "topic=news", "", nil, noToken, needsToken},
		"a public one and another":     {in, "topic=public&topic=news", "", nil, noToken, needsToken},
		"no topic":                     {in, "", "", nil, noToken, needsToken},
		"a pattern over the public":    {in, "topic=*", "", nil, noToken, needsToken},
		"all":                          {in, "topic=**", "", nil, noToken, needsToken},
		"below the public":             {in, "topic=public/**", "", nil, noToken, needsToken},
		"public in capitals":           {in, "topic=Public", "", nil, noToken, needsToken},
		"the client_id of a user":      {in, "topic=public&client_id=alices", "", nil, no, belongs},
		"the token as Basic password":  {in, "topic=news", "", With(basic("token", powerful)), noToken, needsToken},
		"the token as Basic":           {in, "topic=news", "", With(e2etest.Header("Authorization", "Basic "+powerful)), noToken, needsToken},
		"the token without scheme":     {in, "topic=news", "", With(e2etest.Header("Authorization", powerful)), noToken, needsToken},
		"the token in another header":  {in, "topic=news", "", With(e2etest.Header("X-Authorization", "Bearer "+powerful)), noToken, needsToken},
		"the token in another cookie":  {in, "topic=news", "", With(e2etest.Header("Cookie", "token="+powerful+"; Session="+powerful)), noToken, needsToken},
		"the token in the query":       {in, "topic=news&token=" + powerful + "&session=" + powerful, "", nil, noToken, needsToken},
		"the token in the query, too":  {in, "topic=news&access_token=" + powerful, "", nil, noToken, needsToken},
		"the publish token":            {in, "topic=news", "", With(bearer(publishSecret)), noToken, notAcceptable},
		"the publish token, of public": {in, "topic=public", "", With(bearer(publishSecret)), noToken, notAcceptable},

		// listening with one
		"a topic of another user":          {in, "topic=alice/inbox", "", With(bearer(his)), no, notGranted},
		"one of mine and one of another":   {in, "topic=mallory/1&topic=alice/inbox", "", With(bearer(his)), no, `"alice/inbox"`},
		"a pattern beyond the grant":       {in, "topic=mallory/**", "", With(bearer(his)), no, notGranted},
		"a pattern over the grant":         {in, "topic=*/*", "", With(bearer(his)), no, notGranted},
		"a pattern across the grant":       {in, "topic=*/1", "", With(bearer(his)), no, notGranted},
		"all, with a token":                {in, "topic=**", "", With(bearer(his)), no, notGranted},
		"the topic above the grant":        {in, "topic=mallory", "", With(bearer(his)), no, notGranted},
		"dots to go up":                    {in, "topic=mallory/../alice", "", With(bearer(his)), no, notGranted},
		"a token without grants":           {in, "topic=news", "", With(bearer(nobodys)), no, notGranted},
		"the client_id of another user":    {in, "topic=mallory/1&client_id=alices", "", With(bearer(his)), no, belongs},
		"her client_id with all grants":    {in, "topic=**&client_id=alices", "", With(bearer(powerful)), no, belongs},
		"her client_id as nobody":          {in, "topic=public&client_id=alices", "", With(bearer(nobodys)), no, belongs},
		"a bad token beside a good cookie": {in, "topic=mallory/1", "", With(bearer(his+"x"), cookie(his)), noToken, notAcceptable},

		// control characters
		"CRLF in a topic":       {in, "topic=" + escape("mallory/a\r\ndata: x"), "", With(bearer(his)), bad, "control characters"},
		"NUL in a topic":        {in, "topic=mallory/%00", "", With(bearer(his)), bad, "control characters"},
		"a broken character":    {in, "topic=mallory/%ff", "", With(bearer(his)), bad, "UTF-8"},
		"a topic too long":      {in, "topic=mallory/" + strings.Repeat("a", 249), "", With(bearer(his)), bad, "256"},
		"CRLF in a client_id":   {in, "topic=public&client_id=" + escape("a\r\nevent: x"), "", nil, bad, "client_id"},
		"NUL in a client_id":    {in, "topic=public&client_id=a%00", "", nil, bad, "client_id"},
		"a path as client_id":   {in, "topic=public&client_id=../alices", "", nil, bad, "client_id"},
		"a client_id too long":  {in, "topic=public&client_id=" + strings.Repeat("a", 129), "", nil, bad, "client_id"},
		"too many topics":       {in, "topic=public" + manyTopics(101), "", With(bearer(his)), bad, "limit is 100"},
		"a query that is none":  {in, "topic=public&%zz", "", nil, bad, "query"},
		"semicolons":            {in, "topic=public;topic=news", "", nil, bad, "query"},
		"** before the end":     {in, "topic=mallory/**/x", "", With(bearer(his)), bad, "**"},
		"CRLF in an event name": {out, "topic=mallory/1&event=" + escape("a\r\ndata: x"), "got in", With(bearer(his)), bad, "event"},
		"NUL in an event name":  {out, "topic=mallory/1&event=a%00", "got in", With(bearer(his)), bad, "event"},
		"a reserved event name": {out, "topic=mallory/1&event=expired", "got in", With(bearer(his)), bad, "reserved"},
		"CRLF in a retry":       {out, "topic=mallory/1&retry=" + escape("1\r\ndata: x"), "got in", With(bearer(his)), bad, "retry"},
		"a user with CRLF":      {out, "user=" + escape("a\r\nb"), "got in", With(bearer(powerful)), bad, "user"},

		// speaking without a token, or with one in the wrong place
		"no token":                  {out, "topic=news", "got in", nil, noToken, needsToken},
		"to the public":             {out, "topic=public", "got in", nil, noToken, needsToken},
		"publish token in the URL":  {out, "topic=news&token=" + publishSecret, "got in", nil, noToken, needsToken},
		"publish token as Basic":    {out, "topic=news", "got in", With(basic("", publishSecret)), noToken, needsToken},
		"publish token as cookie":   {out, "topic=news", "got in", With(cookie(publishSecret), origin(own)), noToken, notAcceptable},
		"publish token in the body": {out, "topic=news", "token=" + publishSecret, With(contentType("application/x-www-form-urlencoded")), noToken, needsToken},
		"the JWT in the body":       {out, "", `{"token":"` + powerful + `"}`, With(contentType("application/json")), noToken, needsToken},
		"half a publish token":      {out, "topic=news", "got in", With(bearer(publishSecret[:10])), noToken, notAcceptable},
		"two publish tokens":        {out, "topic=news", "got in", With(bearer(publishSecret + " " + publishSecret)), noToken, notAcceptable},

		// speaking with one
		"to a topic of another":     {out, "topic=alice/inbox", "got in", With(bearer(his)), no, notGranted},
		"to her and to me":          {out, "topic=mallory/1&topic=alice/inbox", "got in", With(bearer(his)), no, "alice/inbox"},
		"to her client_id":          {out, "client_id=alices", "got in", With(bearer(his)), no, "client_id alices"},
		"to my client_id":           {out, "client_id=mallory", "got in", With(bearer(his)), no, notGranted},
		"to her":                    {out, "user=alice", "got in", With(bearer(his)), no, "user alice"},
		"to myself":                 {out, "user=mallory", "got in", With(bearer(his)), no, notGranted},
		"to everybody":              {out, "broadcast", "got in", With(bearer(his)), no, "everybody"},
		"to a pattern":              {out, "topic=mallory/*", "got in", With(bearer(his)), bad, "pattern"},
		"to a topic like a grant":   {out, "topic=@user/alice", "got in", With(bearer(powerful)), no, notGranted},
		"to @broadcast":             {out, "topic=@broadcast", "got in", With(bearer(powerful)), no, notGranted},
		"to her, in JSON":           {out, "", asJSON, With(bearer(his), contentType("application/json")), no, notGranted},
		"to her, in an array":       {out, "", `[{"topic":"mallory/1","data":"got in"},` + asJSON + `]`, With(bearer(his), contentType("application/json")), no, "message 2"},
		"to her, in NDJSON":         {out, "", asJSON, With(bearer(his), contentType("application/x-ndjson")), no, notGranted},
		"to her, in a form":         {out, "", "topic=alice/inbox&data=got+in", With(bearer(his), contentType("application/x-www-form-urlencoded")), no, notGranted},
		"to her, in a stream":       {out, "topic=alice/inbox", "data: got in\n\n", With(bearer(his), contentType("text/event-stream")), no, notGranted},
		"without any grant":         {out, "topic=news", "got in", With(bearer(nobodys)), no, notGranted},
		"with a listener's token":   {out, "topic=alice/inbox", "got in", With(bearer(hers)), no, notGranted},
		"with an endless key":       {out, "topic=mallory/1", "got in", With(bearer(his), e2etest.Header("Idempotency-Key", strings.Repeat("k", 256))), bad, "Idempotency-Key"},
		"with a topic in both":      {out, "topic=mallory/1&client_id=alices", "got in", With(bearer(his)), bad, "one kind of target"},
		"JSON that is not said so":  {out, "", asJSON, With(bearer(his)), bad, "Content-Type"},
		"a target there twice":      {out, "", `{"topic":"mallory/1","topic":"alice/inbox","data":"got in"}`, With(bearer(powerful), contentType("application/json")), bad, "twice"},
		"a target in capitals":      {out, "", `{"topic":"mallory/1","Topic":"alice/inbox","data":"got in"}`, With(bearer(powerful), contentType("application/json")), bad, "unknown field"},
		"a cookie, no Origin":       {out, "topic=mallory/1", "got in", With(cookie(his)), no, needsOrigin},
		"a cookie, foreign Origin":  {out, "topic=mallory/1", "got in", With(cookie(his), origin("https://evil.example")), no, needsOrigin},
		"a cookie, Origin null":     {out, "topic=mallory/1", "got in", With(cookie(his), origin("null")), no, needsOrigin},
		"a cookie, Origin empty":    {out, "topic=mallory/1", "got in", With(cookie(his), origin("")), no, needsOrigin},
		"a cookie, Origin *":        {out, "topic=mallory/1", "got in", With(cookie(his), origin("*")), no, needsOrigin},
		"a cookie, another port":    {out, "topic=mallory/1", "got in", With(cookie(his), origin("http://127.0.0.1:1")), no, needsOrigin},
		"a cookie, no port":         {out, "topic=mallory/1", "got in", With(cookie(his), origin("http://127.0.0.1")), no, needsOrigin},
		"a cookie, our name within": {out, "topic=mallory/1", "got in", With(cookie(his), origin(own+".evil.example")), no, needsOrigin},
		"a cookie, no scheme":       {out, "topic=mallory/1", "got in", With(cookie(his), origin(strings.TrimPrefix(own, "http://"))), no, needsOrigin},
		"a cookie, listed but http": {out, "topic=mallory/1", "got in", With(cookie(his), origin("http://listed.example")), no, needsOrigin},
		"a cookie, listed and more": {out, "topic=mallory/1", "got in", With(cookie(his), origin("https://listed.example.evil.example")), no, needsOrigin},
		"a cookie, beside listed":   {out, "topic=mallory/1", "got in", With(cookie(his), origin("https://evil-listed.example")), no, needsOrigin},
		"a cookie, only a Referer":  {out, "topic=mallory/1", "got in", With(cookie(his), e2etest.Header("Referer", own+"/")), no, needsOrigin},
		"a bad cookie, no Origin":   {out, "topic=mallory/1", "got in", With(cookie("x.y.z")), no, needsOrigin},
	} {
		t.Run(name, func(t *testing.T) {
			var answer e2etest.Answer
			if r.method == in {
				answer = refusedGet(t, s.url("/events?"+r.path), r.options...)
			} else {
				answer = e2etest.Send(t, out, s.url("/events?"+r.path), r.body, r.options...)
			}
			wantRefusal(t, answer, r.status, r.word)
			challenge := answer.Header.Get("WWW-Authenticate")
			if (r.status == noToken) != strings.HasPrefix(challenge, `Bearer realm="sse"`) {
				t.Errorf("%d comes with WWW-Authenticate %q", r.status, challenge)
			}
			if r.word == needsToken && strings.Contains(challenge, "error") {
				t.Errorf("a token that is missing is called wrong: %q", challenge)
			}
			wantNoSecretIn(t, answer, tokenSecret, publishSecret, his, hers, powerful)
		})
	}
	publish(t, s.url("/events?user=alice"), "for alice", bearer(publishSecret))
	alice.Expect(t, "for alice") // and nothing before
	alice.Close()
	s.wantNothingGotIn(t)
	s.wantNowhere(tokenSecret, publishSecret, his, hers, powerful, nobodys, "got in", "for alice")
}

func manyTopics(n int) string {
	var query strings.Builder
	for i := range n {
		fmt.Fprintf(&query, "&topic=mallory/%d", i)
	}
	return query.String()
}

// What an HTTP client would not send, over a bare connection.
func TestRawControlCharactersInHeadersAreRefused(t *testing.T) {
	s := serveAttacked(t)
	host := strings.TrimPrefix(s.url(""), "http://")
	good := s.token(nil)
	for _, attack := range []struct{ name, request string }{
		{"NUL in the token", "GET /events?topic=news HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + good + "\x00\r\n\r\n"},
		{"CR in the token", "GET /events?topic=news HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + good + "\rX: y\r\n\r\n"},
		{"NUL in the scheme", "GET /events?topic=news HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer\x00 " + good + "\r\n\r\n"},
		{"NUL in Last-Event-ID", "GET /events?topic=public HTTP/1.1\r\nHost: HOST\r\nLast-Event-ID: a\x00b\r\n\r\n"},
		{"CR in Last-Event-ID", "GET /events?topic=public HTTP/1.1\r\nHost: HOST\r\nLast-Event-ID: a\rdata: x\r\n\r\n"},
		{"NUL in Origin", "GET /events?topic=public HTTP/1.1\r\nHost: HOST\r\nOrigin: http://HOST\x00\r\n\r\n"},
		{"NUL in a header's name", "GET /events?topic=public HTTP/1.1\r\nHost: HOST\r\nOri\x00gin: http://HOST\r\n\r\n"},
		{"blank before the colon", "GET /events?topic=news HTTP/1.1\r\nHost: HOST\r\nAuthorization : Bearer " + good + "\r\n\r\n"},
		{"NUL in the URL", "GET /events?topic=public\x00 HTTP/1.1\r\nHost: HOST\r\n\r\n"},
		{"CR in the URL", "GET /events?topic=public\r HTTP/1.1\r\nHost: HOST\r\n\r\n"},
		{"NUL in the path", "GET /events\x00?topic=public HTTP/1.1\r\nHost: HOST\r\n\r\n"},
		{"NUL in Host", "GET /events?topic=public HTTP/1.1\r\nHost: HOST\x00\r\n\r\n"},
		{"two Hosts", "GET /events?topic=public HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n"},
		{"NUL in the key", "POST /events?topic=x HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + good + "\r\nIdempotency-Key: a\x00\r\nContent-Length: 6\r\n\r\ngot in"},
		{"NUL in the Content-Type", "POST /events?topic=x HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + good + "\r\nContent-Type: text/\x00\r\nContent-Length: 6\r\n\r\ngot in"},
		{"NUL in the cookie", "POST /events?topic=x HTTP/1.1\r\nHost: HOST\r\nOrigin: http://HOST\r\nCookie: session=" + good + "\x00\r\nContent-Length: 6\r\n\r\ngot in"},
		{"two lengths", "POST /events?topic=x HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + good + "\r\nContent-Length: 6\r\nContent-Length: 7\r\n\r\ngot in!"},
	} {
		answer := s.raw(strings.ReplaceAll(attack.request, "HOST", host))
		if !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
			t.Errorf("%s: answered %.100q", attack.name, answer)
		}
	}
	s.wantNothingGotIn(t)
	s.wantNowhere(good, tokenSecret, "got in")
}

func TestUnusableLastEventIDIsAGap(t *testing.T) {
	s := serveAttacked(t)
	epoch, _, _ := strings.Cut(*publish(t, s.url("/events?topic=public"), "", bearer(publishSecret)).ID, "-")
	for name, id := range map[string]string{
		"oversized":        strings.Repeat("9", 200_000),
		"oversized number": epoch + "-" + strings.Repeat("9", 100_000),
		"control":          "1\tdata: x",
		"not UTF-8":        "\xff\xfe",
		"markup":           "<script>alert(1)</script>",
		"negative":         epoch + "--1",
		"signed":           epoch + "-+1",
		"zeros":            epoch + "-0001",
		"overflow":         epoch + "-18446744073709551616",
		"the future":       epoch + "-18446744073709551615",
		"only the epoch":   epoch + "-",
		"a float":          epoch + "-1.0",
	} {
		for where, get := range map[string]func() *e2etest.Stream{
			"header": func() *e2etest.Stream {
				return e2etest.Subscribe(t, s.url("/events?topic=public"), e2etest.LastEventID(id), e2etest.KeepRaw())
			},
			"query": func() *e2etest.Stream {
				return e2etest.Subscribe(t, s.url("/events?topic=public&last_event_id="+url.QueryEscape(id+"\r\nevent: x")), e2etest.KeepRaw())
			},
		} {
			stream := get()
			if connected := stream.Connected(t); connected.Resume != "gap" {
				t.Errorf("%s in the %s: resume is %q", name, where, connected.Resume)
			}
			stream.Expect(t, "")
			if strings.Contains(stream.Raw(), id+"\n") {
				t.Errorf("%s in the %s: it comes back", name, where)
			}
			stream.Close()
		}
	}
}
