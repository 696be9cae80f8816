package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(Post{}) }

// Post is a handler of Caddy's events that posts each as a CloudEvent to an address, in the order they were
// emitted in. Whoever emits an event waits for its handlers, so this one only queues, and when nobody takes the
// events it drops them.
type Post struct {
	URL string `json:"url"`

	poster *poster
}

// posters are shared by the handlers that post to the same address: of two that each had its own, the one
// told first might be heard last. They live on in the next config.
var posters = caddy.NewUsagePool()

const (
	maxQueue = 10_000 // events that may wait
	timeout  = 5 * time.Second
)

// CaddyModule returns the Caddy module information.
func (Post) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.post", New: func() caddy.Module { return new(Post) }}
}

// UnmarshalCaddyfile reads
//
//	on <event> post <url>
func (p *Post) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the handler's name
	if !d.AllArgs(&p.URL) {
		return d.ArgErr()
	}
	return nil
}

// Provision begins to post, unless another handler has begun already.
func (p *Post) Provision(caddy.Context) error {
	shared, _, err := posters.LoadOrNew(p.URL, func() (caddy.Destructor, error) { return newPoster(p.URL) })
	if err != nil {
		return fmt.Errorf("events to %q: %w", p.URL, err)
	}
	p.poster = shared.(*poster)
	return nil
}

// Cleanup ends the posting with the last handler.
func (p *Post) Cleanup() error {
	if p.poster == nil {
		return nil
	}
	_, err := posters.Delete(p.URL)
	return err
}

// Handle takes an event.
func (p *Post) Handle(_ context.Context, event caddy.Event) error {
	select {
	case p.poster.queue <- event.CloudEvent():
		return nil
	default:
		return errors.New("too many events wait; this one is dropped")
	}
}

// poster posts to one address, one event after the other.
type poster struct {
	url     string
	queue   chan caddy.CloudEvent
	stop    context.CancelFunc
	posting sync.WaitGroup
}

func newPoster(url string) (*poster, error) {
	if _, err := http.NewRequest(http.MethodPost, url, nil); err != nil {
		return nil, err
	}
	live, stop := context.WithCancel(context.Background())
	p := &poster{url: url, queue: make(chan caddy.CloudEvent, maxQueue), stop: stop}
	p.posting.Go(func() { p.run(live) })
	return p, nil
}

// Destruct posts what still waits, unless that takes too long.
func (p *poster) Destruct() error {
	p.stop()
	p.posting.Wait()
	return nil
}

func (p *poster) run(live context.Context) {
	for {
		select {
		case event := <-p.queue:
			p.post(context.Background(), event)
			continue
		case <-live.Done():
		}
		last, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for len(p.queue) > 0 {
			p.post(last, <-p.queue)
		}
		return
	}
}

func (p *poster) post(ctx context.Context, event caddy.CloudEvent) {
	body, _ := json.Marshal(event) // its data is JSON already
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return // newPoster has made sure of it
	}
	request.Header.Set("Content-Type", "application/cloudevents+json")
	request.Header.Set("Idempotency-Key", event.ID) // so it may be sent again where a connection was just closed
	logger := caddy.Log().Named("events.handlers.post")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		logger.Warn("an event is lost", zap.Error(err))
		return
	}
	_ = response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices {
		logger.Warn("an event is refused", zap.Int("status", response.StatusCode))
	}
}

// Interface guards
var (
	_ caddyevents.Handler   = (*Post)(nil)
	_ caddyfile.Unmarshaler = (*Post)(nil)
	_ caddy.Provisioner     = (*Post)(nil)
	_ caddy.CleanerUpper    = (*Post)(nil)
)
