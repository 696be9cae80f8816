package hub_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func in(form hub.Form, s hub.Subscription) hub.Subscription {
	s.Form = form
	return s
}

// sayEverything publishes a message of each kind to a client c, user u, that listens to a and x/*. It returns what each
// is as an object, without its ID.
func sayEverything(h *hubtest.Hub) (objects []string) {
	at := h.Position()
	say := func(m hub.Message, object string) {
		if !m.Ephemeral {
			at.Position.Major++
			m.Position = at.Position
		}
		m.Time = time.Date(2026, 11, 30, 8, 0, 0, 120_000_000, time.FixedZone("", 3600))
		h.Deliver(&m)
		objects = append(objects, object)
	}
	const when = `"time":"2026-11-30T07:00:00.120Z"`
	say(hub.Message{To: hub.Topics("a"), Data: []byte("plain")}, `{"topic":"a",`+when+`,"data":"plain"}`)
	say(hub.Message{To: hub.Topics("b", "x/1", "a"), Event: "update", Key: "k\"1", Data: []byte("<b>\"\\\u2028\n\x01")},
		`{"topic":"x/1","event":"update",`+when+`,"key":"k\"1","data":"<b>\"\\`+"\u2028"+`\n\u0001"}`)
	say(hub.Message{To: hub.Topics("a"), Data: []byte("1\r\n2\r3\n"), Ephemeral: true},
		`{"topic":"a",`+when+`,"data":"1\r\n2\r3\n"}`)
	say(hub.Message{To: []hub.Address{{Kind: hub.ToClient, Name: "c"}}}, `{"to":"client",`+when+`,"data":""}`)
	say(hub.Message{To: []hub.Address{{Kind: hub.ToUser, Name: "u"}}, Data: []byte(`{"a":1}`)},
		`{"to":"user",`+when+`,"data":"{\"a\":1}"}`)
	say(hub.Message{To: []hub.Address{{Kind: hub.ToBroadcast}}, Data: []byte("all"), Retry: 250, HasRetry: true},
		`{"to":"broadcast",`+when+`,"data":"all"}`)
	return objects
}

// everything is who gets all that sayEverything says.
func everything(form hub.Form) hub.Subscription {
	s := in(form, hubtest.With("x/*", "a"))
	s.ClientID, s.User = "c", "u"
	return s
}

func TestAnEnvelopeTellsWhatTheMessageIs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		plain, c := h.Join(everything(hub.Events)), h.Join(everything(hub.Envelopes))
		objects := sayEverything(h)
		blocks := c.Blocks()
		for i, block := range plain.Blocks() {
			got, want := eventstream.Parse([]byte(blocks[i])), eventstream.Parse([]byte(block))
			want.Data = []byte(objects[i])
			if string(got.Append(nil)) != string(want.Append(nil)) || string(got.Append(nil)) != blocks[i] {
				t.Errorf("got  %q\nwant %q", blocks[i], want.Append(nil))
			}
		}
	})
}

func TestALineTellsWhatTheMessageIs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		c := h.Join(everything(hub.Lines))
		objects := sayEverything(h)
		epoch := h.Position().Epoch
		ids := []string{"1", "2", "", "3", "4", "5"}
		for i, line := range c.Blocks() {
			want := objects[i]
			if ids[i] != "" {
				want = `{"id":"` + epoch + "-" + ids[i] + `",` + want[1:]
			}
			if i == 5 {
				want = strings.Replace(want, `"data"`, `"retry":250,"data"`, 1)
			}
			if line != want+"\n" {
				t.Errorf("got  %swant %s", line, want)
			}
		}
		h.Join(everything(hub.Lines)).Leave()
		late := h.Join(hubtest.Returning(everything(hub.Lines), epoch+"-2"))
		for i, line := range late.Blocks() {
			if want := []string{"3", "4", "5"}[i]; !strings.HasPrefix(line, `{"id":"`+epoch+"-"+want+`",`) || !json.Valid([]byte(line)) {
				t.Errorf("line %d of a replay is %s", i, line)
			}
		}
	})
}

func TestWhatTheHubSaysIsOfEachForm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{DrainSpread: 1})
		listen := func(form hub.Form, clientID string) *hubtest.Client {
			s := in(form, hubtest.As(clientID, ""))
			s.Topics, s.ClientOptions = []string{"a"}, &hub.ClientOptions{Heartbeat: time.Second, Retry: 2 * time.Second}
			return h.Join(s)
		}
		events, lines := listen(hub.Envelopes, "e"), listen(hub.Lines, "l")
		hubtest.Pause(1500 * time.Millisecond)
		hubtest.Want(t, events.Blocks(), ": heartbeat\n")
		hubtest.Want(t, lines.Blocks(), "\n")
		h.Switch(hub.Origin{Epoch: "other"}, "broker_changed")
		hubtest.Want(t, events.Blocks(), "id: other-0\nevent: gap\ndata: {\"reason\":\"broker_changed\"}\n\n")
		hubtest.Want(t, lines.Blocks(), `{"id":"other-0","event":"gap","data":"{\"reason\":\"broker_changed\"}"}`+"\n")
		h.Kick("l")
		hubtest.Want(t, lines.Blocks(), `{"event":"closed","data":"{\"status\":\"closed\"}"}`+"\n")
		lines = listen(hub.Lines, "m")
		h.Drain()
		hubtest.Want(t, events.Blocks(), "retry: 2000\n")
		hubtest.Want(t, lines.Blocks(), `{"event":"retry","retry":2000,"data":""}`+"\n")
	})
}
