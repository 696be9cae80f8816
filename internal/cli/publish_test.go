package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

func TestPublishNamesTheKeyOfTheMessage(t *testing.T) {
	asked := make(chan url.Values, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query()
		w.Header().Set("Content-Type", "application/json")
	}))
	defer server.Close()
	cmd := publishCommand()
	cmd.SetArgs([]string{server.URL, "--topic", "prices", "--key", "BTC", "64000"})
	cmd.SetOut(io.Discard)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	if query := <-asked; query.Get("key") != "BTC" || query.Get("topic") != "prices" {
		t.Errorf("it asked for %v", query)
	}
	cmd = publishCommand()
	cmd.SetArgs([]string{server.URL, "--topic", "prices", "--key", "", "64000"})
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	if cmd.Execute() == nil {
		t.Error("an empty key is taken")
	}
}
