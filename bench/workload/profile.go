//go:build linux

package workload

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/caddy-sse/caddy-sse/bench/peer"
)

// profile takes a CPU profile of a server while it is measured, if the user wants that and the server offers it. The
// returned function waits for it.
func (b *Bench) profile(s *peer.Server, name string) (await func()) {
	if b.Profile == "" || s.Admin == "" {
		return func() {}
	}
	done := make(chan error)
	go func() {
		done <- b.fetchProfile(s.Admin, filepath.Join(b.Profile, name+".pprof"))
	}()
	return func() {
		if err := <-done; err != nil {
			fmt.Fprintln(os.Stderr, "taking a profile:", err)
		}
	}
}

func (b *Bench) fetchProfile(admin, file string) error {
	seconds := max(1, int((b.Warmup + b.Measure).Seconds()))
	response, err := http.Get(fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", admin, seconds))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", response.Status)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	profile, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, profile, 0o644)
}
