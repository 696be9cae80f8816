package e2e

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestDeletedClientIsToldEndedAndRefusedForAMinute(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, openSite)
	events := server.URL("/events?topic=news&client_id=ann")
	streams := []*e2etest.Stream{e2etest.Subscribe(t, events), e2etest.Subscribe(t, events)}
	other := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=bob"))
	for _, s := range append(streams, other) {
		s.Connected(t)
	}
	e2etest.Publish(t, server.URL("/events?topic=news"), "before")

	answer := e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients/ann"), "")
	if answer.Status != http.StatusOK || strings.TrimSpace(answer.Body) != `{"closed":2}` {
		t.Errorf("DELETE: %d: %s", answer.Status, answer.Body)
	}
	for _, s := range streams {
		s.Expect(t, "before")
		wantClosed(t, s)
	}
	for range 2 {
		var refused *e2etest.Refused
		if _, err := e2etest.Open(t.Context(), events); !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
			t.Errorf("coming back: %v", err)
		}
	}
	e2etest.Await(t, "the connections are gone", func() bool { return hubs(t, server)["default"].Clients == 1 })
	wantAdminError(t, "again", e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients/ann"), ""), 404, "ann")
	e2etest.Publish(t, server.URL("/events?topic=news"), "after")
	other.Expect(t, "before")
	other.Expect(t, "after")

	// Who was not there may come.
	wantAdminError(t, "nobody", e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients/cy"), ""), 404)
	e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=cy")).Connected(t)

	// In a path this ID would be the folder above.
	dots := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=.."))
	dots.Connected(t)
	answer = e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients?client_id=.."), "")
	if answer.Status != http.StatusOK {
		t.Errorf("DELETE: %d: %s", answer.Status, answer.Body)
	}
	wantClosed(t, dots)
	if want := `caddy_sse_disconnects_total{hub="default",reason="closed"}`; scrapeWithMetrics(t, server)[want] != "3" {
		t.Errorf("the scrape says %s for %s", scrapeWithMetrics(t, server)[want], want)
	}
}

func TestDeleteReachesTheOtherInstances(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	site := "{\n\tsse {\n\t\tbroker redis " + redis.URL() + "\n\t}\n}\n" + openSite
	one, two := e2etest.Start(t, site), e2etest.Start(t, site)
	here := e2etest.Subscribe(t, one.URL("/events?topic=news&client_id=ann"))
	there := e2etest.Subscribe(t, two.URL("/events?topic=news&client_id=ann"))
	far := e2etest.Subscribe(t, two.URL("/events?topic=news&client_id=far"))
	for _, s := range []*e2etest.Stream{here, there, far} {
		s.Connected(t)
	}

	// At once: the first instance need not have heard of it yet, and waits for that, though not for ever.
	var answer e2etest.Answer
	e2etest.Await(t, "the first instance to hear of far", func() bool {
		answer = e2etest.Send(t, http.MethodDelete, one.AdminURL("/sse/hubs/default/clients/far"), "")
		return answer.Status != http.StatusNotFound
	})
	if answer.Status != http.StatusOK || strings.TrimSpace(answer.Body) != `{"closed":1}` {
		t.Errorf("DELETE: %d: %s", answer.Status, answer.Body)
	}
	wantClosed(t, far)
	answer = e2etest.Send(t, http.MethodDelete, one.AdminURL("/sse/hubs/default/clients/ann"), "")
	if answer.Status != http.StatusOK || strings.TrimSpace(answer.Body) != `{"closed":2}` {
		t.Errorf("DELETE: %d: %s", answer.Status, answer.Body)
	}
	wantClosed(t, here)
	wantClosed(t, there)
	for _, server := range []*e2etest.Server{one, two} {
		for _, id := range []string{"ann", "far"} {
			var refused *e2etest.Refused
			_, err := e2etest.Open(t.Context(), server.URL("/events?topic=news&client_id="+id))
			if !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
				t.Errorf("%s coming back: %v", id, err)
			}
		}
	}
	wantAdminError(t, "nobody", e2etest.Send(t, http.MethodDelete, one.AdminURL("/sse/hubs/default/clients/cy"), ""), 404, "cy")
	e2etest.Subscribe(t, two.URL("/events?topic=news&client_id=cy")).Connected(t)
}

func TestDeleteWithoutTheBrokerSaysThatOthersWereNotReached(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	redis := e2etest.RedisServer(t)
	server := e2etest.Start(t, "{\n\tsse {\n\t\tbroker redis "+redis.URL()+"\n\t}\n}\n"+openSite)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=ann"))
	stream.Connected(t)
	redis.Stop()
	wantAdminError(t, "DELETE", e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients/ann"), ""), 503, "other instances")
	wantClosed(t, stream)
}
