package modeltest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Token returns the nth token of a canned answer. They differ, so that none can be lost or come twice
// unnoticed.
func Token(n int) string { return fmt.Sprintf("word%d,", n) }

// Tokens returns the first n tokens as one text.
func Tokens(n int) string {
	var text strings.Builder
	for i := range n {
		text.WriteString(Token(i))
	}
	return text.String()
}

// ChatCompletion answers with n tokens as OpenAI's chat completions do, one each pace; 0 is as fast as it goes.
func ChatCompletion(n int, pace time.Duration) func(*Call) {
	return stream(n, pace, func(c *Call, i int) {
		c.Say(fmt.Sprintf(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"fake",`+
			`"choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`+"\n\n", Token(i)))
	}, `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"fake",`+
		`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
}

// Plain answers with n events whose data are the tokens, and at last [DONE].
func Plain(n int, pace time.Duration) func(*Call) {
	return stream(n, pace, func(c *Call, i int) { c.Say("data: " + Token(i) + "\n\n") }, "data: [DONE]\n\n")
}

// Ollama answers with n lines of JSON, as Ollama does.
func Ollama(n int, pace time.Duration) func(*Call) {
	return func(c *Call) {
		c.Header().Set("Content-Type", "application/x-ndjson")
		stream(n, pace, func(c *Call, i int) { c.Say(ollamaLine(Token(i), false)) }, ollamaLine("", true))(c)
	}
}

func ollamaLine(content string, done bool) string {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	line, _ := json.Marshal(map[string]any{
		"model": "fake", "message": message{"assistant", content}, "done": done,
	})
	return string(line) + "\n"
}

// UIMessage answers with n tokens in the protocol of the AI SDK's chats.
func UIMessage(n int, pace time.Duration) func(*Call) {
	return func(c *Call) {
		c.Header().Set("X-Vercel-Ai-Ui-Message-Stream", "v1")
		c.Say("data: {\"type\":\"start\",\"messageId\":\"m1\"}\n\ndata: {\"type\":\"text-start\",\"id\":\"t1\"}\n\n")
		stream(n, pace, func(c *Call, i int) {
			c.Say(fmt.Sprintf("data: {\"type\":\"text-delta\",\"id\":\"t1\",\"delta\":%q}\n\n", Token(i)))
		}, "data: {\"type\":\"text-end\",\"id\":\"t1\"}\n\ndata: {\"type\":\"finish\"}\n\ndata: [DONE]\n\n")(c)
	}
}

// AGUI answers with n tokens in the AG-UI protocol, which TanStack AI speaks.
func AGUI(n int, pace time.Duration) func(*Call) {
	return func(c *Call) {
		say := func(format string, args ...any) { c.Say(fmt.Sprintf("data: "+format+"\n\n", args...)) }
		say(`{"type":"RUN_STARTED","threadId":"t1","runId":"r1"}`)
		say(`{"type":"TEXT_MESSAGE_START","messageId":"m1","role":"assistant"}`)
		stream(n, pace, func(_ *Call, i int) {
			say(`{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1","delta":%q}`, Token(i))
		}, "data: {\"type\":\"TEXT_MESSAGE_END\",\"messageId\":\"m1\"}\n\n"+
			"data: {\"type\":\"RUN_FINISHED\",\"threadId\":\"t1\",\"runId\":\"r1\",\"finishReason\":\"stop\"}\n\n")(c)
	}
}

// stream says n pieces, one each pace, and then the last. It stops when the client leaves.
func stream(n int, pace time.Duration, say func(*Call, int), last string) func(*Call) {
	return func(c *Call) {
		for i := range n {
			say(c, i)
			if pace == 0 {
				continue
			}
			select {
			case <-time.After(pace):
			case <-c.Request.Context().Done():
				return
			}
		}
		c.Say(last)
	}
}
