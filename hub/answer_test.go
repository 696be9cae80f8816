package hub_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// ask polls, and returns the stream of the answer.
func ask(h *hubtest.Hub, s hub.Subscription, limit int, wait time.Duration) *hubtest.Client {
	s.Form, s.Limit, s.Wait = hub.Answer, limit, wait
	return h.Join(s)
}

// answered is what an answer says.
type answered struct {
	Resume   string
	Messages []struct{ ID, Topic, Data string }
	LastID   string `json:"last_id"`
	More     bool
}

// answerOf returns what a client was answered, after it was.
func answerOf(t *testing.T, c *hubtest.Client) (a answered, texts []string) {
	t.Helper()
	text := strings.Join(c.Blocks(), "")
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatalf("the answer is no JSON: %v: %q", err, text)
	}
	if err := c.End(); err == nil || !hub.EndsCleanly(err) {
		t.Errorf("the answer ends with %v", err)
	}
	for _, m := range a.Messages {
		texts = append(texts, m.Data)
	}
	return a, texts
}

// wantAnswer checks what a client was answered, and returns where the next call goes on.
func wantAnswer(t *testing.T, c *hubtest.Client, resume, last string, more bool, want ...string) {
	t.Helper()
	a, texts := answerOf(t, c)
	if a.Resume != resume || a.LastID != last || a.More != more {
		t.Errorf("the answer is %q up to %s, more %t; want %q up to %s, more %t", a.Resume, a.LastID, a.More, resume, last, more)
	}
	hubtest.Want(t, texts, want...)
}

func TestAnAnswerHasWhatThereIsByNow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		wantAnswer(t, ask(h, since(hubtest.With("a"), all), 9, 0), "none", h.Position().String(), false)
		h.PublishAll("a", 1, 3)
		h.PublishAll("b", 4, 9)
		c := ask(h, since(hubtest.With("a"), all), 9, 0)
		if got := strings.Join(c.Blocks(), ""); strings.Count(got, "\n") != 5 ||
			!strings.HasPrefix(got, `{"resume":"none","messages":[`+"\n"+`{"id":"`) ||
			!strings.HasSuffix(got, "\"}\n"+`],"last_id":"`+h.Position().String()+`","more":false}`+"\n") {
			t.Errorf("the answer is %s", got)
		}
		wantAnswer(t, ask(h, since(hubtest.With("a"), all), 9, 0), "none", h.Position().String(), false, "1", "2", "3")
		wantAnswer(t, ask(h, since(hubtest.With("a"), all), 3, 0), "none", h.Position().String(), false, "1", "2", "3")
		wantAnswer(t, ask(h, hubtest.With("a"), 9, 0), "none", h.Position().String(), false)
		wantAnswer(t, ask(h, since(hubtest.With("*"), hub.Since{Newest: 2}), 9, 0), "none", h.Position().String(), false, "8", "9")
	})
}

func TestAnAnswerHasNoMoreThanItMay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		hub.Shrink(h.Hub, 8, 2, 3)
		h.PublishAll("a", 1, 20)
		s, epoch := since(hubtest.With("a"), all), h.Position().Epoch
		wantAnswer(t, ask(h, s, 8, time.Minute), "none", epoch+"-8", true, hubtest.Numbers(1, 8)...)
		s = hubtest.Returning(s, epoch+"-8")
		wantAnswer(t, ask(h, s, 8, time.Minute), "complete", epoch+"-16", true, hubtest.Numbers(9, 16)...)
		s.LastEventID = epoch + "-16"
		wantAnswer(t, ask(h, s, 8, time.Minute), "complete", epoch+"-20", false, hubtest.Numbers(17, 20)...)
		s.LastEventID = epoch + "-20"
		wantAnswer(t, ask(h, s, 8, 0), "complete", epoch+"-20", false)
	})
}

func TestAnAnswerWaitsUntilThereIsAMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		began := time.Now()
		c := ask(h, hubtest.With("a"), 9, time.Minute)
		hubtest.Pause(20 * time.Second)
		h.Publish(hub.Topics("b"), "not for it")
		if c.End() != nil || c.Sends() > 0 {
			t.Error("an answer that waits has ended, or begun")
		}
		h.Publish(hub.Topics("a"), "1")
		wantAnswer(t, c, "none", h.Position().String(), false, "1")
		if waited := time.Since(began); waited != 20*time.Second {
			t.Errorf("it took %v", waited)
		}

		c = ask(h, hubtest.Returning(hubtest.With("a"), h.Position().String()), 9, time.Minute)
		h.PublishEphemeral(hub.Topics("a"), "tick")
		wantAnswer(t, c, "complete", h.Position().String(), false, "tick")

		c = ask(h, hubtest.With("a"), 9, time.Minute)
		h.Publish(hub.Topics("b"), "meanwhile")
		time.Sleep(59 * time.Second)
		if c.End() != nil {
			t.Error("an answer has ended before its time")
		}
		hubtest.Pause(2 * time.Second)
		wantAnswer(t, c, "none", h.Position().String(), false)
		h.PublishAll("a", 2, 3)
		wantAnswer(t, ask(h, hubtest.Returning(hubtest.With("a"), h.Position().String()), 9, 0), "complete",
			h.Position().String(), false)
	})
}

func TestAnAnswerSaysGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 3}})
		h.PublishAll("a", 1, 9)
		epoch := h.Position().Epoch
		wantAnswer(t, ask(h, hubtest.Returning(hubtest.With("a"), "rubbish"), 9, time.Minute), "gap", epoch+"-9", false, "7", "8", "9")
		wantAnswer(t, ask(h, hubtest.Returning(hubtest.With("a"), epoch+"-2"), 9, time.Minute), "gap", epoch+"-9", false, "7", "8", "9")
		wantAnswer(t, ask(h, hubtest.Returning(hubtest.With("b"), "rubbish"), 9, time.Minute), "gap", epoch+"-9", false)

		waits := ask(h, hubtest.With("a"), 9, time.Minute)
		h.Switch(hub.Origin{Epoch: "other"}, "broker_changed")
		wantAnswer(t, waits, "gap", "other-0", false)
	})
}

func TestAGapBehindMessagesIsForTheNextAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 3}})
		hub.Shrink(h.Hub, 1, 2, 3)
		h.PublishAll("a", 1, 3)
		epoch := h.Position().Epoch
		s := since(hubtest.With("a"), all)
		s.Form, s.Limit = hub.Answer, 100
		c := h.Enter(s)
		c.Let(2) // the beginning, and a message
		hubtest.Pause(time.Second)
		c.Block()
		h.PublishAll("a", 4, 20)
		h.Publish(hub.Topics("b"), "it moves the ring")
		c.Open()
		wantAnswer(t, c, "none", epoch+"-1", true, "1")
		wantAnswer(t, ask(h, hubtest.Returning(s, epoch+"-1"), 9, 0), "gap", h.Position().String(), false, "18", "19", "20")
	})
}

// Else the next call would go on in the middle of what the other log had from before, and never be told.
func TestAnAnswerGivenWhileAnotherLogIsReadGoesOnInTheOneBefore(t *testing.T) {
	for name, say := range map[string]func(*hubtest.Hub){
		"with a message":    func(h *hubtest.Hub) { h.Publish(hub.Topics("a"), "old") },
		"without a message": func(*hubtest.Hub) {},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := hubtest.New(t, hubtest.Plenty)
				h.PublishAll("a", 1, 3)
				c := ask(h, hubtest.Returning(hubtest.With("a"), h.Position().String()), 9, time.Second)
				c.Block()
				say(h)
				last := h.Position().String()
				h.Follow(hub.Origin{Epoch: "new"})
				for i := range uint64(3) {
					h.Restore(&hub.Message{To: hub.Topics("a"), Data: []byte("restored"), Position: hub.Position{Major: i + 1}})
				}
				c.Open()
				time.Sleep(2 * time.Second)
				a, texts := answerOf(t, c)
				if a.LastID != last || a.Resume != "complete" || slices.Contains(texts, "restored") {
					t.Errorf("the answer is %q up to %s with %q; want complete up to %s", a.Resume, a.LastID, texts, last)
				}
				h.Announce("log_changed")
				next := ask(h, hubtest.Returning(hubtest.With("a"), a.LastID), 9, 0)
				if a, _ := answerOf(t, next); a.Resume != "gap" {
					t.Errorf("the next answer is %q", a.Resume)
				}
			})
		})
	}
}

func TestAnAnswerEndsInGoodOrderWhateverEndsIt(t *testing.T) {
	for name, end := range map[string]func(h *hubtest.Hub){
		"the exit":        func(h *hubtest.Hub) { h.Drain() },
		"no route":        func(h *hubtest.Hub) { h.Close() },
		"an operator":     func(h *hubtest.Hub) { h.Kick("c") },
		"another's claim": func(h *hubtest.Hub) { h.Join(hubtest.As("c", "alice")) },
		"its token":       func(*hubtest.Hub) { hubtest.Pause(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := hubtest.New(t, hubtest.Plenty)
				h.PublishAll("a", 1, 2)
				s := hubtest.With("a")
				s.ClientID, s.Expires = "c", time.Now().Add(30*time.Second)
				at := h.Position().String()
				c := ask(h, s, 9, time.Minute)
				end(h)
				wantAnswer(t, c, "none", at, false)
			})
		})
	}
}

func TestWhoPollsInALoopGetsEachMessageOnceWhateverItsStreamTakes(t *testing.T) {
	for _, most := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := hubtest.New(t, hubtest.Plenty)
				hub.Shrink(h.Hub, 16, 2, 4)
				published := 0
				publish := func(n int) {
					for range n {
						published++
						h.Publish(hub.Topics("a", "b"), strconv.Itoa(published))
						h.Publish(hub.Topics("c"), "not for it")
					}
				}
				publish(10)
				var got []string
				s := since(hubtest.With("a", "b"), all)
				for round := 0; len(got) < 300; round++ {
					s.Form, s.Limit, s.Wait = hub.Answer, 1+round%9, time.Second*time.Duration(round%2)
					c := h.Enter(s)
					for taken := 0; c.End() == nil; taken++ {
						if published < 300 {
							publish(round % 4)
						}
						c.Let(most)
						hubtest.Pause(time.Second)
						if taken > 100 {
							t.Fatal("the answer does not end")
						}
					}
					a, texts := answerOf(t, c)
					if want := "complete"; round > 0 && a.Resume != want {
						t.Fatalf("answer %d says %q", round, a.Resume)
					}
					if len(texts) > s.Limit {
						t.Fatalf("%d messages came; the limit is %d", len(texts), s.Limit)
					}
					got = append(got, texts...)
					s.LastEventID = a.LastID
					if round > 2000 {
						t.Fatalf("after %d answers %d messages came", round, len(got))
					}
				}
				if !slices.Equal(got, hubtest.Numbers(1, len(got))) || len(got) < 300 {
					t.Errorf("got %v", hubtest.Brief(got))
				}
			})
		})
	}
}
