package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// fileSite keeps the log of its hub in a file.
func fileSite(file string, history int) string {
	return fmt.Sprintf("{\n\tsse {\n\t\thistory %d\n\t\tbroker bolt %s\n\t}\n}\n", history, file) + openSite
}

func TestAReloadKeepsTheFileAndAnotherPathIsAGapWithoutADisconnect(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, fileSite("{{dir}}/one.db", 100))
	events := server.URL("/events?topic=news")
	stream := e2etest.Subscribe(t, events)
	begin := stream.Connected(t).ID
	for i := range 3 {
		e2etest.Publish(t, events, fmt.Sprint(i))
		stream.Expect(t, fmt.Sprint(i))
		if err := server.Reload(fileSite("{{dir}}/one.db", 200+i)); err != nil {
			t.Fatal(err)
		}
	}
	resumes := func(want string, messages ...string) {
		t.Helper()
		back := e2etest.Subscribe(t, events, e2etest.LastEventID(begin))
		if got := back.Connected(t).Resume; got != want {
			t.Errorf("the first ID is told %q, want %q", got, want)
		}
		for _, message := range messages {
			back.Expect(t, message)
		}
		back.Close()
	}
	resumes("complete", "0", "1", "2")
	for i, move := range []struct {
		file, resume string
		kept         []string
	}{
		{"two.db", "gap", []string{"in two.db"}},
		{"one.db", "gap", []string{"0", "1", "2", "in one.db"}}, // nobody knows what it missed meanwhile
	} {
		if err := server.Reload(fileSite("{{dir}}/"+move.file, 300+i)); err != nil {
			t.Fatal(err)
		}
		event, err := stream.Next(patience)
		if err != nil || event.Name != "gap" || string(event.Data) != `{"reason":"broker_changed"}` {
			t.Fatalf("the client got %q %s, %v", event.Name, event.Data, err)
		}
		e2etest.Publish(t, events, "in "+move.file)
		stream.Expect(t, "in "+move.file)
		resumes(move.resume, move.kept...)
	}
}

func TestAFileThatCanNotBeUsedFailsTheReloadAndChangesNothing(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, fileSite("{{dir}}/log.db", 100))
	other := e2etest.Start(t, fileSite("{{dir}}/log.db", 100))
	events := server.URL("/events?topic=news")
	stream := e2etest.Subscribe(t, events)
	stream.Connected(t)
	dir := t.TempDir()
	damaged := filepath.Join(dir, "damaged.db")
	if err := os.WriteFile(damaged, []byte(strings.Repeat("no log", 10_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, advice := range map[string]string{
		filepath.Join(dir, "missing", "log.db"): "its directory does not exist; make it",
		dir:                                     "it is a directory; name a file",
		damaged:                                 "move it away to begin anew",
		other.Expand("{{dir}}/log.db"):          "another process has it open; stop that one, or name another file",
	} {
		err := server.Reload(fileSite(file, 200))
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), advice) {
			t.Errorf("%s: the reload was answered %v", file, err)
		}
	}
	two := strings.Replace(fileSite("{{dir}}/log.db", 100), "\t}\n}", "\t\thub chat {\n\t\t\tbroker bolt {{dir}}/log.db\n\t\t}\n\t}\n}", 1) +
		"http://127.0.0.1:{{chat}} {\n\tsse /events {\n\t\thub chat\n\t}\n}\n"
	if err := server.Reload(two); err == nil || !strings.Contains(err.Error(), server.Expand("{{dir}}/log.db")) || !strings.Contains(err.Error(), "give each hub a file of its own") {
		t.Errorf("two hubs on one file are answered %v", err)
	}
	e2etest.Publish(t, events, "all is as it was")
	stream.Expect(t, "all is as it was")
}

func TestAHubWithAFileMayBeRenamedInAReload(t *testing.T) {
	t.Parallel()
	named := func(hub, more string) string {
		return fmt.Sprintf("{\n\tsse {\n\t\thub %s {\n\t\t\tbroker bolt {{dir}}/log.db\n\t\t}\n%s\t}\n}\n", hub, more) +
			strings.Replace(openSite, "sse /events {", "sse /events {\n\t\thub "+hub, 1)
	}
	server := e2etest.Start(t, named("first", ""))
	events := server.URL("/events?topic=news")
	stream := e2etest.Subscribe(t, events)
	begin := stream.Connected(t).ID
	e2etest.Publish(t, events, "0")
	stream.Expect(t, "0")

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for range 3 { // Caddy starts a config's apps in any order
		bad := named("second", "") + fmt.Sprintf("http://%s {\n\tsse /events {\n\t\thub second\n\t}\n}\n", taken.Addr())
		if err := server.Reload(bad); err == nil {
			t.Fatal("a port that is taken was accepted")
		}
		both := named("second", "\t\tbroker bolt {{dir}}/log.db\n") + "http://127.0.0.1:{{other}} {\n\tsse /events\n}\n"
		if err := server.Reload(both); err == nil || !strings.Contains(err.Error(), "give each hub a file of its own") {
			t.Fatalf("two hubs on one file are answered %v", err)
		}
	}
	e2etest.Publish(t, events, "1")
	stream.Expect(t, "1")

	messages := []string{"0", "1"}
	for i, hub := range []string{"second", "third", "first"} {
		if err := server.Reload(named(hub, "")); err != nil {
			t.Fatal(err)
		}
		message := "in " + hub
		e2etest.Publish(t, events, message)
		messages = append(messages, message)
		back := e2etest.Subscribe(t, events, e2etest.LastEventID(begin))
		if got := back.Connected(t).Resume; got != "complete" {
			t.Errorf("after %d renames the first ID is told %q", i+1, got)
		}
		for _, message := range messages {
			back.Expect(t, message)
		}
		back.Close()
	}
}

func TestATruncatedFileStopsTheStartWithAReason(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, fileSite("{{dir}}/log.db", 100_000))
	for range 20 {
		e2etest.Publish(t, server.URL("/events?topic=news"), strings.Repeat("x", 10_000))
	}
	server.Stop()
	file := server.Expand("{{dir}}/log.db")
	if err := os.Truncate(file, 64<<10); err != nil {
		t.Fatal(err)
	}
	said, err := e2etest.Caddy(t, "run", "--adapter", "caddyfile", "--config", server.WriteFile("again", fileSite("{{dir}}/log.db", 100)))
	if err == nil || strings.Contains(said, "panic") || !strings.Contains(said, file) || !strings.Contains(said, "move it away to begin anew") {
		t.Errorf("it ended with %v: %s", err, said)
	}
	if err := os.Remove(file); err != nil { // as it says
		t.Fatal(err)
	}
	server.Restart()
	e2etest.Publish(t, server.URL("/events?topic=news"), "hello")
}

func TestAFullDiskRefusesPublishersUntilThereIsRoom(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	disk := e2etest.SmallDisk(t, "4m")
	server := e2etest.Start(t, fileSite(disk+"/log.db", 100_000))
	events := server.URL("/events?topic=news")
	stream := e2etest.Subscribe(t, events)
	begin := stream.Connected(t).ID
	e2etest.Publish(t, events, "first")
	stream.Expect(t, "first")
	makeRoom := e2etest.FillDisk(t, disk, 256<<10)
	var kept []string
	for refused := false; !refused; {
		data := fmt.Sprint(len(kept), strings.Repeat(" filling", 2000))
		switch answer := e2etest.Send(t, http.MethodPost, events, data); answer.Status {
		case http.StatusOK:
			kept = append(kept, data)
			stream.Expect(t, data)
		case http.StatusServiceUnavailable:
			refused = true
			if answer.Header.Get("Retry-After") == "" || !strings.Contains(answer.Body, "was not published") {
				t.Errorf("answered %v: %s", answer.Header, answer.Body)
			}
		default:
			t.Fatalf("answered %d: %s", answer.Status, answer.Body)
		}
	}
	if health := e2etest.Send(t, http.MethodGet, server.AdminURL("/sse/health"), ""); health.Status != http.StatusServiceUnavailable {
		t.Errorf("its health is %d", health.Status)
	}
	back := e2etest.Subscribe(t, events, e2etest.LastEventID(begin)) // GET goes on
	for _, data := range append([]string{"first"}, kept...) {
		back.Expect(t, data)
	}
	makeRoom()
	e2etest.Await(t, "there is room again", func() bool {
		return e2etest.Send(t, http.MethodPost, events, "after").Status == http.StatusOK
	})
	stream.Expect(t, "after")
	back.Expect(t, "after")
	wantWarning(t, server, "the broker is out of reach")
	if !strings.Contains(server.Log(), disk+"/log.db") {
		t.Error("the log does not name the file")
	}
}
