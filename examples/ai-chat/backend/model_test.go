package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// Each is how a server that calls itself compatible with OpenAI's streams.
func TestModelsStreamInManyWays(t *testing.T) {
	for file, c := range map[string]struct{ text, trouble string }{
		"model-bom.sse":          {text: "Hello world"},
		"model-cr.sse":           {text: "Hello world"},
		"model-empty-data.sse":   {text: "Hello world"},
		"model-mistral-list.sse": {text: "Hello world"},
		"model-multiline.sse":    {text: "Hello world"},
		"model-nodone.sse":       {text: "Hello world"},
		"model-ping-text.sse":    {text: "Hello "},
		"model-error-string.sse": {"Hello ", "the model says: an error was encountered while running the model"},
		"model-error-vllm.sse":   {"Hello ", "the model says: context too long"},
	} {
		t.Run(file, func(t *testing.T) {
			stream, err := os.ReadFile(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			hears(t, string(stream), c.text, c.trouble)
		})
	}
	files, err := filepath.Glob("testdata/*")
	if err != nil || len(files) != 9 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestWhatEndsAModelsAnswer(t *testing.T) {
	const hello = `data: {"choices":[{"delta":{"content":"Hello"},"finish_reason":null}]}` + "\n\n"
	for name, c := range map[string]struct{ stream, text, trouble string }{
		"nothing":              {"", "", "the model broke off"},
		"no reason":            {hello, "Hello", "the model broke off"},
		"a reason, half":       {hello + `data: {"choices":[{"delta":{},"finish_reason":"length"}]}`, "Hello", ""},
		"an error object":      {hello + `data: {"error":{"message":"out of memory"}}` + "\n\n", "Hello", "the model says: out of memory"},
		"an empty error":       {hello + `data: {"error":""}` + "\n\n", "Hello", "the model says: an error without a message"},
		"an error of numbers":  {hello + `data: {"error":{"code":7}}` + "\n\n", "Hello", `the model says: {"code":7}`},
		"no error":             {hello + `data: {"error":null}` + "\n\ndata: [DONE]\n\n", "Hello", ""},
		"an event error":       {hello + "event: error\ndata: overloaded\n\n", "Hello", "the model says: overloaded"},
		"an event with object": {hello + "event: error\n" + `data: {"message":"overloaded"}` + "\n\n", "Hello", "the model says: overloaded"},
		"nonsense":             {hello + "data: Hello\n\n", "Hello", "reading what the model says"},
		"too much":             {"data: " + strings.Repeat("x", largest+1) + "\n\n", "", "larger than allowed"},
	} {
		t.Run(name, func(t *testing.T) { hears(t, c.stream, c.text, c.trouble) })
	}
}

// hears checks what the backend hears of a stream, in one piece and byte by byte.
func hears(t *testing.T, stream, text, trouble string) {
	t.Helper()
	for _, r := range []func() (string, error){
		func() (string, error) {
			var got strings.Builder
			err := listen(iotest.OneByteReader(strings.NewReader(stream)), func(s string) { got.WriteString(s) })
			return got.String(), err
		},
		func() (string, error) { return ask(t, "text/event-stream; charset=utf-8", stream) },
	} {
		got, err := r()
		if got != text || (err == nil) != (trouble == "") || err != nil && !strings.Contains(err.Error(), trouble) {
			t.Errorf("it heard %q, %v; want %q, %q", got, err, text, trouble)
		}
	}
}

// ask asks a model that answers with a body of that type.
func ask(t *testing.T, media, body string) (string, error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", media)
		_, _ = w.Write([]byte(body))
	}))
	defer server.Close()
	var got strings.Builder
	err := model{url: server.URL}.ask(context.Background(), []message{{"user", "hi"}}, func(s string) { got.WriteString(s) })
	return got.String(), err
}

func TestAPageIsNoModel(t *testing.T) {
	if got, err := ask(t, "text/html", "<!doctype html>"); got != "" || err == nil || !strings.Contains(err.Error(), "text/html") {
		t.Errorf("it heard %q, %v", got, err)
	}
}
