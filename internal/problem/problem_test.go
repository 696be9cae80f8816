package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// What goes into headers must not show in the body, whatever the fields are called.
func TestProblemInJSONHasTheMembersOfItsContractOnly(t *testing.T) {
	published := 3
	full := problem.New(http.StatusTooManyRequests, "slow down")
	full.Published, full.Line = &published, 4
	full.Challenge, full.RetryAfter = `Bearer realm="secret"`, 86399

	members := wantMembers(t, full, "detail", "line", "published", "status", "title", "type")
	for name, want := range map[string]string{
		"type": `"about:blank"`, "title": `"Too Many Requests"`, "status": "429", "detail": `"slow down"`,
		"published": "3", "line": "4",
	} {
		if got := string(members[name]); got != want {
			t.Errorf("%s is %s; want %s", name, got, want)
		}
	}

	none := 0
	unpublished := problem.New(http.StatusBadRequest, "no target")
	wantMembers(t, unpublished, "detail", "status", "title", "type")
	unpublished.Published = &none // 0 is an answer, too
	wantMembers(t, unpublished, "detail", "published", "status", "title", "type")
}

// wantMembers writes a problem and checks the members of the answer.
func wantMembers(t *testing.T, p *problem.Problem, want ...string) map[string]json.RawMessage {
	t.Helper()
	answer := httptest.NewRecorder()
	if err := problem.Write(answer, p); err != nil {
		t.Fatal(err)
	}
	body := answer.Body.String()
	for _, secret := range []string{"realm", "86399"} {
		if strings.Contains(body, secret) {
			t.Errorf("%s holds what is for a header: %s", body, secret)
		}
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(body), &members); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if got := slices.Sorted(maps.Keys(members)); !slices.Equal(got, want) {
		t.Errorf("the members are %q; want %q", got, want)
	}
	return members
}

// The command line reads problems that any server may have sent.
func TestHeadersAreNotReadFromJSON(t *testing.T) {
	var p problem.Problem
	body := `{"Challenge":"x","challenge":"x","RetryAfter":9,"retry_after":9,"retryafter":9}`
	err := json.Unmarshal([]byte(body), &p)
	if err != nil || p.Challenge != "" || p.RetryAfter != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestHeadersTellWhatTheBodyDoesNot(t *testing.T) {
	unauthorized := problem.New(http.StatusUnauthorized, "who are you?")
	unauthorized.Challenge = "Bearer"
	for _, test := range []struct {
		problem               *problem.Problem
		challenge, retryAfter string
	}{
		{problem.New(http.StatusForbidden, "no"), "", ""},
		{unauthorized, "Bearer", ""},
		{problem.New(http.StatusTooManyRequests, "no"), "", "1"},
		{problem.New(http.StatusServiceUnavailable, "no"), "", "1"},
		{problem.Of(hub.ErrHubFull), "", "5"},
	} {
		answer := httptest.NewRecorder()
		if err := problem.Write(answer, test.problem); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"Content-Type":     "application/problem+json",
			"Cache-Control":    "no-store",
			"Content-Length":   fmt.Sprint(answer.Body.Len()),
			"WWW-Authenticate": test.challenge,
			"Retry-After":      test.retryAfter,
		} {
			if got := answer.Header().Get(name); got != want {
				t.Errorf("%d: %s is %q; want %q", test.problem.Status, name, got, want)
			}
		}
		if answer.Code != test.problem.Status {
			t.Errorf("the status is %d; want %d", answer.Code, test.problem.Status)
		}
	}
}

func TestErrorsHaveTheirStatuses(t *testing.T) {
	for err, want := range map[error]int{
		hub.ErrClientIDOwned:     http.StatusForbidden,
		hub.ErrClientIDBarred:    http.StatusForbidden,
		hub.ErrTooManyFromHere:   http.StatusTooManyRequests,
		hub.ErrHubFull:           http.StatusServiceUnavailable,
		hub.ErrDraining:          http.StatusServiceUnavailable,
		hub.ErrHubClosed:         http.StatusServiceUnavailable,
		broker.ErrUnknownOutcome: http.StatusServiceUnavailable,
		broker.ErrUnavailable:    http.StatusServiceUnavailable,
		broker.ErrKeyReused:      http.StatusUnprocessableEntity,
		broker.ErrKeysFull:       http.StatusServiceUnavailable,
		errors.New("other"):      http.StatusServiceUnavailable,
	} {
		if got := problem.Of(fmt.Errorf("wrapped: %w", err)).Status; got != want {
			t.Errorf("%v: %d; want %d", err, got, want)
		}
	}
	if p := problem.Of(broker.ErrKeysFull); p.RetryAfter < 2 || !strings.Contains(p.Detail, "Idempotency-Keys") {
		t.Errorf("who brings one key too many is told %+v", p)
	}
	p := problem.New(http.StatusTeapot, "short and stout")
	if problem.Of(fmt.Errorf("wrapped: %w", p)) != p {
		t.Error("a problem that is wrapped is not found again")
	}
}

func TestPurgesHaveStatusesOfTheirOwn(t *testing.T) {
	for err, want := range map[error]struct {
		status int
		word   string
	}{
		broker.ErrCannotPurge:    {http.StatusNotImplemented, "can't remove"},
		broker.ErrUnavailable:    {http.StatusServiceUnavailable, "nothing was removed"},
		broker.ErrUnknownOutcome: {http.StatusServiceUnavailable, "unknown"},
		hub.ErrDraining:          {http.StatusServiceUnavailable, "going down"},
		errors.New("other"):      {http.StatusServiceUnavailable, "nothing was removed"},
	} {
		p := problem.OfPurge(fmt.Errorf("wrapped: %w", err))
		if p.Status != want.status || !strings.Contains(p.Detail, want.word) ||
			(p.RetryAfter > 0) != (want.status == http.StatusServiceUnavailable) {
			t.Errorf("%v: %+v", err, p)
		}
	}
}
