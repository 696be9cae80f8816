package sse

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/memlog"
)

// countedBroker is a broker module whose logs count how often they are closed.
type countedBroker struct {
	fails  error // what Open returns
	opened []*countedLog
}

type countedLog struct {
	broker.Log
	closed int
}

func (b *countedBroker) Identity() string { return fmt.Sprintf("%p", b) }

func (b *countedBroker) Open(string) (broker.Log, error) {
	if b.fails != nil {
		return nil, b.fails
	}
	b.opened = append(b.opened, &countedLog{Log: memlog.Open()})
	return b.opened[len(b.opened)-1], nil
}

func (l *countedLog) Close() error { l.closed++; return l.Log.Close() }

// An app offers its settings to all hubs of its routes or to none.
func TestAnAppThatCannotStartTakesBackWhatItOffered(t *testing.T) {
	good, bad := new(countedBroker), &countedBroker{fails: errors.New("disk full")}
	names := map[string]broker.Module{"one": good, "two": good, "three": bad, "four": good}
	app := &App{Hubs: make(map[string]*HubConfig), used: make(map[string]*live.Hub)}
	for name, module := range names {
		app.Hubs[name] = &HubConfig{broker: module}
		app.used[name] = live.Acquire(name)
	}
	for i := range 5 { // the order of hubs is random
		if err := app.Start(); !errors.Is(err, bad.fails) {
			t.Fatalf("an app with a broken broker starts: %v", err)
		}
		for name, s := range app.used { // nothing stands before what is offered next
			next := &live.Settings{Limits: hub.Limits{MaxClients: 1 + i}, Module: good, Logger: zap.NewNop(), Emit: func(string, map[string]any) {}}
			if err := s.Offer(next); err != nil || !reflect.DeepEqual(s.Core.Limits(), next.Limits) {
				t.Errorf("hub %s still has settings of an app that did not start, or %v", name, err)
			}
			s.Withdraw(next)
		}
	}
	bad.fails = nil
	if err := app.Start(); err != nil {
		t.Error(err)
	}
	if err := app.Stop(); err != nil {
		t.Error(err)
	}
	for name := range names {
		if err := live.Release(name); err != nil {
			t.Error(err)
		}
	}
	for _, l := range append(good.opened, bad.opened...) {
		if l.closed != 1 {
			t.Errorf("a log that was opened was closed %d times", l.closed)
		}
	}
}

func TestFailedPublishesAreLoggedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		p := &post{publishRoute: &publishRoute{hub: live.Acquire(t.Name()), logger: zap.New(core)}}
		defer func() { _ = live.Release(t.Name()) }()
		for second := 1; second <= 3; second++ {
			for range 100 {
				if refusal := p.failed(broker.ErrUnavailable); refusal.Status != http.StatusServiceUnavailable {
					t.Errorf("it is answered %d", refusal.Status)
				}
			}
			if logs.Len() != second {
				t.Errorf("in second %d it was logged %d times", second, logs.Len())
			}
			time.Sleep(time.Second)
		}
	})
}
