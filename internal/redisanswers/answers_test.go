package redisanswers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/redislog"
)

// soon is how long these tests wait for something that should happen at once.
const soon = 30 * time.Second

var bounds = answers.Bounds{
	MaxBytes: 8 << 20, MaxTime: time.Minute, MaxTotal: 64 << 20, MaxLive: 100, Abandon: time.Minute, TTL: time.Minute,
}

// instance is one of those that share their answers.
type instance struct {
	*answers.Store
	t       *testing.T
	shared  *Shared
	options redislog.Options
	close   func()
}

func newInstance(t *testing.T, server *e2etest.Redis, change ...func(*redislog.Options)) *instance {
	t.Helper()
	o := redislog.Options{Addrs: []string{server.Addr()}, Prefix: "sse", Timeout: 2 * time.Second, Logger: zap.NewNop()}
	for _, f := range change {
		f(&o)
	}
	i := &instance{Store: answers.NewStore(), t: t, shared: Open("default", o), options: o}
	i.Share(i.shared)
	i.close = sync.OnceFunc(func() {
		i.Close(answers.ErrExit)
		i.Wait(soon)
	})
	t.Cleanup(i.close)
	return i
}

func asUser(name, password string) func(*redislog.Options) {
	return func(o *redislog.Options) { o.Username, o.Password = name, password }
}

// request is a request with a key, if it is not empty.
func request(key string) *answers.Request {
	return &answers.Request{
		Owner: "alice", URL: "/chat", Host: "example.com", Key: key, Body: sha256.Sum256([]byte("a question")),
		Name: "run", Bounds: bounds,
	}
}

// ask asks as the first.
func (i *instance) ask(r *answers.Request, stopped func(error)) *answers.Answer {
	i.t.Helper()
	a, mine, err := i.Open(context.Background(), r, stopped)
	if !mine || err != nil {
		i.t.Fatalf("asking: %v, %v", mine, err)
	}
	i.t.Cleanup(a.Leave)
	return a
}

func ignore(error) {}

func begin(t *testing.T, a *answers.Answer) {
	t.Helper()
	if !a.Begin(answers.Head{Kind: answers.Events, Header: map[string][]string{"X-Model": {"fake"}}}) {
		t.Fatal("the answer is not kept")
	}
}

func say(t *testing.T, a *answers.Answer, text string) {
	t.Helper()
	if _, err := a.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// answer asks as the first, for what is known by its ID alone, and says its first event.
func (i *instance) answer() *answers.Answer {
	i.t.Helper()
	r := request("")
	r.Name = ""
	a := i.ask(r, ignore)
	begin(i.t, a)
	say(i.t, a, "data: 1\n\n")
	return a
}

// find returns another instance's answer, once it is decided.
func (i *instance) find(id string) *answers.Answer {
	i.t.Helper()
	a, err := i.Find(context.Background(), request(""), id)
	if a == nil || err != nil {
		i.t.Fatalf("the answer is not found: %v", err)
	}
	i.t.Cleanup(a.Leave)
	select {
	case <-a.Decided():
	case <-time.After(soon):
		i.t.Fatal("the answer is not decided")
	}
	return a
}

// read reads from behind a number until a text has come or the answer ends.
func read(t *testing.T, a *answers.Answer, after uint64, until string) (string, answers.End) {
	t.Helper()
	r, err := a.Resume(t.Context(), after)
	if err != nil {
		return err.Error(), answers.Open
	}
	defer r.Close()
	return readOn(t, r, a, until)
}

func readOn(t *testing.T, r *answers.Reader, a *answers.Answer, until string) (string, answers.End) {
	t.Helper()
	var all strings.Builder
	buf := make([]byte, 0, 4096)
	deadline := time.After(soon)
	for {
		out, end := r.Next(buf)
		all.Write(out)
		text := strings.ReplaceAll(all.String(), a.ID, "ID")
		if end != answers.Open || (until != "" && strings.Contains(text, until)) {
			return text, end
		}
		if len(out) > 0 {
			continue
		}
		select {
		case <-r.Wake():
		case <-deadline:
			t.Fatalf("waiting for %q: there is %q", until, text)
		}
	}
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func event(n int) string { return fmt.Sprintf("id: ID.%d\ndata: %d\n\n", n, n) }

func eventsUpTo(first, last int) string {
	var all strings.Builder
	for n := first; n <= last; n++ {
		all.WriteString(event(n))
	}
	return all.String()
}

func TestAnAnswerIsReadOnAnyInstance(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	owner, other := newInstance(t, server), newInstance(t, server)
	a := owner.ask(request("k"), ignore)
	begin(t, a)
	for n := 1; n <= 500; n++ {
		say(t, a, fmt.Sprintf("data: %d\n\n", n))
	}
	mirror := other.find(a.ID)
	want(t, mirror.Head().Header["X-Model"][0], "fake")
	want(t, mirror.URL, "/chat")
	got, _ := read(t, mirror, 490, event(500)) // which is ahead of what the mirror has
	want(t, got, eventsUpTo(491, 500))
	say(t, a, "data: 501\n\n: a comment\n\ndata: half")
	got, _ = read(t, mirror, 500, "comment\n\n")
	want(t, got, event(501)+": a comment\n\n")
	a.End(true)
	got, end := read(t, mirror, 499, "")
	want(t, got, eventsUpTo(500, 501)+": a comment\n\nid: ID.502\ndata: half\n\n")
	if end != answers.InGoodOrder {
		t.Errorf("it ends with %d", end)
	}
	got, _ = read(t, mirror, 502, "")
	want(t, got, answers.ErrOver.Error())
	if a, err := other.Find(context.Background(), &answers.Request{Owner: "bob"}, a.ID); a != nil && a != mirror || err != nil {
		t.Errorf("another one's answer: %v", err)
	}
}

// What belongs to no event comes to readers elsewhere, too, once and whenever they come.
func TestCommentsAreReadOnAnyInstance(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	owner, early, late := newInstance(t, server), newInstance(t, server), newInstance(t, server)
	a := owner.ask(request("k"), ignore)
	begin(t, a)
	say(t, a, ": hello\n\n")
	mirror := early.find(a.ID)
	r, err := mirror.Read(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	said := ": hello\n\n"
	for _, text := range []string{"data: 1\n\n", ": between\n\n", ":\n\ndata: 2\n\n: bye\n\n", ": end"} {
		say(t, a, text)
		said += text
		time.Sleep(120 * time.Millisecond) // so that each comes in a batch of its own
	}
	a.End(true)
	withIDs := strings.NewReplacer("data: 1", "id: ID.1\ndata: 1", "data: 2", "id: ID.2\ndata: 2").Replace(said)
	_, behindOne, _ := strings.Cut(withIDs, "data: 1\n\n")
	got, _ := readOn(t, r, mirror, "")
	want(t, got, withIDs)
	for _, instance := range []*instance{owner, early, late} {
		got, _ = read(t, instance.find(a.ID), 0, "")
		want(t, got, withIDs)
		got, _ = read(t, instance.find(a.ID), 1, "")
		want(t, got, behindOne)
		got, _ = read(t, instance.find(a.ID), 2, "")
		want(t, got, answers.ErrOver.Error())
	}
}

func TestOneOfManyAsksTheUpstream(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	instances := []*instance{newInstance(t, server), newInstance(t, server)}
	const each = 5
	var mu sync.Mutex
	var wg sync.WaitGroup
	var owned *answers.Answer
	for _, i := range instances {
		for range each {
			wg.Go(func() {
				a, mine, err := i.Open(context.Background(), request("k"), ignore)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(a.Leave)
				if mine {
					mu.Lock()
					if owned != nil {
						t.Error("two ask the upstream")
					}
					owned = a
					mu.Unlock()
					begin(t, a)
					say(t, a, "data: 1\n\n")
					a.End(true)
				}
				<-a.Decided()
				if got, _ := read(t, a, 0, ""); got != event(1) {
					t.Errorf("one got %q", got)
				}
			})
		}
	}
	wg.Wait()
	for _, i := range instances {
		r := request("k")
		r.Body[0]++
		if _, _, err := i.Open(context.Background(), r, ignore); !errors.Is(err, answers.ErrKeyReused) {
			t.Errorf("the key with another body: %v", err)
		}
	}
}

func TestAnAnswerIsStoppedByNameFromAnyInstance(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	owner, other := newInstance(t, server), newInstance(t, server)
	stopped := make(chan error, 3)
	a := owner.ask(request(""), func(cause error) { stopped <- cause })
	named, err := other.Named(context.Background(), request("")) // before the first byte
	if named == nil || named.ID != a.ID || err != nil {
		t.Fatalf("the name finds %v, %v", named, err)
	}
	defer named.Leave()
	named.Stop()
	select {
	case cause := <-stopped:
		if !errors.Is(cause, answers.ErrStopped) {
			t.Errorf("the upstream is cancelled with %v", cause)
		}
	case <-time.After(soon):
		t.Fatal("the upstream is not cancelled")
	}
	<-named.Decided()
	got, _ := read(t, named, 0, "")
	want(t, got, answers.ErrOver.Error())
	if state, _ := named.State(); state != answers.Stopped {
		t.Errorf("it is %s elsewhere", state)
	}
	newer := other.ask(request(""), ignore)
	if named, _ = owner.Named(context.Background(), request("")); named == nil || named.ID != newer.ID {
		t.Error("the newer answer has not taken the name over")
	} else {
		named.Leave()
	}
}

func TestWhatIsNoStreamIsForgottenEverywhere(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	owner, other := newInstance(t, server), newInstance(t, server)
	a := owner.ask(request("k"), ignore)
	waiting, mine, err := other.Open(context.Background(), request("k"), ignore)
	if mine || err != nil {
		t.Fatalf("the key is free: %v", err)
	}
	a.Pass()
	<-waiting.Decided()
	if state, _ := waiting.State(); state != answers.Passed {
		t.Errorf("who waits is told %s", state)
	}
	waiting.Leave()
	other.ask(request("k"), ignore)
}

// slowly tells the others slowly, and notes whether an answer was to be forgotten meanwhile.
type slowly struct {
	answers.Shared
	telling, forgot atomic.Bool
}

func (s *slowly) Append(
	ctx context.Context, id string, b *answers.Batch, r *answers.Record, keep time.Duration,
) (bool, error) {
	s.telling.Store(true)
	defer s.telling.Store(false)
	for range 30 {
		if s.forgot.Load() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return s.Shared.Append(ctx, id, b, r, keep)
}

func (s *slowly) Release(ctx context.Context, id string, claims []string) error {
	s.forgot.Store(s.telling.Load())
	return s.Shared.Release(ctx, id, claims)
}

// What is told after all was forgotten would be there again, and who waits for it elsewhere would wait for long.
func TestAnAnswerIsForgottenAfterTheLastIsToldOfIt(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	owner, other := newInstance(t, server), newInstance(t, server)
	slow := &slowly{Shared: Open("default", owner.options)}
	owner.Share(slow)
	a := owner.ask(request("k"), ignore)
	for !slow.telling.Load() {
		time.Sleep(time.Millisecond)
	}
	a.Pass()
	owner.close()
	if slow.forgot.Load() {
		t.Error("it was forgotten while somebody was being told of it")
	}
	if known, err := other.shared.Load(context.Background(), a.ID); known != nil || err != nil {
		t.Errorf("it is known still: %+v, %v", known, err)
	}
}

func TestReadersElsewhereAreToldOnceThatTheOwnerIsLost(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	lost := "id: ID.2\nevent: error\ndata: " +
		`{"error":{"code":"owner_lost","message":"the instance that had the answer is gone","type":"stream_aborted"}}` + "\n\n"
	for name, end := range map[string]func(*instance){
		"killed":  func(i *instance) { i.shared.Close() },
		"exiting": func(i *instance) { i.close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			owner, other, third := newInstance(t, server), newInstance(t, server), newInstance(t, server)
			a := owner.answer()
			mirror := other.find(a.ID)
			got, _ := read(t, mirror, 0, event(1))
			want(t, got, event(1))
			end(owner)
			got, ended := read(t, mirror, 1, "")
			want(t, got, lost)
			if ended != answers.InGoodOrder {
				t.Errorf("it ends with %d", ended)
			}
			got, _ = read(t, third.find(a.ID), 1, "")
			want(t, got, lost)
			got, _ = read(t, third.find(a.ID), 2, "")
			want(t, got, answers.ErrOver.Error())
		})
	}
}

func TestWhileRedisIsFrozenTheOwnerGoesOn(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	owner, other := newInstance(t, server), newInstance(t, server)
	a := owner.ask(request("k"), ignore)
	begin(t, a)
	say(t, a, "data: 1\n\n")
	mirror := other.find(a.ID)
	if got, _ := read(t, mirror, 0, event(1)); got != event(1) {
		t.Fatalf("got %q", got)
	}
	server.Freeze()
	const last = 40
	for n := 2; n <= last; n++ {
		say(t, a, fmt.Sprintf("data: %d\n\n", n))
		time.Sleep(100 * time.Millisecond) // 4 s in all, so that calls time out whose outcome is unknown
	}
	if got, _ := read(t, a, 0, event(last)); got != eventsUpTo(1, last) {
		t.Errorf("the owner's reader got %q", got)
	}
	if a, mine, err := owner.Open(context.Background(), request("other"), ignore); !mine || err != nil {
		t.Errorf("a key can't be claimed on this instance: %v", err)
	} else {
		a.Leave()
	}
	if alone := owner.Stats().Alone; alone != 1 {
		t.Errorf("%d claims are counted that hold here only", alone)
	}
	server.Thaw()
	a.End(true)
	got, _ := read(t, mirror, 0, "")
	want(t, got, eventsUpTo(1, last))
}

func TestBatchesAreFewAndMirrorsReadOnlyWhileAsked(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	owner, other := newInstance(t, server), newInstance(t, server)
	a := owner.ask(request("k"), ignore)
	begin(t, a)
	mirror := other.find(a.ID)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	calls := func(command string) (n int) {
		stats := client.Info(context.Background(), "commandstats").Val()
		_, rest, there := strings.Cut(stats, "cmdstat_"+command+":calls=")
		if there {
			_, _ = fmt.Sscanf(rest, "%d", &n)
		}
		return n
	}
	began := time.Now()
	for n := range 1000 {
		say(t, a, fmt.Sprintf("data: %d\n\n", n))
		time.Sleep(time.Millisecond)
	}
	a.End(true)
	read(t, mirror, 0, "")
	most := int(time.Since(began)/(50*time.Millisecond)) + 2
	if n := calls("xadd"); n > most || n == 0 {
		t.Errorf("%d batches in %v; want at most %d", n, time.Since(began), most)
	}
	if n := calls("xrange"); n > most+2 {
		t.Errorf("%d reads in %v; want at most %d", n, time.Since(began), most+2)
	}
}
