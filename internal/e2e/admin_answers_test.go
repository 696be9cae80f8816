package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestAnswersUnderWayAreListedAndStopped(t *testing.T) {
	t.Parallel()
	cancelled := make(chan struct{})
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(cancelled)
	}))
	t.Cleanup(model.Close)
	proxy := "sse_resume /chat\n\treverse_proxy /chat " + model.Listener.Addr().String() + "\n\tsse /events {"
	server := e2etest.Start(t, strings.Replace(openSite, "sse /events {", proxy, 1))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL("/chat"), strings.NewReader("why"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := e2etest.H1(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var list struct {
		Answers []struct {
			ID, State string
			Events    int
			Readers   int
		}
		All int
	}
	e2etest.Await(t, "the answer is listed with its event", func() bool {
		askAdmin(t, server, "/sse/hubs/default/answers", &list)
		return list.All == 1 && len(list.Answers) == 1 && list.Answers[0].Events == 1
	})
	one := list.Answers[0]
	if one.State != "live" || one.Readers != 1 || !strings.HasSuffix(response.Header.Get("Content-Location"), one.ID) {
		t.Errorf("listed is %+v; the answer is at %s", one, response.Header.Get("Content-Location"))
	}
	address := server.AdminURL("/sse/hubs/default/answers/" + one.ID)
	if answer := e2etest.Send(t, http.MethodDelete, address, ""); answer.Status != http.StatusOK {
		t.Errorf("DELETE: %d: %s", answer.Status, answer.Body)
	}
	<-cancelled
	if body, err := io.ReadAll(response.Body); err != nil || !strings.HasSuffix(string(body), "data: one\n\n") {
		t.Errorf("the reader got %q, %v", body, err)
	}
	wantAdminError(t, "again", e2etest.Send(t, http.MethodDelete, address, ""), http.StatusNotFound)
	askAdmin(t, server, "/sse/hubs/default/answers?limit=5", &list)
	if list.All != 0 {
		t.Errorf("what is over is listed: %+v", list)
	}
}
