package hub_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// wantOnlyTheOtherLeft checks that publishers and others go on after a stream has panicked, and its client has left.
func wantOnlyTheOtherLeft(h *hubtest.Hub, bad, good *hubtest.Client) {
	h.T.Helper()
	for i := range 2000 {
		if took := held(h.T.(*testing.T), h, hub.Topics("a"), strconv.Itoa(i)); took > 0 {
			h.T.Fatalf("a publisher waited for %v", took)
		}
	}
	good.Want(hubtest.Numbers(0, 1999)...)
	if n, _ := h.Size(); n != 1 {
		h.T.Errorf("%d clients are there; want 1", n)
	}
	hubtest.Want(h.T, []error{bad.Leave()}, hub.ErrAborted)
}

func TestAStreamThatPanicsEndsItsClientOnly(t *testing.T) {
	for name, touch := range map[string]func(h *hubtest.Hub, bad *hubtest.Client){
		"given messages":      func(h *hubtest.Hub, _ *hubtest.Client) { h.Publish(hub.Topics("bad"), "hi") },
		"told news":           func(_ *hubtest.Hub, bad *hubtest.Client) { bad.Post(1) },
		"sent a heartbeat":    func(*hubtest.Hub, *hubtest.Client) { hubtest.Pause(time.Minute) },
		"told farewell":       func(h *hubtest.Hub, bad *hubtest.Client) { h.Kick(bad.ClientID) },
		"claimed by somebody": func(h *hubtest.Hub, bad *hubtest.Client) { h.Enter(hubtest.As(bad.ClientID, "alice")).Leave() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := hubtest.New(t, hubtest.Plenty)
				s := hubtest.With("a", "bad")
				s.Heartbeat = time.Minute
				bad, good := h.Join(s), h.Join(hubtest.With("a"))
				bad.Panic()
				touch(h, bad)
				settle()
				if cause := bad.Leave(); cause == nil || cause == hub.ErrGone {
					t.Fatalf("the client left for %v", cause)
				}
				for i := range 2000 {
					if took := held(t, h, hub.Topics("a"), strconv.Itoa(i)); took > 0 {
						t.Fatalf("a publisher waited for %v", took)
					}
				}
				good.Want(hubtest.Numbers(0, 1999)...)
				if n, _ := h.Size(); n != 1 {
					t.Errorf("%d clients are there; want 1", n)
				}
			})
		})
	}
}

func TestAStreamThatPanicsWhileItsClientIsLateEndsItOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		bad, good := h.Join(hubtest.With("bad")), h.Join(hubtest.With("a"))
		bad.Block()
		h.PublishAll("bad", 1, 10)
		settle()
		bad.Panic()
		bad.Open()
		settle()
		wantOnlyTheOtherLeft(h, bad, good)
	})
}

func TestAStreamThatPanicsWhenItIsReplayedToEndsItsClientOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		begin := h.Position().String()
		h.PublishAll("bad", 1, 1000)
		bad, good := h.Enter(hubtest.Returning(hubtest.With("bad"), begin)), h.Join(hubtest.With("a"))
		bad.Panic()
		bad.Open()
		settle()
		wantOnlyTheOtherLeft(h, bad, good)
	})
}

// explosive panics whatever is asked of it.
type explosive struct{}

func (explosive) Send([]*hub.Frame, error) (int, bool) { panic("Send") }
func (explosive) Notice(hub.News) bool                 { return true }
func (explosive) Abort()                               { panic("Abort") }
func (explosive) Blocked() bool                        { panic("Blocked") }

func TestAStreamThatPanicsWhenItIsCutEndsItsClientOnly(t *testing.T) {
	for name, touch := range map[string]func(h *hubtest.Hub){
		"sent something": func(h *hubtest.Hub) { h.Publish(hub.Topics("bad"), "hi") },
		"aborted":        func(h *hubtest.Hub) { h.Abort() },
		"asked":          func(h *hubtest.Hub) { h.AbortBlocked() },
		"judged":         func(h *hubtest.Hub) { h.PublishAll("bad", 1, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := hubtest.New(t, hubtest.Plenty)
				s := hubtest.With("bad")
				s.Queue, s.SlowClient = 1, hub.Disconnect
				c, _, err := h.Hub.Join(s, explosive{})
				if err != nil {
					t.Fatal(err)
				}
				if name != "asked" && name != "judged" { // then it is not ready
					c.Post(1)
				}
				settle()
				touch(h)
				settle()
				if n, _ := h.Size(); n != 0 {
					t.Errorf("%d clients are there", n)
				}
				good := h.Join(hubtest.With("a"))
				h.PublishAll("a", 1, 1000)
				good.Want(hubtest.Numbers(1, 1000)...)
			})
		})
	}
}
