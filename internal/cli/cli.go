// Package cli is the command `caddy sse`: it listens and publishes to any hub over HTTP, and makes tokens.
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// Command returns the command `caddy sse`.
func Command() caddycmd.Command {
	return caddycmd.Command{
		Name:  "sse",
		Short: "Listens and publishes to hubs of the sse module",
		Long: `
Listens and publishes to hubs of the sse module, here or anywhere: for scripts,
and for a look at what happens.

Messages and answers go to standard output, all else to standard error.

Exit codes: 0 all went well; 1 the command makes no sense; 2 the server refused,
or has no hub there; 3 the server can't be reached, or could not take it for now;
4 what is to be printed can't be written; 130 interrupted before --count messages
were there.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(listenCommand(), publishCommand(), tokenCommand())
			cmd.Args = cobra.NoArgs // so that an unknown command is an error
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		},
	}
}

// Exit codes; 0 and 1 are cobra's.
const (
	exitRefused     = 2
	exitUnreachable = 3
	exitOutput      = 4
	exitInterrupted = 130
)

// tokenVariable is the environment variable for the bearer token, if there is no flag for it.
const tokenVariable = "SSE_TOKEN"

// runs makes a cobra command of f, which writes its own errors and returns an exit code.
func runs(
	f func(ctx context.Context, cmd *cobra.Command, args []string) int,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		context.AfterFunc(ctx, stop) // the second interrupt ends it at once
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		wrapped := caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) {
			return f(ctx, cmd, args), nil
		})
		return wrapped(cmd, args)
	}
}

// remote is the route that a command talks to.
type remote struct {
	address string
	topics  []string
	headers []string
	token   string
	client  *http.Client
}

// addFlags adds the flags for the route and the request.
func (r *remote) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&r.topics, "topic", "t", nil, "a topic; may be given several times")
	cmd.Flags().StringArrayVarP(&r.headers, "header", "H", nil, "a request header, as 'Name: value'")
	cmd.Flags().StringVar(&r.token, "token", "",
		"a bearer token (default: the environment variable "+tokenVariable+")")
}

// prepare checks the flags and makes the HTTP client.
func (r *remote) prepare(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not an address such as https://example.com/events", address)
	}
	for _, header := range r.headers {
		if name, _, ok := strings.Cut(header, ":"); !ok || strings.TrimSpace(name) == "" {
			return fmt.Errorf("%q is not a header such as 'Name: value'", header)
		}
	}
	if r.token == "" {
		r.token = os.Getenv(tokenVariable)
	}
	r.address = address
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true
	transport.ResponseHeaderTimeout = silence
	r.client = &http.Client{Transport: transport, CheckRedirect: keepMethod}
	return nil
}

// silence is how long a server may take to answer once it has the request.
const silence = 30 * time.Second

// keepMethod does not follow the redirection of a POST: it would become a GET.
func keepMethod(_ *http.Request, via []*http.Request) error {
	if via[0].Method != http.MethodGet || len(via) > 10 {
		return http.ErrUseLastResponse
	}
	return nil
}

// checkGiven refuses flags with an empty value, such as a variable that is not set. Without the flag the
// command might do something else.
func checkGiven(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if flag := cmd.Flags().Lookup(name); flag.Changed && flag.Value.String() == "" {
			return fmt.Errorf("--%s is empty; give it a value, or leave it out", name)
		}
	}
	return nil
}

// isOf reports whether an answer is a 200 of a media type. A 200 of another type does not come from a hub.
func isOf(response *http.Response, media string) bool {
	got, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	return response.StatusCode == http.StatusOK && got == media
}

// do sends a request, with parameters added to the query of the address.
func (r *remote) do(
	ctx context.Context, method string, query url.Values, body io.Reader, header http.Header,
) (*http.Response, error) {
	u, err := url.Parse(r.address)
	if err != nil {
		return nil, err
	}
	all := u.Query()
	for name, values := range query {
		all[name] = append(all[name], values...)
	}
	for _, topic := range r.topics {
		all.Add("topic", topic)
	}
	u.RawQuery = all.Encode()
	request, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	maps.Copy(request.Header, header)
	for _, header := range r.headers {
		name, value, _ := strings.Cut(header, ":")
		if name, value = strings.TrimSpace(name), strings.TrimSpace(value); strings.EqualFold(name, "Host") {
			request.Host = value
		}
		request.Header.Add(name, value)
	}
	if r.token != "" {
		request.Header.Set("Authorization", "Bearer "+r.token)
	}
	return r.client.Do(request)
}

// retryable reports whether a refusal may end by itself, and how long to wait before asking again.
func retryable(response *http.Response) (after time.Duration, ok bool) {
	status := response.StatusCode
	if status != http.StatusTooManyRequests && status < http.StatusInternalServerError {
		return 0, false
	}
	seconds, err := strconv.ParseInt(response.Header.Get("Retry-After"), 10, 64)
	if err != nil || seconds < 0 {
		seconds = 2
	}
	return inUnits(seconds, time.Second), true
}

// inUnits returns a delay that the server chose. It cuts a delay that a Duration can't hold.
func inUnits(n int64, unit time.Duration) time.Duration {
	return time.Duration(min(n, int64(math.MaxInt64/unit))) * unit
}

// refusal returns why a request was refused, in the server's words.
func refusal(response *http.Response) string {
	switch {
	case response.StatusCode == http.StatusOK:
		return response.Status + ", but there is no hub at this address"
	case response.Header.Get("Location") != "":
		return response.Status + " to " + printable(response.Header.Get("Location"))
	}
	var p problem.Problem
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if json.Unmarshal(body, &p) != nil || p.Detail == "" {
		return response.Status
	}
	text := response.Status + ": " + printable(p.Detail)
	if p.Published != nil {
		text += fmt.Sprintf(" (line %d; %d published before it)", p.Line, *p.Published)
	}
	return text
}

// printable replaces control characters, which a terminal would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return utf8.RuneError
		}
		return r
	}, text)
}

// sleep waits, or returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
