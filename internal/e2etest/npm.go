package e2etest

import (
	"os"
	"os/exec"
	"testing"
)

// CopyWithPackages copies a folder, and installs into the copy what its package-lock.json pins.
func CopyWithPackages(t testing.TB, from, to string) {
	t.Helper()
	npm := Need(t, "npm")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	install := exec.Command(npm, "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = to
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}
