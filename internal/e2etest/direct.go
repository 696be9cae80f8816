package e2etest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// There are two kinds of stream below HTTP/1.1, and every test that shows how streams behave has to pass over
// both. A run with SSE_TEST_DIRECT_WRITES=off sets `direct_writes off` in every config, which leaves one kind.
func directWritesOff() bool { return os.Getenv("SSE_TEST_DIRECT_WRITES") == "off" }

// Compressed streams keep all that plain ones do. A run with SSE_TEST_COMPRESS=gzip sets `compress gzip` in every config,
// and streams accept it.
func compressed() bool { return os.Getenv("SSE_TEST_COMPRESS") == "gzip" }

// NotAboutStreams says of a test that it shows the same over either kind of stream: what it is about happens
// elsewhere. The run with SSE_TEST_DIRECT_WRITES=off leaves it out.
func NotAboutStreams(t testing.TB) {
	t.Helper()
	if directWritesOff() {
		t.Skip("it is not about streams, and the other run has it")
	}
}

// AboutPlainStreams says of a test that it shows something of streams that are not compressed. The run with
// SSE_TEST_COMPRESS=gzip leaves it out.
func AboutPlainStreams(t testing.TB) {
	t.Helper()
	if compressed() {
		t.Skip("it is about streams that are not compressed, and the other run has it")
	}
}

// OfThisRun returns a config, in JSON, as this run of the tests wants it: as it is, without direct writes, compressed.
func OfThisRun(t testing.TB, config []byte) []byte {
	t.Helper()
	if !directWritesOff() && !compressed() {
		return config
	}
	var tree any
	if err := json.Unmarshal(config, &tree); err != nil {
		t.Fatalf("reading a config: %v", err)
	}
	changeRoutes(tree)
	changed, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func changeRoutes(node any) {
	switch node := node.(type) {
	case map[string]any:
		if node["handler"] == "sse" {
			if _, set := node["direct_writes"]; !set && directWritesOff() {
				node["direct_writes"] = false
			}
			if _, set := node["compress"]; !set && compressed() {
				node["compress"] = "gzip"
			}
		}
		for _, child := range node {
			changeRoutes(child)
		}
	case []any:
		for _, child := range node {
			changeRoutes(child)
		}
	}
}

// adapted returns a Caddyfile as JSON of this run; nil if the run wants it as it is, or if it has mistakes, which
// the server is to find.
func (s *Server) adapted(caddyfile string) []byte {
	s.t.Helper()
	if !directWritesOff() && !compressed() {
		return nil
	}
	file := filepath.Join(s.t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(caddyfile), 0o600); err != nil {
		s.t.Fatal(err)
	}
	config, err := s.command("adapt", "--adapter", "caddyfile", "--config", file).Output()
	if err != nil {
		return nil
	}
	return OfThisRun(s.t, config)
}
