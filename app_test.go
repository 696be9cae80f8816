package sse

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestAnAppThatCannotStartTakesBackWhatItOffered(t *testing.T) {
	good, bad := &testBroker{identity: "good"}, &testBroker{identity: "bad", fails: errors.New("disk full")}
	names := map[string]BrokerModule{"one": good, "two": good, "three": bad, "four": good}
	app := &App{Hubs: make(map[string]*HubConfig), used: make(map[string]*sharedHub)}
	for name, module := range names {
		app.Hubs[name] = &HubConfig{broker: module}
		app.used[name] = acquireHub(name)
	}
	for range 5 { // the order of hubs is random
		if err := app.Start(); !errors.Is(err, bad.fails) {
			t.Fatalf("an app with a broken broker starts: %v", err)
		}
		for name, hub := range app.used {
			if len(hub.settings) != 0 {
				t.Errorf("hub %s still has settings of an app that did not start", name)
			}
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
		if err := releaseHub(name); err != nil {
			t.Error(err)
		}
	}
	for _, l := range append(good.opened, bad.opened...) {
		if l.closed != 1 {
			t.Errorf("a log that was opened was closed %d times", l.closed)
		}
	}
}

func TestThatPublishingFailsIsLoggedOnceASecondHoweverManyPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		p := &post{publishRoute: &publishRoute{hub: use(t), logger: zap.New(core)}}
		defer release(t)
		for second := 1; second <= 3; second++ {
			for range 100 {
				if refusal := p.failed(ErrUnavailable); refusal.Status != http.StatusServiceUnavailable {
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
