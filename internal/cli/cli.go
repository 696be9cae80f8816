// Package cli is the command `caddy sse`: it listens and publishes to any hub over HTTP, and makes tokens.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

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
	r.client = &http.Client{Transport: transport, CheckRedirect: redirected}
	return nil
}

// silence is how long a server may take to answer once it has the request.
const silence = 30 * time.Second

// redirected prepares the request that follows a redirection. It does not follow that of a POST, which would
// become a GET. Once another host has been asked, nothing of the user's goes along: no header of theirs, and no
// Referer.
func redirected(next *http.Request, before []*http.Request) error {
	if before[0].Method != http.MethodGet || len(before) > 10 {
		return http.ErrUseLastResponse
	}
	for _, asked := range append(before, next) {
		if sameHost(before[0].URL, asked.URL) {
			continue
		}
		own := make(http.Header)
		for _, name := range []string{"Accept", "Last-Event-Id"} {
			own[name] = before[0].Header.Values(name)
		}
		next.Header = own
		break
	}
	return nil
}

// sameHost reports whether what the user meant for one address may be sent to another: to the same host and
// port, or to the same host over TLS instead.
func sameHost(meant, asked *url.URL) bool {
	if meant.Scheme == "http" && asked.Scheme == "https" && meant.Port() == "" && asked.Port() == "" {
		return strings.EqualFold(meant.Hostname(), asked.Hostname())
	}
	return meant.Scheme == asked.Scheme && strings.EqualFold(meant.Host, asked.Host)
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
	return retryAfter(response.Header.Get("Retry-After"), time.Now()), true
}

// What a server may choose as the wait before the next try. Less would be a flood, more would look as if the
// command hung.
const (
	leastWait = 100 * time.Millisecond
	mostWait  = time.Hour
)

// retryAfter reads a Retry-After header: seconds, or a date. If it is neither, the wait is 2 s.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return bounded(seconds, time.Second)
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(at.Sub(now), leastWait), mostWait) // Sub does not overflow
	}
	return 2 * time.Second
}

// bounded returns a wait that the server chose, brought within bounds.
func bounded(n uint64, unit time.Duration) time.Duration {
	return max(time.Duration(min(n, uint64(mostWait/unit)))*unit, leastWait)
}

// refusal returns why a request was refused, in the server's words.
func refusal(response *http.Response) string {
	switch {
	case response.StatusCode == http.StatusOK:
		return response.Status + ", but there is no hub at this address"
	case response.Header.Get("Location") != "":
		return response.Status + " to " + response.Header.Get("Location")
	}
	var p problem.Problem
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if json.Unmarshal(body, &p) != nil || p.Detail == "" {
		return response.Status
	}
	text := response.Status + ": " + p.Detail
	if p.Published != nil {
		text += fmt.Sprintf(" (line %d; %d published before it)", p.Line, *p.Published)
	}
	return text
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
