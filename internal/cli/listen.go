package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

func listenCommand() *cobra.Command {
	l := newListener()
	cmd := &cobra.Command{
		Use:   "listen URL [--topic TOPIC]...",
		Short: "Prints what is published, reconnecting and resuming like a browser",
		Long: `
Prints the data of each message as it comes; with --json, each message as a line
of JSON. When the connection ends it comes back, as browsers do, and goes on where
it was. That it is connected, and that messages are missing, is told on standard
error. It ends when the server answers 204: there is nothing more to come.

How long to wait before it comes back is for the server to choose, from 100ms to
1h. A message may have 256 MiB.`,
		Example: `  caddy sse listen https://example.com/events --topic news
  caddy sse listen http://localhost:8080/events -t 'orders/**' --json | jq .data
  caddy sse listen http://localhost:8080/events -t job/7 --count 1
  caddy sse listen http://localhost:8080/events -t 'prices/*' --since latest --format envelope`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return errors.New("write: caddy sse listen URL --topic TOPIC")
			case len(args) > 1:
				return fmt.Errorf("topics go by --topic; write: caddy sse listen %s --topic %s", args[0], args[1])
			}
			return nil
		},
	}
	l.remote.addFlags(cmd)
	cmd.Flags().StringVar(&l.clientID, "client-id", "", "the client_id to listen under (default: one is given)")
	cmd.Flags().StringVar(&l.lastID, "last-event-id", "", "the ID seen last, to resume after")
	cmd.Flags().StringVar(&l.since, "since", "",
		"where to begin without an ID: now, all, latest, -50, 10m, a time (default: as the server has it)")
	cmd.Flags().StringVar(&l.format, "format", "",
		"print each message as sse (its data; the default) or envelope (JSON with its topic, time and data)")
	cmd.Flags().BoolVar(&l.json, "json", false, "print each message as a JSON object with id, event and data")
	cmd.Flags().Uint64Var(&l.count, "count", 0, "exit after so many messages (default: never)")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if l.format != "" && l.format != "sse" && l.format != "envelope" {
			return fmt.Errorf("--format is sse or envelope, not %q", l.format)
		}
		return l.remote.prepare(args[0])
	}
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, _ []string) int {
		l.out, l.err.Writer = cmd.OutOrStdout(), cmd.ErrOrStderr()
		l.toTerminal = term.IsTerminal(int(os.Stdout.Fd()))
		defer l.err.show(os.Stdout)()
		return l.run(ctx)
	})
	return cmd
}

func newListener() *listener {
	return &listener{retry: 2 * time.Second, largest: largestMessage, err: &counter{unit: "messages"}}
}

// largestMessage is what a message may have: the most that a hub takes, with its ID and name.
const largestMessage = 256<<20 + 64<<10

// listener is a subscriber that prints.
type listener struct {
	remote
	largest  int    // what a message may have, in bytes
	clientID string // empty to get one
	lastID   string // the ID seen last; empty for none
	since    string // where to begin without an ID; empty for where the server says
	format   string // of the data; empty for what was published
	json     bool
	count    uint64 // exit after so many messages; 0 for never

	out        io.Writer
	toTerminal bool     // whether out is a terminal
	err        *counter // counts what was printed

	retry time.Duration // the reconnect delay that the server told
}

var (
	errDone   = errors.New("done") // there is nothing more to do
	errOver   = errors.New("ended: the server answered 204 No Content: there is nothing more to come")
	errOutput = errors.New("what comes can't be written")
)

// run listens until there is a reason to stop, and returns the exit code.
func (l *listener) run(ctx context.Context) int {
	for {
		wait, err := l.connect(ctx)
		var refused *refusedError
		switch {
		case errors.Is(err, errDone):
			return 0
		case errors.Is(err, errOver):
			l.err.say("%v", err)
			if l.count > 0 { // messages were still to come
				return exitRefused
			}
			return 0
		case errors.Is(err, errOutput):
			l.err.say("%v", err)
			return exitOutput
		case ctx.Err() != nil:
			return l.interrupted()
		case errors.As(err, &refused):
			l.err.say("refused: %v", err)
			return exitRefused
		}
		l.err.say("%v; connecting again in %v", err, wait.Round(leastWait))
		if !sleep(ctx, wait) {
			return l.interrupted()
		}
	}
}

// interrupted returns the exit code after an interrupt. It is 0 unless --count messages were still to come.
func (l *listener) interrupted() int {
	if l.count > 0 {
		return exitInterrupted
	}
	return 0
}

// refusedError is a refusal that will not end by itself.
type refusedError struct{ detail string }

func (e *refusedError) Error() string { return e.detail }

// connect listens on one connection. It returns why the connection ended, and how long to wait before the
// next.
func (l *listener) connect(ctx context.Context) (wait time.Duration, err error) {
	query, header := url.Values{}, http.Header{"Accept": {"text/event-stream"}}
	if l.clientID != "" {
		query.Set("client_id", l.clientID)
	}
	if l.format != "" {
		query.Set("format", l.format)
	}
	if l.since != "" && l.lastID == "" {
		query.Set("since", l.since)
	}
	if l.lastID != "" {
		header.Set("Last-Event-ID", l.lastID)
	}
	response, err := l.do(ctx, http.MethodGet, query, nil, header)
	if err != nil {
		return l.retry, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNoContent {
		return 0, errOver
	}
	if !isOf(response, "text/event-stream") {
		if after, ok := retryable(response); ok {
			return after, errors.New(refusal(response))
		}
		return 0, &refusedError{refusal(response)}
	}
	events := eventstream.NewDecoder(response.Body, l.largest)
	for {
		e, err := events.Next()
		if errors.Is(err, eventstream.ErrTooLarge) { // it would come again after each reconnect
			return 0, &refusedError{fmt.Sprintf("a message has more than %d MiB", l.largest>>20)}
		}
		if err != nil {
			return l.retry, fmt.Errorf("the connection ended (%w)", err)
		}
		if err := l.handle(e); err != nil {
			return l.retry, err
		}
	}
}

// handle takes one event.
func (l *listener) handle(e eventstream.Event) error {
	if e.ID != "" || e.ClearsID {
		l.lastID = e.ID
	}
	if e.HasRetry {
		l.retry = bounded(uint64(e.Retry), time.Millisecond)
	}
	switch e.Name {
	case "connected", "gap":
		l.err.say("%s %s", e.Name, e.Data)
		return nil
	case "expired", "closed":
		return &refusedError{"the stream was " + e.Name}
	}
	if !e.HasData {
		return nil
	}
	switch err := l.print(e); {
	case errors.Is(err, syscall.EPIPE), err != nil && runtime.GOOS == "windows": // there pipes end in many ways
		return errDone // nobody reads any more
	case err != nil:
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	if l.err.messages.Add(1) == l.count {
		return errDone
	}
	return nil
}

// print writes the data of an event, or all of it as JSON.
func (l *listener) print(e eventstream.Event) error {
	if !l.json {
		text := string(e.Data)
		if l.toTerminal {
			text = printable(text)
		}
		_, err := fmt.Fprintln(l.out, text)
		return err
	}
	line, err := json.Marshal(struct {
		ID    string `json:"id,omitempty"`
		Event string `json:"event,omitempty"`
		Data  string `json:"data"`
	}{e.ID, e.Name, string(e.Data)})
	if err != nil {
		return err
	}
	_, err = io.WriteString(l.out, escaped(string(line)))
	return err
}
