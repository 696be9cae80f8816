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
	l := &listener{retry: 2 * time.Second, err: &counter{unit: "messages"}}
	cmd := &cobra.Command{
		Use:   "listen URL [--topic TOPIC]...",
		Short: "Prints what is published, reconnecting and resuming like a browser",
		Long: `
Prints the data of each message as it comes; with --json, each message as a line
of JSON. When the connection ends it comes back, as browsers do, and goes on where
it was. That it is connected, and that messages are missing, is told on standard
error.`,
		Example: `  caddy sse listen https://example.com/events --topic news
  caddy sse listen http://localhost:8080/events -t 'orders/**' --json | jq .data
  caddy sse listen http://localhost:8080/events -t job/7 --count 1`,
		Args: cobra.ExactArgs(1),
	}
	l.remote.addFlags(cmd)
	cmd.Flags().StringVar(&l.clientID, "client-id", "", "the client_id to listen under (default: one is given)")
	cmd.Flags().StringVar(&l.lastID, "last-event-id", "", "the ID seen last, to resume after")
	cmd.Flags().BoolVar(&l.json, "json", false, "print each message as a JSON object with id, event and data")
	cmd.Flags().Uint64Var(&l.count, "count", 0, "exit after so many messages (default: never)")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error { return l.remote.prepare(args[0]) }
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, _ []string) int {
		l.out, l.err.Writer = cmd.OutOrStdout(), cmd.ErrOrStderr()
		l.toTerminal = term.IsTerminal(int(os.Stdout.Fd()))
		defer l.err.show(os.Stdout)()
		return l.run(ctx)
	})
	return cmd
}

// listener is a subscriber that prints.
type listener struct {
	remote
	clientID string // empty to get one
	lastID   string // the ID seen last; empty for none
	json     bool
	count    uint64 // exit after so many messages; 0 for never

	out        io.Writer
	toTerminal bool     // whether out is a terminal
	err        *counter // counts what was printed

	retry time.Duration // the reconnect delay that the server told
}

var (
	errDone   = errors.New("done") // there is nothing more to do
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
		case errors.Is(err, errOutput):
			fmt.Fprintln(l.err, err)
			return exitOutput
		case ctx.Err() != nil:
			return l.interrupted()
		case errors.As(err, &refused):
			fmt.Fprintln(l.err, "refused:", err)
			return exitRefused
		}
		fmt.Fprintf(l.err, "%v; connecting again in %v\n", err, wait)
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
	if l.lastID != "" {
		header.Set("Last-Event-ID", l.lastID)
	}
	response, err := l.do(ctx, http.MethodGet, query, nil, header)
	if err != nil {
		return l.retry, err
	}
	defer response.Body.Close()
	if !isOf(response, "text/event-stream") {
		if after, ok := retryable(response); ok {
			return after, errors.New(refusal(response))
		}
		return 0, &refusedError{refusal(response)}
	}
	events := eventstream.NewDecoder(response.Body, 64<<20)
	for {
		e, err := events.Next()
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
	if e.ID != "" {
		l.lastID = e.ID
	}
	if e.HasRetry {
		l.retry = inUnits(e.Retry, time.Millisecond)
	}
	switch e.Name {
	case "connected", "gap":
		fmt.Fprintf(l.err, "%s %s\n", e.Name, printable(string(e.Data)))
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
	return json.NewEncoder(l.out).Encode(struct {
		ID    string `json:"id,omitempty"`
		Event string `json:"event,omitempty"`
		Data  string `json:"data"`
	}{e.ID, e.Name, string(e.Data)})
}
