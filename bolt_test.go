package sse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
)

func TestTwoHubsDoNotShareAFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "sse.db"), filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Skip(err)
	}
	opened := func(path, hub string) (broker.Log, error) {
		on := true
		b := &BoltBroker{File: path, Sync: &on, logger: zap.NewNop()}
		return b.Open(hub)
	}
	for _, names := range [][2]string{{file, file}, {link, file}, {file, link}} {
		first, err := opened(names[0], "one")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := opened(names[1], "two"); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), `"one"`) {
			t.Errorf("a second hub gets the error %v", err)
		}
		same, err := opened(names[1], "one")
		if err != nil {
			t.Errorf("the same hub doesn't get the file again: %v", err)
		}
		for _, log := range []broker.Log{first, same} {
			if err := log.Close(); err != nil {
				t.Error(err)
			}
		}
		other, err := opened(file, "two") // once the first has let it go
		if err != nil {
			t.Fatalf("the file is still open: %v", err)
		}
		_ = other.Close()
	}
}

func TestTheFilesPathIsMadeAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("SSE_TEST_FILE", "sse.db")
	b := &BoltBroker{File: "{env.SSE_TEST_FILE}"}
	if err := b.Provision(caddy.Context{}); err != nil || !filepath.IsAbs(b.File) || !*b.Sync {
		t.Errorf("provisioned as %+v, %v", b, err)
	}
	none := &BoltBroker{File: "{env.SSE_TEST_NO_FILE}"}
	if err := none.Provision(caddy.Context{}); err == nil || !strings.Contains(err.Error(), "give it one, such as") {
		t.Errorf("without a file the error is %v", err)
	}
	off := false
	same, path, sync := *b, *b, *b
	path.File, sync.Sync = "/another", &off
	if b.Identity() != same.Identity() || b.Identity() == path.Identity() || b.Identity() == sync.Identity() {
		t.Error("identities do not tell what differs")
	}
}
