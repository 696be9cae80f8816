package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed" // answer.md
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
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

// chunk is what the model says at a time.
type chunk struct {
	Choices []choice `json:"choices"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

type choice struct {
	Delta struct {
		Content string `json:"content"`
	} `json:"delta"`
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
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data:")
		if data = strings.TrimSpace(data); !isData {
			continue
		}
		if data == "[DONE]" {
			return nil
		}
		var said chunk
		if err := json.Unmarshal([]byte(data), &said); err != nil {
			return fmt.Errorf("reading what the model says: %w", err)
		}
		if said.Error != nil {
			return fmt.Errorf("the model says: %s", said.Error.Message)
		}
		if len(said.Choices) > 0 && said.Choices[0].Delta.Content != "" {
			token(said.Choices[0].Delta.Content)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("listening to the model: %w", err)
	}
	return errors.New("the model broke off")
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
		said.Choices[0].Delta.Content = word
		writeEvent(w, said)
		_ = http.NewResponseController(w).Flush()
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}
