package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed" // answer.md
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// model is a server that speaks OpenAI's chat completions, as most do: OpenAI itself, Mistral, Ollama,
// llama.cpp, vLLM and others.
type model struct {
	url  string
	key  string
	name string
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// ask has the model answer and gives token each token as it comes. The model stops when ctx ends.
func (m model) ask(ctx context.Context, messages []message, token func(string)) error {
	body, err := json.Marshal(map[string]any{"model": m.name, "stream": true, "messages": messages})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if m.key != "" {
		request.Header.Set("Authorization", "Bearer "+m.key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("asking the model: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		detail, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("the model answers %s: %s", response.Status, bytes.TrimSpace(detail))
	}
	if media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); media != "text/event-stream" {
		return fmt.Errorf("the model answers with %q, not with an event stream", media)
	}
	return listen(response.Body, token)
}

// largest is what one event of a model may have, in bytes.
const largest = 1 << 20

// listen gives token what the model says, until it has finished. Some models end with [DONE], some with no
// more than a reason to finish.
func listen(stream io.Reader, token func(string)) error {
	events := eventstream.NewDecoder(stream, largest)
	events.KeepIncomplete = true
	for finished := false; ; {
		event, err := events.Next()
		switch {
		case err != nil && finished:
			return nil
		case err == io.EOF: //nolint:errorlint // a wrapped EOF is no proper end
			return errors.New("the model broke off")
		case err != nil:
			return fmt.Errorf("listening to the model: %w", err)
		}
		data := bytes.TrimSpace(event.Data)
		if string(data) == "[DONE]" {
			return nil
		}
		var said chunk
		if err := json.Unmarshal(data, &said); err != nil {
			if event.Name == "error" {
				return fmt.Errorf("the model says: %s", data)
			}
			if len(data) == 0 || event.Name != "" {
				continue // a sign of life, such as event: ping
			}
			return fmt.Errorf("reading what the model says: %w", err)
		}
		if trouble := said.trouble(event.Name); trouble != "" {
			return fmt.Errorf("the model says: %s", trouble)
		}
		if len(said.Choices) == 0 {
			continue
		}
		if text := said.Choices[0].Delta.Content; text != "" {
			token(string(text))
		}
		finished = finished || said.Choices[0].FinishReason != ""
	}
}

// chunk is what the model says at a time.
type chunk struct {
	Choices []choice `json:"choices"`

	Error   json.RawMessage `json:"error,omitempty"`   // text, or an object with a message
	Object  string          `json:"object,omitempty"`  // "error" for an error that stands alone
	Message string          `json:"message,omitempty"` // of that error
}

type choice struct {
	Delta struct {
		Content content `json:"content"`
	} `json:"delta"`
	FinishReason string `json:"finish_reason,omitempty"`
}

// trouble returns the error that a chunk is, in an event of that name; empty for none.
func (c *chunk) trouble(event string) string {
	switch {
	case len(c.Error) > 0 && string(c.Error) != "null":
		var text string
		if json.Unmarshal(c.Error, &text) == nil {
			return cmp.Or(text, "an error without a message")
		}
		var object struct{ Message string }
		_ = json.Unmarshal(c.Error, &object)
		return cmp.Or(object.Message, string(c.Error))
	case c.Object == "error" || event == "error":
		return cmp.Or(c.Message, "an error without a message")
	}
	return ""
}

// content is text, or a list of parts, of which those that are text count: others are what the model thinks.
type content string

// UnmarshalJSON implements json.Unmarshaler.
func (c *content) UnmarshalJSON(text []byte) error {
	var parts []struct{ Type, Text string }
	if json.Unmarshal(text, &parts) != nil {
		return json.Unmarshal(text, (*string)(c))
	}
	for _, part := range parts {
		if part.Type == "text" {
			*c += content(part.Text)
		}
	}
	return nil
}

//go:embed answer.md
var preset string

// token is a word with what goes before it. A real model's tokens are odder, but of about this size.
var token = regexp.MustCompile(`\s*\S+|\s+`)

// fakeModel says a preset answer to every prompt, in the words of OpenAI's chat completions.
type fakeModel struct {
	pace time.Duration // between two tokens
}

func (f fakeModel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(f.pace)
	defer tick.Stop()
	for _, word := range token.FindAllString(preset, -1) {
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
		said := chunk{Choices: make([]choice, 1)}
		said.Choices[0].Delta.Content = content(word)
		writeEvent(w, said)
		_ = http.NewResponseController(w).Flush()
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}
