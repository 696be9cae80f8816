package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func publishCommand() *cobra.Command {
	s := &sender{retry: -1, err: &counter{unit: "lines"}}
	cmd := &cobra.Command{
		Use:   "publish URL [--topic TOPIC]... [DATA | -]",
		Short: "Publishes a message, or each line of standard input as it arrives",
		Long: `
Publishes DATA as one message. Without DATA, or with -, each line of standard
input becomes a message of its own, published as it arrives; empty lines are left
out. A site may end a request whose input is silent for long: Caddy's
read_body_idle is a minute by default.

A single message is sent again for some seconds if the server can't take it for
now; its idempotency key makes sure that it is published once.`,
		Example: `  caddy sse publish https://example.com/events --topic news 'hello'
  vmstat -n 1 | caddy sse publish http://localhost:8080/events -t host/web1
  caddy sse publish http://localhost:8080/events --user alice --event order '{"id":42}'`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return errors.New("write: caddy sse publish URL --topic TOPIC DATA")
			case len(args) > 2:
				return fmt.Errorf("DATA is one argument, in quotes; topics go by --topic; "+
					"write: caddy sse publish %s --topic TOPIC '%s'", args[0], strings.Join(args[1:], " "))
			}
			return nil
		},
	}
	s.remote.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&s.clientID, "client-id", "", "publish to the connections of this client_id")
	flags.StringVar(&s.user, "user", "", "publish to this user")
	flags.BoolVar(&s.broadcast, "broadcast", false, "publish to every client of the hub")
	flags.StringVar(&s.event, "event", "", "the event's name")
	flags.StringVar(&s.messageKey, "key", "", "what the message is the value of within its topic")
	flags.BoolVar(&s.ephemeral, "ephemeral", false, "give the message no ID and don't keep it")
	flags.Int64Var(&s.retry, "retry", -1, "a reconnect delay to tell, in milliseconds (default: none)")
	flags.StringVar(&s.key, "idempotency-key", "", "publish once for this key (default: a new one)")
	cmd.MarkFlagsMutuallyExclusive("topic", "client-id", "user", "broadcast")
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := checkGiven(cmd, "client-id", "user", "key", "idempotency-key"); err != nil {
			return err
		}
		return s.remote.prepare(args[0])
	}
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, args []string) int {
		s.out, s.err.Writer = cmd.OutOrStdout(), cmd.ErrOrStderr()
		s.toTerminal = term.IsTerminal(int(os.Stdout.Fd()))
		if len(args) == 2 && args[1] != "-" {
			return s.publish(ctx, args[1])
		}
		defer s.err.show(os.Stdin)()
		return s.publishLines(ctx, os.Stdin)
	})
	return cmd
}

// sender publishes, one message or many lines.
type sender struct {
	remote
	clientID, user, event string
	messageKey, key       string // what the message is the value of; the idempotency key
	broadcast, ephemeral  bool
	retry                 int64 // in milliseconds; negative for none

	out        io.Writer
	toTerminal bool     // whether out is a terminal
	err        *counter // counts the lines that were sent
}

// query returns the parameters for the target and the other fields of a message.
func (s *sender) query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{
		"client_id": s.clientID, "user": s.user, "event": s.event, "key": s.messageKey,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if s.broadcast {
		query.Set("broadcast", "true")
	}
	if s.ephemeral {
		query.Set("ephemeral", "true")
	}
	if s.retry >= 0 {
		query.Set("retry", strconv.FormatInt(s.retry, 10))
	}
	return query
}

// publishFor is how long a single message is tried.
const publishFor = 10 * time.Second

// publish sends one message, again if need be, and returns the exit code.
func (s *sender) publish(ctx context.Context, data string) int {
	if s.key == "" {
		s.key = rand.Text()
	}
	header := http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Idempotency-Key": {s.key}}
	unknown := false // whether the message may have been published
	for deadline := time.Now().Add(publishFor); ; {
		response, err := s.do(ctx, http.MethodPost, s.query(), strings.NewReader(data), header)
		wait := time.Second
		if err == nil {
			var again bool
			if wait, again = retryable(response); !again {
				return s.answer(response)
			}
			err = errors.New(refusal(response))
			_ = response.Body.Close()
		} else {
			unknown = unknown || mayHaveArrived(err)
		}
		if time.Now().Add(wait).After(deadline) || !sleep(ctx, wait) {
			if unknown {
				s.err.say("perhaps published: %v; to send it again, but publish it once, add --idempotency-key %s",
					err, s.key)
			} else {
				s.err.say("not published: %v", err)
			}
			return exitUnreachable
		}
	}
}

// mayHaveArrived reports whether the server may have got a request that ended with err instead of an answer.
func mayHaveArrived(err error) bool {
	var network *net.OpError
	return !errors.As(err, &network) || network.Op != "dial"
}

// answerWithin is how long an interrupted publisher waits for the answer to its lines.
const answerWithin = 5 * time.Second

// publishLines sends each line of r as it arrives, and returns the exit code. An interrupt ends the lines,
// not the request: the answer says what was published.
func (s *sender) publishLines(ctx context.Context, r io.Reader) int {
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	if s.key != "" {
		header.Set("Idempotency-Key", s.key)
	}
	body, lines := io.Pipe()
	go s.feed(ctx, r, lines)
	answered, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(answerWithin, cancel) })()
	response, err := s.do(answered, http.MethodPost, s.query(), body, header)
	if err != nil {
		s.err.say("publishing ended: %v", err)
		return exitUnreachable
	}
	return s.answer(response)
}

// feed passes the lines of r on until they end, or ctx ends, or nobody reads them. Half a line is never
// passed on as a whole line.
func (s *sender) feed(ctx context.Context, r io.Reader, lines *io.PipeWriter) {
	pieces, ended := make(chan []byte), make(chan error, 1)
	go func() {
		in := bufio.NewReaderSize(r, 64<<10)
		for {
			piece, err := in.ReadSlice('\n')
			if len(piece) > 0 {
				pieces <- bytes.Clone(piece)
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				ended <- err
				return
			}
		}
	}()
	for whole := true; ; {
		select {
		case piece := <-pieces:
			if _, err := lines.Write(piece); err != nil {
				return
			}
			if whole = piece[len(piece)-1] == '\n'; whole {
				s.err.messages.Add(1)
			}
		case err := <-ended:
			if !whole {
				s.err.messages.Add(1) // the last line needs no newline
			}
			_ = lines.CloseWithError(err)
			return
		case <-ctx.Done():
			if whole {
				_ = lines.Close()
			} else {
				_ = lines.CloseWithError(errors.New("interrupted within a line"))
			}
			return
		}
	}
}

// largestAnswer is how much of an answer is printed: what a hub says has less than 1 KiB.
const largestAnswer = 64 << 10

// answer prints the answer of the server, and returns the exit code.
func (s *sender) answer(response *http.Response) int {
	defer response.Body.Close()
	if isOf(response, "application/json") {
		answer, _ := io.ReadAll(io.LimitReader(response.Body, largestAnswer))
		text := string(answer)
		if s.toTerminal {
			text = printable(text)
		}
		_, _ = io.WriteString(s.out, text) // nobody may be reading it
		return 0
	}
	s.err.say("refused: %s", refusal(response))
	if _, again := retryable(response); again {
		return exitUnreachable
	}
	return exitRefused
}
