package hub_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// multitude is how many clients a hub is to be looked at with while it works.
const multitude = 50_000

// newMultitude returns a hub with so many clients, each at a topic of its own and at one of all.
func newMultitude(t testing.TB) *hub.Hub {
	t.Helper()
	h := hub.NewHub(hubtest.Plenty)
	var clients []*hub.Client
	t.Cleanup(func() {
		for _, c := range clients {
			h.Leave(c, nil)
		}
		h.Close()
		h.WaitEmpty(time.Minute)
	})
	for i := range multitude {
		s := hubtest.With("all", fmt.Sprintf("topic/%05d", i))
		s.ClientID, s.User = fmt.Sprintf("client-%d", i), fmt.Sprintf("user-%d", i%10)
		c, _, err := h.Join(s, new(streamOfOne))
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	return h
}

func TestPagesShowEveryClientAndTopicOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
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
	one, next := h.ListClients(hub.ClientQuery{Topic: "topic/00007", User: "user-7", Limit: 1})
	if len(one) != 1 || next != 0 || one[0].ClientID != "client-7" {
		t.Errorf("one client's topic has the clients %+v and %d", one, next)
	}
	if none, _ := h.ListClients(hub.ClientQuery{Topic: "topic/00007", User: "user-8", Limit: 1}); len(none) != 0 {
		t.Errorf("another user has the clients %+v", none)
	}

	// By it the dashboard tells connections of one client_id apart.
	query := hub.ClientQuery{Limit: multitude}
	once, _ := h.ListClients(query)
	again, _ := h.ListClients(query)
	if !slices.EqualFunc(once, again, func(a, b hub.ClientInfo) bool { return a.Since.Equal(b.Since) }) {
		t.Error("clients are said to be there since one time, and then since another")
	}

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

func TestAnOperatorSeesHowFarAClientIsBehind(t *testing.T) {
	onShards(t, 2, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a", "b/*")
		s.User = "alice"
		c, other := h.Join(s), h.Join(hubtest.With())
		c.Block()
		h.PublishAll("a", 1, 7)
		settle()
		want := []hub.ClientInfo{
			{ClientID: c.ClientID, User: "alice", Topics: []string{"a", "b/*"}, Since: time.Now(), Queued: 7},
			{ClientID: other.ClientID, Topics: []string{}, Since: time.Now()},
		}
		page, _ := h.ListClients(hub.ClientQuery{Limit: 10})
		for i, got := range page {
			if got, want := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want[i]); !strings.HasPrefix(got, want[:40]) ||
				!strings.HasSuffix(got, want[len(want)-10:]) {
				t.Errorf("got %s\nwant %s", got, want)
			}
		}
		c.Open()
		c.Texts()
		if page, _ := h.ListClients(hub.ClientQuery{Limit: 1}); page[0].Queued != 0 {
			t.Errorf("with nothing left %d messages wait", page[0].Queued)
		}
	})
}

func TestListsLeaveOutWhatIsTooOld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10, Age: time.Second}})
		h.Publish(hub.Topics("news"), "old")
		h.Publish(hub.Topics("silent"), "old")
		h.Join(hubtest.With("news"))
		time.Sleep(2 * time.Second)
		h.Publish(hub.Topics("fresh"), "new")
		page, next := h.ListTopics("", 10)
		hubtest.Want(t, page, hub.TopicInfo{Topic: "fresh", Kept: 1}, hub.TopicInfo{Topic: "news", Clients: 1})
		if next != "" {
			t.Errorf("the next page goes on after %q", next)
		}
		if kept := h.ListMessages("news", 10); len(kept) != 0 {
			t.Errorf("too old, and shown: %+v", kept)
		}
	})
}

func TestAMessageIsShownUpToAWholeCharacter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		long, wide := strings.Repeat("x", hub.MaxShown), "x"+strings.Repeat("é", hub.MaxShown)
		for _, data := range []string{"", "short", long, wide, "a\nb\n"} {
			id, _ := h.Publish(hub.Topics("news"), data)
			shown := h.ListMessages("news", 1)[0]
			if len(data) <= hub.MaxShown && shown.Data != data || !strings.HasPrefix(data, shown.Data) ||
				shown.Bytes != len(data) || shown.ID != id || !shown.Time.Equal(time.Now()) ||
				len(shown.Data) < min(len(data), hub.MaxShown-3) || strings.ContainsRune(shown.Data, '\uFFFD') {
				t.Errorf("of %d bytes %d are shown, and %d are said", len(data), len(shown.Data), shown.Bytes)
			}
		}
		if all := h.ListMessages("news", 3); len(all) != 3 || all[2].Data != "a\nb\n" {
			t.Errorf("the newest three are %d", len(all))
		}
	})
}
