package hub_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func since(s hub.Subscription, from hub.Since) hub.Subscription {
	s.Since = from
	return s
}

var (
	all    = hub.Since{All: true}
	latest = hub.Since{Latest: true}
)

func TestAClientWithoutAnIDBeginsWhereItAsks(t *testing.T) {
	for name, most := range map[string]int{"in one log": 0, "among many": 1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := hubtest.New(t, hubtest.Plenty)
				if most > 0 {
					hub.Shrink(h.Hub, 4, 1, 3) // it goes through all that is kept
				}
				for i := range 4 {
					h.Publish(hub.Topics("room/1"), "one "+strconv.Itoa(i))
					h.Publish(hub.Topics("room/2"), "two "+strconv.Itoa(i))
					h.PublishEphemeral(hub.Topics("room/2"), "tick")
					h.Publish(hub.Topics("other"), "not for it")
					hubtest.Pause(time.Minute)
				}
				hour := time.Now().Add(-time.Hour)
				for _, c := range []struct {
					from hub.Since
					want []string
				}{
					{hub.Since{}, nil},
					{all, []string{"one 0", "two 0", "one 1", "two 1", "one 2", "two 2", "one 3", "two 3"}},
					{latest, []string{"one 3", "two 3"}},
					{hub.Since{Newest: 3}, []string{"two 2", "one 3", "two 3"}},
					{hub.Since{Newest: 1}, []string{"two 3"}},
					{hub.Since{Newest: 8}, []string{"one 0", "two 0", "one 1", "two 1", "one 2", "two 2", "one 3", "two 3"}},
					{hub.Since{Newest: 5000}, []string{"one 0", "two 0", "one 1", "two 1", "one 2", "two 2", "one 3", "two 3"}},
					{hub.Since{Time: hour}, []string{"one 0", "two 0", "one 1", "two 1", "one 2", "two 2", "one 3", "two 3"}},
					{hub.Since{Time: time.Now().Add(-150 * time.Second)}, []string{"one 2", "two 2", "one 3", "two 3"}},
					{hub.Since{Time: time.Now().Add(-2 * time.Minute)}, []string{"one 2", "two 2", "one 3", "two 3"}},
					{hub.Since{Time: time.Now()}, nil},
					{hub.Since{Time: time.Now().Add(time.Hour)}, nil},
				} {
					client := h.Join(since(hubtest.With("room/*", "nothing"), c.from))
					if client.Resume != hub.ResumeNone {
						t.Errorf("with %+v the client is told %q", c.from, client.Resume)
					}
					h.PublishEphemeral(hub.Topics("room/3"), "live")
					if client.Want(append(c.want, "live")...); t.Failed() {
						t.Fatalf("with %+v", c.from)
					}
				}
			})
		})
	}
}

func TestAnIDCountsMoreThanSince(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.PublishAll("a", 1, 3)
		seen := h.Position().String()
		h.PublishAll("a", 4, 5)
		h.Join(since(hubtest.Returning(hubtest.With("a"), seen), all)).WantResume(hub.ResumeComplete, seen, "4", "5")
	})
}

func TestWhoBeginsInThePastResumesFromWhereItBegan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.PublishAll("a", 1, 9)
		for _, from := range []hub.Since{all, latest, {Newest: 4}} {
			first := h.Enter(since(hubtest.With("a"), from))
			first.Leave()
			whole := h.Join(since(hubtest.With("a"), from)).Texts()
			h.Join(hubtest.Returning(hubtest.With("a"), first.Welcome.ID)).
				WantResume(hub.ResumeComplete, first.Welcome.ID, whole...)
		}
	})
}

func TestNoGapIsToldOrCountedOfWhatWasTrimmedBeforeSince(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 3}})
		h.PublishAll("a", 1, 9)
		h.PublishAll("b", 10, 19)
		for _, from := range []hub.Since{all, latest, {Newest: 50}, {Time: time.Now().Add(-time.Hour)}} {
			c := h.Join(since(hubtest.With("a", "*"), from))
			if got := c.Texts(); c.Resume != hub.ResumeNone || got[len(got)-1] != "19" || slices.Contains(got, hubtest.Gap("history_trimmed")) {
				t.Errorf("with %+v the client is told %q, and gets %q", from, c.Resume, got)
			}
		}
		for reason, n := range h.Stats().Gaps {
			if n != 0 {
				t.Errorf("%d gaps are counted as %s", n, reason)
			}
		}
	})
}

func TestTheLatestOfAMessageToSeveralTopicsIsForThoseWhoseNewestItIs(t *testing.T) {
	for name, logs := range map[string]int{"in one log": 32, "among many": 0} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := hubtest.New(t, hubtest.Plenty)
				hub.Shrink(h.Hub, 1, logs, 3)
				h.Publish(hub.Topics("x/a", "x/b"), "both")
				h.Publish(hub.Topics("x/a"), "a alone")
				for i := range 5 {
					h.Publish(hub.Topics("x/c", "x/d"), "c and d "+strconv.Itoa(i))
				}
				h.Publish([]hub.Address{{Kind: hub.ToBroadcast}}, "all 1")
				h.Publish([]hub.Address{{Kind: hub.ToBroadcast}}, "all 2")
				h.Join(since(hubtest.With("x/*"), latest)).Want("both", "a alone", "c and d 4", "all 2")
				h.Join(since(hubtest.With("x/*"), latest)).Want("both", "a alone", "c and d 4", "all 2")
				h.Join(since(hubtest.With("x/a", "nothing/*"), latest)).Want("a alone", "all 2")
				h.Join(since(hubtest.With("x/d"), latest)).Want("c and d 4", "all 2")
			})
		})
	}
}

func TestTheLatestOfManyTopicsComesOnceAndInOrderWhateverIsPublishedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		hub.Shrink(h.Hub, 64, 8, 16)
		const topics = 1000
		newest := make(map[string]string)
		n := 0
		publish := func(topic int) {
			n++
			name := fmt.Sprint("price/", topic)
			newest[name] = name + "=" + strconv.Itoa(n)
			h.Publish(hub.Topics(name), newest[name])
		}
		for i := range 10 * topics {
			publish(i * i % topics)
		}
		for i := range topics {
			publish(i * 7 % topics)
		}
		c := h.Enter(since(hubtest.With("price/*"), latest))
		c.Let(300)
		for i := range topics / 2 {
			publish(i)
		}
		c.Open()
		events := c.Events()
		got, before := make(map[string]string), ""
		for i, e := range events {
			name, _, _ := strings.Cut(e.Text, "=")
			got[name] = e.Text
			if id := fmt.Sprintf("%40s", e.ID); id <= before {
				t.Fatalf("event %d has ID %s, behind %s", i, e.ID, before)
			} else {
				before = id
			}
		}
		for name, text := range newest {
			if got[name] != text {
				t.Fatalf("of %s the newest told is %q; want %q", name, got[name], text)
			}
		}
		if most := topics + topics/2; len(events) > most {
			t.Errorf("%d events came; no more than %d are the newest of anything", len(events), most)
		}
	})
}

func TestASlowClientThatBeginsWithTheLatestIsToldWhatItMissed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
		hub.Shrink(h.Hub, 4, 1, 3)
		for i := range 50 {
			h.Publish(hub.Topics(fmt.Sprint("t/", i%10)), strconv.Itoa(i))
		}
		c := h.Enter(since(hubtest.With("t/*"), latest))
		c.Let(3)
		c.Want("40", "41", "42")
		c.Block()
		hubtest.Pause(time.Second)
		for i := range 100 {
			h.Publish(hub.Topics(fmt.Sprint("t/", i%10)), strconv.Itoa(50+i))
		}
		c.Open()
		got := c.Texts()
		if !slices.Contains(got, hubtest.Gap("history_trimmed")) && !slices.Contains(got, hubtest.Gap("slow_client")) {
			t.Errorf("the client is told no gap: %q", got)
		}
		hubtest.Want(t, got[len(got)-10:], hubtest.Numbers(140, 149)...)
	})
}

func TestTheLatestIsThatOfEachKey(t *testing.T) {
	for name, logs := range map[string]int{"in one log": 32, "among many": 0} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 6}})
				hub.Shrink(h.Hub, 1, logs, 3)
				publish := func(topic, key, text string) {
					p := h.Position()
					p.Position.Major++
					h.Deliver(&hub.Message{To: hub.Topics(topic), Key: key, Data: []byte(text), Position: p.Position})
				}
				join := func() *hubtest.Client { return h.Join(since(hubtest.With("p/*", "p/1"), latest)) }
				publish("p/1", "", "1")
				publish("p/1", "", "2")
				join().Want("2")
				publish("p/1", "btc", "btc 1")
				publish("p/1", "eth", "eth 1")
				publish("p/2", "btc", "other btc")
				publish("p/1", "btc", "btc 2")
				join().Want("2", "eth 1", "other btc", "btc 2")
				publish("p/1", "", "3")
				for i := range 3 {
					publish("p/1", "btc", fmt.Sprint("btc ", 3+i)) // of eth nothing is left then
				}
				join().Want("eth 1", "other btc", "3", "btc 5")
				publish("p/1", "btc", "btc 6")
				join().Want("other btc", "3", "btc 6")
				for i := range 6 {
					publish("p/1", "", fmt.Sprint(4+i))
				}
				join().Want("other btc", "9")
			})
		})
	}
}
