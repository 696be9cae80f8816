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
)

func publishCommand() *cobra.Command {
	p := &sender{retry: -1, err: &counter{unit: "lines"}}
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
		Args: cobra.RangeArgs(1, 2),
	}
	p.remote.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&p.clientID, "client-id", "", "publish to the connections of this client_id")
	flags.StringVar(&p.user, "user", "", "publish to this user")
	flags.BoolVar(&p.broadcast, "broadcast", false, "publish to every client of the hub")
	flags.StringVar(&p.event, "event", "", "the event's name")
	flags.BoolVar(&p.ephemeral, "ephemeral", false, "give the message no ID and don't keep it")
	flags.Int64Var(&p.retry, "retry", -1, "a reconnect delay to tell, in milliseconds (default: none)")
	flags.StringVar(&p.key, "idempotency-key", "", "publish once for this key (default: a new one)")
	cmd.MarkFlagsMutuallyExclusive("topic", "client-id", "user", "broadcast")
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := checkGiven(cmd, "client-id", "user", "idempotency-key"); err != nil {
			return err
		}
		return p.remote.prepare(args[0])
	}
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, args []string) int {
		p.out, p.err.Writer = cmd.OutOrStdout(), cmd.ErrOrStderr()
		if len(args) == 2 && args[1] != "-" {
			return p.publish(ctx, args[1])
		}
		defer p.err.show(os.Stdin)()
		return p.publishLines(ctx, os.Stdin)
	})
	return cmd
}

// sender is a publisher.
type sender struct {
	remote
	clientID, user, event, key string
	broadcast, ephemeral       bool
	retry                      int64
	out                        io.Writer
	err                        *counter // of the lines that were sent
}

// query returns the target and the other fields, as form A has them.
func (p *sender) query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{"client_id": p.clientID, "user": p.user, "event": p.event} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if p.broadcast {
		query.Set("broadcast", "true")
	}
	if p.ephemeral {
		query.Set("ephemeral", "true")
	}
	if p.retry >= 0 {
		query.Set("retry", strconv.FormatInt(p.retry, 10))
	}
	return query
}

// publishFor is how long a single message is tried.
const publishFor = 10 * time.Second

// publish sends one message, again if need be, and returns the exit code.
func (p *sender) publish(ctx context.Context, data string) int {
	if p.key == "" {
		p.key = rand.Text()
	}
	header := http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Idempotency-Key": {p.key}}
	unknown := false // whether it may have been published
	for deadline := time.Now().Add(publishFor); ; {
		response, err := p.do(ctx, http.MethodPost, p.query(), strings.NewReader(data), header)
		wait := time.Second
		if err == nil {
			var again bool
			if wait, again = retryable(response); !again {
				return p.answer(response)
			}
			err = errors.New(refusal(response))
			_ = response.Body.Close()
		} else {
			unknown = unknown || mayHaveArrived(err)
		}
		if time.Now().Add(wait).After(deadline) || !sleep(ctx, wait) {
			if unknown {
				fmt.Fprintf(p.err, "perhaps published: %v; to send it again, but publish it once, add --idempotency-key %s\n", err, p.key)
			} else {
				fmt.Fprintln(p.err, "not published:", err)
			}
			return exitUnreachable
		}
	}
}

// mayHaveArrived reports whether a request that ended so, without an answer, may have been carried out.
func mayHaveArrived(err error) bool {
	var network *net.OpError
	return !errors.As(err, &network) || network.Op != "dial"
}

// answerWithin is how long an interrupted publisher waits for what its lines are answered.
const answerWithin = 5 * time.Second

// publishLines sends each line of r as it arrives, and returns the exit code. An interrupt ends the
// lines, not the request, so that it is known what was published.
func (p *sender) publishLines(ctx context.Context, r io.Reader) int {
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	if p.key != "" {
		header.Set("Idempotency-Key", p.key)
	}
	body, lines := io.Pipe()
	go p.feed(ctx, r, lines)
	answered, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(answerWithin, cancel) })()
	response, err := p.do(answered, http.MethodPost, p.query(), body, header)
	if err != nil {
		fmt.Fprintln(p.err, "publishing ended:", err)
		return exitUnreachable
	}
	return p.answer(response)
}

// feed hands the lines of r on until they end, or ctx does, or nobody takes them. Half a line is
// never handed on as a whole one.
func (p *sender) feed(ctx context.Context, r io.Reader, lines *io.PipeWriter) {
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
				p.err.messages.Add(1)
			}
		case err := <-ended:
			if !whole {
				p.err.messages.Add(1) // the last line needs no newline
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

// answer shows what a request was told, and returns the exit code.
func (p *sender) answer(response *http.Response) int {
	defer response.Body.Close()
	if isOf(response, "application/json") {
		_, _ = io.Copy(p.out, response.Body) // who does not read it does not mind
		return 0
	}
	fmt.Fprintln(p.err, "refused:", refusal(response))
	if _, again := retryable(response); again {
		return exitUnreachable
	}
	return exitRefused
}
