package sse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/internal/boltlog"
)

func TestTwoHubsDoNotShareAFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "sse.db"), filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Skip(err)
	}
	bolt := func(path string) broker.Module { return &BoltBroker{File: path} }
	for _, names := range [][2]string{{file, file}, {link, file}, {file, link}} {
		err := checkBoltFiles(map[string]broker.Module{
			"one": bolt(names[0]), "two": bolt(names[1]), "three": new(MemoryBroker),
		})
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), `"one"`) {
			t.Errorf("two hubs with %v get the error %v", names, err)
		}
	}
	err := checkBoltFiles(map[string]broker.Module{
		"one": bolt(file), "two": bolt(file + "2"), "three": new(MemoryBroker), "four": new(MemoryBroker),
	})
	if err != nil {
		t.Errorf("hubs with files of their own get the error %v", err)
	}
}

func TestFileIsClosedOnceNoHubHasIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sse.db")
	opened := func(hub string) broker.Log {
		on := true
		log, err := (&BoltBroker{File: file, Sync: &on, logger: zap.NewNop()}).Open(hub)
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
	for _, log := range []broker.Log{opened("one"), opened("one"), opened("renamed")} {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
	path, err := boltlog.Path(file)
	if err != nil {
		t.Fatal(err)
	}
	if n, open := boltFiles.References(path); open {
		t.Errorf("the file is still open, %d times", n)
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
