package hub_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// multitude is how many clients a hub is to be looked at with while it works.
const multitude = 50_000

// newMultitude returns a hub with so many clients, each at a topic of its own and at one of all. The clients
// end with the test process: nothing of them runs.
func newMultitude(t testing.TB) *hub.Hub {
	t.Helper()
	h := hub.NewHub(hubtest.Plenty)
	t.Cleanup(h.Close)
	for i := range multitude {
		s := hubtest.With("all", fmt.Sprintf("topic/%05d", i))
		s.ClientID, s.User = fmt.Sprintf("client-%d", i), fmt.Sprintf("user-%d", i%10)
		if _, _, err := h.Join(s, &hubtest.Client{}); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestPagesShowEveryClientAndTopicOnce(t *testing.T) {
	h := newMultitude(t)
	clients, after := 0, uint64(0)
	for {
		page, next := h.ListClients(hub.ClientQuery{Limit: 1000, After: after})
		for _, c := range page {
			if want := fmt.Sprintf("client-%d", clients); c.ClientID != want {
				t.Fatalf("client %d is %s", clients, c.ClientID)
			}
			clients++
		}
		if next == 0 {
			break
		}
		after = next
	}
	topics, name := 0, ""
	for {
		page, next := h.ListTopics(name, 1000)
		topics += len(page)
		if next == "" {
			break
		}
		name = next
	}
	if clients != multitude || topics != multitude+1 {
		t.Errorf("the pages showed %d clients and %d topics", clients, topics)
	}
	if page, next := h.ListClients(hub.ClientQuery{Topic: "topic/00007", User: "user-7", Limit: 1}); len(page) != 1 || next != 0 || page[0].ClientID != "client-7" {
		t.Errorf("one client's topic has the clients %+v and %d", page, next)
	}
	if page, _ := h.ListClients(hub.ClientQuery{Topic: "topic/00007", User: "user-8", Limit: 1}); len(page) != 0 {
		t.Errorf("another user has the clients %+v", page)
	}
}

// By it the dashboard tells connections of one client_id apart.
func TestSinceIsTheSameEachTime(t *testing.T) {
	h := newMultitude(t)
	query := hub.ClientQuery{Limit: multitude}
	once, _ := h.ListClients(query)
	again, _ := h.ListClients(query)
	for i := range once {
		if once[i].Since != again[i].Since {
			t.Fatalf("client %d is there since %v, then since %v", i, once[i].Since, again[i].Since)
		}
	}
}

func TestAPageOfManyClientsCostsLittle(t *testing.T) {
	h := newMultitude(t)
	for name, page := range map[string]func() int{
		"clients":            func() int { page, _ := h.ListClients(hub.ClientQuery{Limit: 100}); return len(page) },
		"clients of a user":  func() int { page, _ := h.ListClients(hub.ClientQuery{User: "user-1", Limit: 100}); return len(page) },
		"clients of a topic": func() int { page, _ := h.ListClients(hub.ClientQuery{Topic: "all", Limit: 100}); return len(page) },
		"topics":             func() int { page, _ := h.ListTopics("", 100); return len(page) },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		if n := page(); n != 100 {
			t.Errorf("%s: %d on the page", name, n)
		}
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		// Both are many times what it takes, for a busy machine and the race detector.
		if bytes := after.TotalAlloc - before.TotalAlloc; took > 3*time.Second || bytes > 16<<20 {
			t.Errorf("a page of %s took %v and %d bytes", name, took, bytes)
		}
	}
}

func TestListsLeaveOutWhatIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10, Age: time.Second}})
		h.Publish(hub.Topics("news"), "old")
		h.Publish(hub.Topics("silent"), "old")
		h.Listen(hubtest.With("news"))
		time.Sleep(2 * time.Second)
		h.Publish(hub.Topics("fresh"), "new")
		page, next := h.ListTopics("", 10)
		hubtest.Want(t, page, hub.TopicInfo{Topic: "fresh", Clients: 0, Kept: 1}, hub.TopicInfo{Topic: "news", Clients: 1, Kept: 0})
		if next != "" {
			t.Errorf("the next page goes on after %q", next)
		}
		if kept := h.ListMessages("news", 10); len(kept) != 0 {
			t.Errorf("too old, and shown: %+v", kept)
		}
	})
}

func TestAMessageIsShownUpToAWholeCharacter(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	for _, data := range []string{"", "short", strings.Repeat("x", hub.MaxShown), "x" + strings.Repeat("é", hub.MaxShown), "a\nb\n"} {
		h.Publish(hub.Topics("news"), data)
		shown := h.ListMessages("news", 1)[0]
		if len(data) <= hub.MaxShown && shown.Data != data || !strings.HasPrefix(data, shown.Data) || shown.Bytes != len(data) ||
			len(shown.Data) < min(len(data), hub.MaxShown-3) || strings.ContainsRune(shown.Data, '\uFFFD') {
			t.Errorf("of %d bytes %d are shown, and %d are said", len(data), len(shown.Data), shown.Bytes)
		}
	}
	if all := h.ListMessages("news", 3); len(all) != 3 || all[2].Data != "a\nb\n" {
		t.Errorf("the newest three are %d", len(all))
	}
}

func TestKickedClientIDMayComeBackAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("news")
		first, second := h.Listen(s), h.Listen(s)
		if n := h.Connections(s.ClientID); n != 2 {
			t.Errorf("it has %d connections", n)
		}
		if n := h.Kick(s.ClientID); n != 2 {
			t.Errorf("%d connections were closed", n)
		}
		for _, l := range []*hubtest.Client{first, second} {
			hubtest.Want(t, l.Texts(), `closed {"status":"closed"}`)
			if l.Texts(); l.End != hub.ErrKicked {
				t.Errorf("the stream ended with %v", l.End)
			}
			l.Leave()
		}
		time.Sleep(hub.BarTime - time.Second)
		if _, err := h.TryEnter(s); err != hub.ErrClientIDBarred {
			t.Errorf("coming back early: %v", err)
		}
		time.Sleep(time.Second)
		h.Listen(s)
		if h.Connections(s.ClientID) != 1 {
			t.Error("it did not come back")
		}
	})
}
