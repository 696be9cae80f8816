// Package xcaddy checks that users can build Caddy with this module as they
// build it with any other.
package xcaddy

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const (
	path   = "github.com/caddy-sse/caddy-sse"
	xcaddy = "github.com/caddyserver/xcaddy/cmd/xcaddy@v0.4.7"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

// The command of the page about Mercure, which is the README's and a package more, with this checkout in the place of
// what is published.
func TestXcaddyBuildsACaddyThatRunsTheQuickstart(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles Caddy")
	}
	root := e2etest.RepoRoot(t)
	command := regexp.MustCompile("`xcaddy (build --with [^`]+)`").FindStringSubmatch(read(t, root, "README.md"))
	if command == nil {
		t.Fatal("the README does not say how to build with xcaddy")
	}
	withMercure := regexp.MustCompile(`xcaddy (build --with .+)`).FindStringSubmatch(read(t, root, "docs/moving-from-mercure.md"))
	if withMercure == nil || withMercure[1] != command[1]+" --with "+path+"/mercure" {
		t.Fatalf("the page about Mercure builds with %q, not as the README and with its package", withMercure)
	}
	dir := t.TempDir() // as for a user, who has no checkout
	install := exec.Command("go", "install", xcaddy)
	install.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", install, err, out)
	}
	binary := filepath.Join(dir, "caddy")
	build := exec.Command(filepath.Join(dir, "xcaddy"), append(strings.Fields(withMercure[1]), "--output", binary)...)
	build.Dir = dir
	build.Env = append(os.Environ(),
		"GOPROXY="+publish(t, root)+","+goEnv(t, "GOPROXY"),
		"GONOSUMDB="+path, // nobody else knows it
		"CADDY_VERSION="+caddyVersion(t, root),
		"GOTOOLCHAIN=local")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}

	caddyfile := strings.ReplaceAll(read(t, root, "examples/quickstart/Caddyfile"), ":8080", ":{{port}}")
	server := e2etest.Start(t, caddyfile, e2etest.BinaryAt(binary), e2etest.WorkDir(root))
	if page := e2etest.Send(t, http.MethodGet, server.URL("/"), ""); !strings.Contains(page.Body, "<title>caddy-sse quickstart</title>") {
		t.Errorf("the page is answered %d: %s", page.Status, page.Body)
	}
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news"))
	stream.Connected(t)
	e2etest.Publish(t, server.URL("/events?topic=news"), "hello")
	stream.Expect(t, "hello")
	if said, err := exec.Command(binary, "list-modules").Output(); err != nil || !strings.Contains(string(said), "http.handlers.sse_mercure\n") {
		t.Errorf("the directive mercure is not in it: %v\n%s", err, said)
	}
}

// publish puts the checkout into a module proxy of files and returns its
// address. The version is made of the content, so that Go's module cache, which
// forgets nothing, never has another under that name.
func publish(t *testing.T, root string) (proxy string) {
	t.Helper()
	dir := t.TempDir()
	versions := filepath.Join(dir, filepath.FromSlash(path), "@v")
	if err := os.MkdirAll(versions, 0o755); err != nil {
		t.Fatal(err)
	}
	archive, err := os.Create(filepath.Join(versions, "archive"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	files := sources(t, root)
	sum := sha256.New()
	for _, file := range files {
		content, err := os.ReadFile(file.(source).file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", file.Path(), len(content), content)
	}
	version := fmt.Sprintf("v0.0.1-checkout.x%x", sum.Sum(nil)[:6])
	if err := zip.Create(archive, module.Version{Path: path, Version: version}, files); err != nil {
		t.Fatalf("making the module's archive: %v", err)
	}
	if err := os.Rename(archive.Name(), filepath.Join(versions, version+".zip")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"list":            version + "\n",
		version + ".mod":  read(t, root, "go.mod"),
		version + ".info": fmt.Sprintf(`{"Version":%q}`, version),
	} {
		if err := os.WriteFile(filepath.Join(versions, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { forget(t, version) })
	return "file://" + filepath.ToSlash(dir)
}

// forget removes a version from Go's module cache, where its files are read-only.
func forget(t *testing.T, version string) {
	cache := goEnv(t, "GOMODCACHE")
	unpacked := filepath.Join(cache, filepath.FromSlash(path)+"@"+version)
	_ = filepath.WalkDir(unpacked, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = os.Chmod(file, 0o755)
		}
		return err
	})
	_ = os.RemoveAll(unpacked)
	downloads := filepath.Join(cache, "cache", "download", filepath.FromSlash(path), "@v")
	files, _ := filepath.Glob(filepath.Join(downloads, version+".*"))
	for _, file := range append(files, filepath.Join(downloads, "list")) { // Go makes the list anew
		_ = os.Remove(file)
	}
}

// source is a file of the module.
type source struct{ path, file string }

func (s source) Path() string                 { return s.path }
func (s source) Lstat() (fs.FileInfo, error)  { return os.Lstat(s.file) }
func (s source) Open() (io.ReadCloser, error) { return os.Open(s.file) }

// sources lists what a published version has: no nested modules, nothing that
// was built or installed.
func sources(t *testing.T, root string) []zip.File {
	t.Helper()
	var files []zip.File
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			_, nested := os.Stat(filepath.Join(file, "go.mod"))
			if file != root && (nested == nil || strings.HasPrefix(name, ".") || name == "build" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if inside, err := filepath.Rel(root, file); err == nil && entry.Type().IsRegular() && !strings.HasPrefix(name, ".") {
			files = append(files, source{filepath.ToSlash(inside), file})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func caddyVersion(t *testing.T, root string) string {
	t.Helper()
	required := regexp.MustCompile(`github\.com/caddyserver/caddy/v2 (v\S+)`).FindStringSubmatch(read(t, root, "go.mod"))
	if required == nil {
		t.Fatal("go.mod does not require Caddy")
	}
	return required[1]
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
