package hubtest

import (
	"sync/atomic"

	"github.com/caddy-sse/caddy-sse/hub"
)

// As returns the subscription of a user, or of nobody, under a client_id.
func As(clientID, user string) hub.Subscription {
	s := With("a")
	s.ClientID, s.User = clientID, user
	return s
}

// WantResume checks what a client that joined is told and what it gets then.
func (l *Client) WantResume(resume hub.Resume, id string, texts ...string) {
	l.On.TB.Helper()
	if l.Resume != resume || l.Welcome.ID != id {
		l.On.TB.Errorf("with Last-Event-ID %q the client is told %q at %s; want %q at %s",
			l.LastEventID, l.Resume, l.Welcome.ID, resume, id)
	}
	Want(l.On.TB, l.Texts(), texts...)
}

// Client is a client whose stream the test plays by hand: it takes what waits when the test says so.
type Client struct {
	*hub.Client
	hub.Welcome
	LastEventID string // it joined with
	On          *Hub
	Left        bool
	Woken       atomic.Int64
	Aborted     atomic.Int64
	Stalled     atomic.Bool // what the stream says of its socket
	End         error       // as Take returned it
}

func (l *Client) Wake() { l.Woken.Add(1) }

func (l *Client) Abort() { l.Aborted.Add(1) }

func (l *Client) Blocked() bool { return l.Stalled.Load() }

// Leave ends the client's stream, once.
func (l *Client) Leave() (cause error) {
	if !l.Left {
		l.Left = true
		cause = l.On.Leave(l.Client, hub.ErrGone)
	}
	return cause
}

// Turn is one turn of the stream: one batch, written at once.
func (l *Client) Turn() []*hub.Message {
	l.On.TB.Helper()
	batch, err := l.Take(nil)
	if err != nil {
		if len(batch) > 0 {
			l.On.TB.Errorf("the stream ends for %q with %d messages at hand", err, len(batch))
		}
		l.End = err
	}
	return batch
}

// TakeAll takes until the stream sleeps or ends.
func (l *Client) TakeAll() (all []*hub.Message) {
	l.On.TB.Helper()
	for {
		batch := l.Turn()
		if len(batch) == 0 {
			return all
		}
		all = append(all, batch...)
	}
}

// Texts takes until the stream sleeps or ends, and tells in short what came: the data of messages,
// "<event> <data>" of others, ":<comment>".
func (l *Client) Texts() []string {
	l.On.TB.Helper()
	return TextsOf(l.On.TB, l.TakeAll())
}
