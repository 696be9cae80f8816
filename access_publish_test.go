package sse_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestPublishGrantsReachWhatTheyName(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, jwtRoute)
	stream := e2etest.Subscribe(t, s.url("/events?topic=**&client_id=dev-1"), bearer(granting("alice", list("**"), nil)))
	stream.Connected(t)
	queries := []string{
		"topic=orders/42", "topic=orders/43", "topic=news", "topic=orders/42&topic=orders/43",
		"client_id=dev-1", "client_id=dev-2", "user=alice", "user=bob", "broadcast",
	}
	for _, c := range []struct {
		grants, allowed string // the queries, separated by blanks
	}{
		{"orders/42", "topic=orders/42"},
		{"orders/*", "topic=orders/42 topic=orders/43 topic=orders/42&topic=orders/43"},
		{"**", "topic=orders/42 topic=orders/43 topic=news topic=orders/42&topic=orders/43"},
		{"@client/dev-1", "client_id=dev-1"},
		{"@client/*", "client_id=dev-1 client_id=dev-2"},
		{"@user/alice", "user=alice"},
		{"@user/*", "user=alice user=bob"},
		{"@broadcast", "broadcast"},
		{"news @user/bob @broadcast", "topic=news user=bob broadcast"},
		{"", ""},
	} {
		token := granting("carol", list("**"), strings.Fields(c.grants))
		for _, query := range queries {
			allowed := strings.Contains(" "+c.allowed+" ", " "+query+" ")
			fields := map[string]any{"data": "form B"}
			for pair := range strings.SplitSeq(query, "&") {
				name, value, _ := strings.Cut(pair, "=")
				switch list, _ := fields["topic"].([]string); name {
				case "topic":
					fields["topic"] = append(list, value)
				case "broadcast":
					fields["broadcast"] = true
				default:
					fields[name] = value
				}
			}
			object, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			for form, answer := range map[string]e2etest.Answer{
				"form A": post(t, s.url("/events?"+query), "", "form A", bearer(token)),
				"form B": post(t, s.url("/events"), "application/json", string(object), bearer(token)),
			} {
				if !allowed {
					wantRefusal(t, answer, http.StatusForbidden, "does not grant")
				} else if answer.Status != http.StatusOK {
					t.Errorf("grants %q: %s by %s is answered %d: %s", c.grants, query, form, answer.Status, answer.Body)
				} else if !strings.Contains(query, "dev-2") && !strings.Contains(query, "bob") {
					if event, err := stream.Next(patience); err != nil || !strings.HasPrefix(string(event.Data), "form") {
						t.Fatalf("grants %q: %s by %s: got %q: %v", c.grants, query, form, event.Data, err)
					}
				}
			}
		}
	}
	publish(t, s.url("/events?topic=x"), "end", bearer(publishSecret))
	stream.Expect(t, "end")
}

func TestLineThatIsNotGrantedEndsABodyWhereItStands(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, jwtRoute)
	stream := e2etest.Subscribe(t, s.url("/events?topic=**"), bearer(granting("", list("**"), nil)))
	stream.Connected(t)
	const body = `{"topic":"mine/1","data":"1"}
{"topic":"mine/2","data":"2"}
{"topic":"hers/1","data":"stolen"}
{"topic":"mine/3","data":"3"}
`
	answer := post(t, s.url("/events"), "application/x-ndjson", body, bearer(granting("", nil, list("mine/*"))))
	r := wantRefusal(t, answer, http.StatusForbidden, "hers/1")
	if r.Published == nil || *r.Published != 2 || r.Line == nil || *r.Line != 3 {
		t.Errorf("the answer is %s", answer.Body)
	}
	stream.Expect(t, "1")
	stream.Expect(t, "2")
	publish(t, s.url("/events?topic=x"), "end", bearer(publishSecret))
	stream.Expect(t, "end")
}

func TestPublishTokensAndJWTsAddUp(t *testing.T) {
	setSecrets(t)
	t.Setenv("SSE_TEST_SECOND", "second-publish-secret")
	s := serveOnce(t, `
		sse /both {
			jwt {
				`+hsKey+`
			}
			publish {
				token {env.SSE_TEST_PUBLISH} {env.SSE_TEST_SECOND}
			}
		}
		sse /jwt {
			jwt {
				`+hsKey+`
			}
			publish
		}
		sse /neither {
			jwt {
				`+hsKey+`
			}
		}`)
	everything := granting("", nil, list("**", "@broadcast"))
	for path, tokens := range map[string]map[string]int{
		"/both":    {publishSecret: 200, "second-publish-secret": 200, everything: 200, "guessed": 401, "": 401},
		"/jwt":     {publishSecret: 401, everything: 200, "": 401},
		"/neither": {publishSecret: 403, everything: 403, "": 403},
	} {
		for token, want := range tokens {
			answer := post(t, s.url(path+"?topic=a"), "", "x", bearer(token))
			if answer.Status != want {
				t.Errorf("%s with %.10q: answered %d, want %d: %s", path, token, answer.Status, want, answer.Body)
			}
		}
	}
}

// A token's grants and the route's own limits both hold.
func TestGrantsAndTheRoutesLimitsBothHold(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, `
		sse /limited {
			jwt {
				`+hsKey+`
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
				topics news room/*
				targets user
			}
		}
		sse /own {
			topics news room/*
			jwt {
				`+hsKey+`
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
			}
		}
		sse /quiet {
			jwt {
				`+hsKey+`
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
				broadcast off
			}
		}`)
	everything := granting("", nil, list("**", "@broadcast", "@user/*", "@client/*"))
	some := granting("", nil, list("room/1", "other", "@user/alice"))
	for path, c := range map[string]struct{ operator, everything, some int }{ // publish token, and two JWTs
		"/limited?topic=news":              {200, 200, 403},
		"/limited?topic=room/1":            {200, 200, 200},
		"/limited?topic=room/2":            {200, 200, 403},
		"/limited?topic=other":             {403, 403, 403},
		"/limited?topic=room/1&topic=news": {200, 200, 403},
		"/limited?user=alice":              {200, 200, 200},
		"/limited?user=bob":                {200, 200, 403},
		"/limited?client_id=x":             {403, 403, 403},
		"/limited?broadcast":               {403, 403, 403},
		"/own":                             {200, 200, 403}, // to news
		"/own?topic=room/1":                {200, 200, 200},
		"/own?topic=other":                 {403, 403, 403},
		"/own?user=alice":                  {403, 403, 403},
		"/own?broadcast":                   {403, 403, 403},
		"/quiet?topic=other":               {200, 200, 200},
		"/quiet?user=alice":                {200, 200, 200},
		"/quiet?broadcast":                 {403, 403, 403},
	} {
		for who, token := range map[int]string{0: publishSecret, 1: everything, 2: some} {
			want := []int{c.operator, c.everything, c.some}[who]
			if answer := post(t, s.url(path), "", "x", bearer(token)); answer.Status != want {
				t.Errorf("%s by %s: answered %d, want %d: %s", path, []string{"the operator", "all grants", "some grants"}[who], answer.Status, want, answer.Body)
			}
		}
	}
}

func TestPublisherIsCutOffWhenItsTokenExpires(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, jwtRoute)
	stream := e2etest.Subscribe(t, s.url("/events?topic=a"), bearer(granting("", list("a"), nil)))
	stream.Connected(t)
	exp := time.Now().Truncate(time.Second).Add(5 * time.Second)
	reader, writer := io.Pipe()
	request, err := http.NewRequest(http.MethodPost, s.url("/events?topic=a"), reader)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	request.Header.Set("Authorization", "Bearer "+grantingUntil(exp, "", nil, list("a")))
	go func() {
		defer writer.Close()
		for time.Since(exp) < patience {
			if _, err := io.WriteString(writer, "line\n"); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	response, err := e2etest.H1(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if late := time.Since(exp); late < 0 || late > 5*time.Second {
		t.Errorf("answered %v after the token's end", late)
	}
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := wantRefusal(t, e2etest.Answer{Status: response.StatusCode, Header: response.Header, Body: string(content)},
		http.StatusUnauthorized, "expired")
	if r.Published == nil || *r.Published == 0 || r.Line == nil || *r.Line != *r.Published+1 {
		t.Fatalf("the answer is %s", content)
	}
	for range *r.Published {
		stream.Expect(t, "line")
	}
	publish(t, s.url("/events?topic=a"), "end", bearer(publishSecret))
	stream.Expect(t, "end")
}

func TestCookiePublishesFromPagesOfTheSiteAndOfListedOrigins(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, `
		sse /events {
			cors_origins https://listed.example http://localhost:3000
			jwt {
				`+hsKey+`
				cookie session
				query token
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
			}
		}
		sse /any {
			cors_origins *
			jwt {
				`+hsKey+`
				cookie session
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
			}
		}`, withTLS)
	token := granting("alice", nil, list("a"))
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		own := p.url("")
		host := strings.Split(own, "://")[1]
		secure := strings.HasPrefix(own, "https")
		for from, want := range map[string]int{
			own: 200, strings.ToUpper(own): 200, "https://" + host: 200,
			"https://listed.example": 200, "http://localhost:3000": 200,
			"https://LISTED.example": 403, "http://listed.example": 403, "https://listed.example:443": 200, "null": 403, "": 403,
			"https://evil.example": 403, "ftp://" + host: 403, "//" + host: 403, own + "/": 403, own + "#": 403, "http://x@" + host: 403,
		} {
			if from == "http://"+host && secure { // a page that anybody on its way could have written
				want = 403
			}
			answer := post(t, p.url("/events?topic=a"), "", "x", p.via, cookie(token), origin(from))
			if answer.Status != want {
				t.Errorf("Origin %q: answered %d, want %d: %s", from, answer.Status, want, answer.Body)
			}
			credentials := answer.Header.Get("Access-Control-Allow-Credentials")
			listed := strings.TrimSuffix(from, ":443") == "https://listed.example" || from == "http://localhost:3000"
			if (credentials == "true") != listed {
				t.Errorf("Origin %q: credentials are allowed: %q", from, credentials)
			}
			// What no browser sends unasked needs no Origin.
			publish(t, p.url("/events?topic=a"), "x", p.via, bearer(token), origin(from))
			publish(t, p.url("/events?topic=a&token="+token), "x", p.via, origin(from))
		}
		if secure {
			wantRefusal(t, post(t, p.url("/events?topic=a"), "", "x", p.via, cookie(token), origin("http://"+host)), http.StatusForbidden, "Origin")
		}
		// * is for requests without credentials.
		wantRefusal(t, post(t, p.url("/any?topic=a"), "", "x", p.via, cookie(token), origin("https://evil.example")), http.StatusForbidden, "Origin")
		wantRefusal(t, post(t, p.url("/any?topic=a"), "", "x", p.via, cookie(token), origin("*")), http.StatusForbidden, "Origin")
		publish(t, p.url("/any?topic=a"), "x", p.via, cookie(token), origin(own))
	})
}
