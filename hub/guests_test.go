package hub_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
)

// host notes what it is told of guests.
type host struct {
	listed    map[string]bool
	left      []string
	forgotten int
}

func (h *host) Listed(guests map[string]bool) { maps.Copy(h.listed, guests) }
func (h *host) Elsewhere(map[string]bool)     {}
func (h *host) Left(guests []string)          { h.left = append(h.left, guests...) }
func (h *host) Forgotten()                    { h.forgotten++ }

// A log of one instance is told nothing: guests are listed at once.
func TestGuestsOfOneInstance(t *testing.T) {
	h := hub.NewHub(hub.Limits{})
	defer h.Close()
	h.KeepGuests(&host{listed: map[string]bool{}})
	if !h.GuestCame("a") || h.FreshGuests(t.Context()) != nil || !h.GuestWent("a") {
		t.Error("a guest waits for a log that has no other instances")
	}
}

func TestGuestsAreListedOnceTheLogHasThem(t *testing.T) {
	h := hub.NewHub(hub.Limits{})
	defer h.Close()
	told := &host{listed: map[string]bool{}}
	h.KeepGuests(told)
	woken := 0
	h.ShareGuests(func() { woken++ })
	if h.GuestCame("a") || h.GuestCame("b") || woken != 2 {
		t.Errorf("guests are listed before the log is told, which was woken %d times", woken)
	}
	if !h.GuestWent("b") {
		t.Error("who was never told is still listed")
	}
	news, settled := h.GuestNews(false)
	if !maps.Equal(news, map[string]bool{"a": true}) || len(told.listed) > 0 {
		t.Errorf("the log is told %v, and the host %v", news, told.listed)
	}
	if h.GuestWent("a") { // the log has it by now, or not
		t.Error("who may have been told is listed no more")
	}
	h.GuestsTold(news, settled)
	if len(told.listed) > 0 {
		t.Errorf("told %v of who has gone meanwhile", told.listed)
	}
	h.GuestsTold(h.GuestNews(false))
	if !maps.Equal(told.listed, map[string]bool{"a": false}) || !slices.Equal(h.UnsettledGuests(), []string{"a"}) {
		t.Errorf("told %v", told.listed)
	}
}

func TestGuestsThatAreSettled(t *testing.T) {
	h := hub.NewHub(hub.Limits{})
	defer h.Close()
	told := &host{listed: map[string]bool{}}
	h.KeepGuests(told)
	h.ShareGuests(func() {})
	h.GuestsLeft(h.GuestsID(), []string{"dead"})
	h.GuestsLeft(h.GuestsID()+1, []string{"of another host"})
	h.SettleGuests("dead", "unknown")
	_, settled := h.GuestNews(false)
	if !slices.Equal(told.left, []string{"dead"}) || !slices.Equal(settled, told.left) || len(h.UnsettledGuests()) > 0 {
		t.Errorf("given %v, settled %v", told.left, settled)
	}
	h.GuestCame("a")
	h.GuestsForgotten()
	if news, _ := h.GuestNews(true); told.forgotten != 1 || len(news) > 0 {
		t.Errorf("after %d times of being forgotten there are %v", told.forgotten, news)
	}
}
