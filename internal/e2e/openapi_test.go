package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// openAPI is docs/openapi.yaml, and which of its operations have been answered with success.
type openAPI struct {
	document any
	schemas  *jsonschema.Compiler
	seen     map[string]bool
}

const openAPIURL = "https://example.com/openapi.json"

func readOpenAPI(t *testing.T) *openAPI {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "docs", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var raw any
	if err := yaml.Unmarshal(source, &raw); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	o := &openAPI{schemas: jsonschema.NewCompiler(), seen: make(map[string]bool)}
	if o.document, err = jsonschema.UnmarshalJSON(strings.NewReader(string(text))); err != nil {
		t.Fatal(err)
	}
	if err := o.schemas.AddResource(openAPIURL, o.document); err != nil {
		t.Fatal(err)
	}
	return o
}

// at returns what stands below some names, and a pointer to it. References are followed.
func (o *openAPI) at(names ...string) (value any, pointer string) {
	value, pointer = o.document, "#"
	for _, name := range names {
		object, _ := value.(map[string]any)
		value = object[name]
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		if object, ok := value.(map[string]any); ok {
			if to, ok := object["$ref"].(string); ok {
				value, pointer = o.at(strings.Split(strings.TrimPrefix(to, "#/"), "/")...)
			}
		}
	}
	return value, pointer
}

// check holds an answer against the operation of a path. It returns what is wrong.
func (o *openAPI) check(path, method string, answer e2etest.Answer) error {
	operation := []string{"paths", path, strings.ToLower(method), "responses"}
	status := strconv.Itoa(answer.Status)
	response, _ := o.at(append(operation, status)...)
	if response == nil {
		status = "default"
		if response, _ = o.at(append(operation, status)...); response == nil {
			return fmt.Errorf("the status %d is not told of", answer.Status)
		}
	}
	if answer.Status < 300 {
		o.seen[method+" "+path] = true
	}
	contentType, _, _ := strings.Cut(answer.Header.Get("Content-Type"), ";")
	if answer.Body == "" && method != http.MethodHead || answer.Status == http.StatusNoContent {
		return nil
	}
	if content, _ := o.at(append(operation, status, "content")...); content == nil && method == http.MethodHead {
		return nil
	}
	media, _ := o.at(append(operation, status, "content", contentType)...)
	if media == nil {
		return fmt.Errorf("an answer %d of type %q is not told of: %s", answer.Status, contentType, answer.Body)
	}
	schema, pointer := o.at(append(operation, status, "content", contentType, "schema")...)
	if schema == nil || !strings.HasSuffix(contentType, "json") || strings.HasSuffix(contentType, "ndjson") {
		return nil
	}
	compiled, err := o.schemas.Compile(openAPIURL + pointer)
	if err != nil {
		return err
	}
	body, err := jsonschema.UnmarshalJSON(strings.NewReader(answer.Body))
	if err != nil {
		return err
	}
	return compiled.Validate(body)
}

// operations are all that the document tells of.
func (o *openAPI) operations() (all []string) {
	paths, _ := o.at("paths")
	for path, item := range paths.(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" && method != "servers" {
				all = append(all, strings.ToUpper(method)+" "+path)
			}
		}
	}
	return all
}

// TestOpenAPITellsTheRealAnswers asks each operation for an answer, and some for refusals, and holds them against
// docs/openapi.yaml.
func TestOpenAPITellsTheRealAnswers(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	o := readOpenAPI(t)
	asked := make(chan struct{}, 1)
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: token\n\n")
		_ = http.NewResponseController(w).Flush()
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(model.Close)
	server := e2etest.Start(t, `
{
	admin {$CADDY_ADMIN}
	sse {
		topic room/* {
			presence on
		}
	}
}
http://127.0.0.1:{{port}} {
	sse /events {
		publish {
			open
		}
	}
	sse_health /healthz
	sse_resume /chat
	reverse_proxy /chat `+strings.TrimPrefix(model.URL, "http://")+`
}`)
	const clientID = "a-client-of-this-test-1"
	client := e2etest.Subscribe(t, server.URL("/events?topic=room/1&client_id="+clientID))
	client.Connected(t)
	chat := e2etest.Subscribe(t, server.URL("/chat"), e2etest.Post(""))
	<-asked
	_, answerID, _ := strings.Cut(chat.Response.Header.Get("Content-Location"), "sse_stream=")

	ask := func(path, method, query, body string, want int, options ...e2etest.Option) {
		t.Helper()
		url := strings.NewReplacer("{hub}", "default", "{client_id}", clientID, "{id}", answerID).Replace(path)
		if strings.HasPrefix(path, "/sse/") {
			url = server.AdminURL(url)
		} else {
			url = server.URL(url)
		}
		answer := e2etest.Send(t, method, url+query, body, options...)
		if answer.Status != want {
			t.Errorf("%s %s%s is answered %d: %s", method, path, query, answer.Status, answer.Body)
		}
		if err := o.check(path, method, answer); err != nil {
			t.Errorf("%s %s%s: %v", method, path, query, err)
		}
	}
	jsonBody := e2etest.Header("Content-Type", "application/json")

	ask("/events", "POST", "?topic=room/1", "hello", 200)
	ask("/events", "POST", "?topic=room/1&ephemeral", "hello", 200)
	ask("/events", "POST", "", `[{"topic":"room/1","data":1},{"user":"alice","key":"k","data":"x"}]`, 200, jsonBody)
	ask("/events", "POST", "?topic=room/1", "one\ntwo\n", 200, e2etest.Header("Content-Type", "application/x-ndjson"))
	ask("/events", "POST", "", "{\"topic\":\"a\",\"data\":1}\n{\"nonsense\":1}\n", 400, e2etest.Header("Content-Type", "application/x-ndjson"))
	ask("/events", "POST", "?topics=a", "hello", 400)
	ask("/events", "POST", "?topic=a", "zip", 415, e2etest.Header("Content-Encoding", "zip"))
	ask("/events", "GET", "?topic=room/1&format=json&since=all", "", 200)
	ask("/events", "GET", "?topic=room/1&format=json&last_event_id=unknown", "", 200)
	ask("/events", "GET", "?presence=room/1", "", 200)
	ask("/events", "GET", "?presence=elsewhere", "", 400)
	ask("/events", "GET", "?topic=room/1&since=yesterday", "", 400)
	ask("/events", "HEAD", "?topic=room/1", "", 200)
	ask("/events", "HEAD", "?topic=**/nonsense/**/a", "", 400)
	ask("/events", "DELETE", "", "", 400)
	ask("/healthz", "GET", "", "", 200)
	ask("/chat", "GET", "?sse_stream="+answerID+"&sse_status", "", 200)
	ask("/chat", "GET", "?sse_stream=sse"+strings.Repeat("A", 26), "", 404)
	ask("/chat", "GET", "", "", 400, e2etest.LastEventID(answerID+".7"))

	for _, question := range []string{"", "/ready", "/live"} {
		ask("/sse/health"+question, "GET", "", "", 200)
	}
	ask("/sse/health", "GET", "?nonsense", "", 400)
	ask("/sse/hubs", "GET", "", "", 200)
	for _, list := range []string{"clients", "topics", "answers"} {
		ask("/sse/hubs/{hub}/"+list, "GET", "?limit=10", "", 200)
		ask("/sse/hubs/{hub}/"+list, "GET", "?limit=0", "", 400)
	}
	ask("/sse/hubs/{hub}/messages", "GET", "?topic=room/1", "", 200)
	ask("/sse/hubs/{hub}/presence", "GET", "?topic=room/1", "", 200)
	ask("/sse/hubs/{hub}/presence", "GET", "?topic=elsewhere", "", 400)
	ask("/sse/hubs/{hub}/publish", "POST", "", `{"topic":"room/1","data":"from an operator"}`, 200, jsonBody)
	ask("/sse/hubs/{hub}/publish", "POST", "", `{"topics":"room/1"}`, 400, jsonBody)
	ask("/sse/hubs/{hub}/topics", "DELETE", "?topic=room/1", "", 204)
	ask("/events", "DELETE", "?topic=room/1", "", 204)
	ask("/sse/hubs/{hub}/clients/{client_id}", "DELETE", "", "", 200)
	ask("/sse/hubs/{hub}/clients", "DELETE", "?client_id=nobody-of-this-name", "", 404)
	again := e2etest.Subscribe(t, server.URL("/events?topic=a&client_id=another-client-of-it"))
	again.Connected(t)
	ask("/sse/hubs/{hub}/clients", "DELETE", "?client_id=another-client-of-it", "", 200)
	ask("/sse/hubs/{hub}/answers/{id}", "DELETE", "", "", 200)
	ask("/sse/hubs/{hub}/answers/{id}", "DELETE", "", "", 404)
	ask("/chat", "DELETE", "?sse_stream="+answerID, "", 204)
	o.seen["POST /chat"] = chat.Response.StatusCode == http.StatusOK

	for _, operation := range o.operations() {
		if !o.seen[operation] {
			t.Errorf("%s has not been tried", operation)
		}
	}
}
