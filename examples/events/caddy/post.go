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

// Post is a handler of Caddy's events that posts each as a CloudEvent to an address. Whoever emits an
// event waits for its handlers, so this one only queues, and when nobody takes the events it drops them.
type Post struct {
	URL string `json:"url"`

	queue   chan []byte
	stop    context.CancelFunc
	posting *sync.WaitGroup
	logger  *zap.Logger
}

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

// Provision begins to post.
func (p *Post) Provision(ctx caddy.Context) error {
	if _, err := http.NewRequest(http.MethodPost, p.URL, nil); err != nil {
		return fmt.Errorf("events to %q: %w", p.URL, err)
	}
	p.logger, p.queue, p.posting = ctx.Logger(), make(chan []byte, maxQueue), new(sync.WaitGroup)
	var live context.Context
	live, p.stop = context.WithCancel(context.Background())
	p.posting.Go(func() { p.run(live) })
	return nil
}

// Cleanup posts what still waits, unless that takes too long.
func (p *Post) Cleanup() error {
	if p.stop != nil {
		p.stop()
		p.posting.Wait()
	}
	return nil
}

// Handle takes an event.
func (p *Post) Handle(_ context.Context, event caddy.Event) error {
	body, err := json.Marshal(event.CloudEvent())
	if err != nil {
		return err
	}
	select {
	case p.queue <- body:
		return nil
	default:
		return errors.New("too many events wait; this one is dropped")
	}
}

func (p *Post) run(live context.Context) {
	for {
		select {
		case body := <-p.queue:
			p.post(context.Background(), body)
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

func (p *Post) post(ctx context.Context, body []byte) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(body))
	if err != nil {
		return // Provision has made sure of it
	}
	request.Header.Set("Content-Type", "application/cloudevents+json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.logger.Warn("an event is lost", zap.Error(err))
		return
	}
	_ = response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices {
		p.logger.Warn("an event is refused", zap.Int("status", response.StatusCode))
	}
}

// Interface guards
var (
	_ caddyevents.Handler   = (*Post)(nil)
	_ caddyfile.Unmarshaler = (*Post)(nil)
	_ caddy.Provisioner     = (*Post)(nil)
	_ caddy.CleanerUpper    = (*Post)(nil)
)
