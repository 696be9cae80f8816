package deploy_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const released = "v9.8.7-test"

// `make release` for this platform, as the release workflow calls it for all, and what its program says of itself.
func TestAReleaseTellsItsVersionAndWhatIsInIt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("scripts/release is for bash")
	}
	t.Parallel()
	workflow := string(repoFile(t, ".github/workflows/release.yml"))
	if !strings.Contains(workflow, `run: make release VERSION="$TAG"`) || !strings.Contains(workflow, "build/release/*") {
		t.Error("the workflow does not publish what `make release` makes")
	}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	out := t.TempDir()
	if text, err := makeRelease(t, out, released, platform); err != nil {
		t.Fatalf("make release: %v\n%s", err, text)
	}
	name := strings.NewReplacer("v", "", "/", "_").Replace("caddy-sse_" + released + "_" + platform)
	checkSums(t, out, name+".tar.gz", name+".cdx.json")
	checkMaterials(t, filepath.Join(out, name+".cdx.json"))

	unpacked := t.TempDir()
	if text, err := exec.Command("tar", "-C", unpacked, "-xzf", filepath.Join(out, name+".tar.gz")).CombinedOutput(); err != nil {
		t.Fatalf("unpacking: %v\n%s", err, text)
	}
	for _, file := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		if _, err := os.Stat(filepath.Join(unpacked, name, file)); err != nil {
			t.Error(err)
		}
	}
	program := filepath.Join(unpacked, name, "caddy")
	text, err := exec.Command(program, "version").Output()
	if want := "caddy-sse " + released + ", Caddy v2."; err != nil || !strings.HasPrefix(string(text), want) {
		t.Errorf("`caddy version` says %q, %v; want %q", text, err, want)
	}
	server := e2etest.Start(t, "http://127.0.0.1:{{port}} {\n\tmetrics /metrics\n\tsse /events\n}", e2etest.BinaryAt(program))
	metrics := e2etest.Send(t, http.MethodGet, server.URL("/metrics"), "").Body
	if want := `caddy_sse_build_info{version="` + released + `"} 1`; !strings.Contains(metrics, want) {
		t.Errorf("the metrics don't say %s", want)
	}
}

func TestAReleaseNeedsAVersion(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"", "1.2.3", "v1.2", "v1.2.3 -X", "latest"} {
		out := t.TempDir()
		text, err := makeRelease(t, out, version)
		if files, _ := os.ReadDir(out); err == nil || len(files) > 0 || !strings.Contains(text, "is not a version such as") {
			t.Errorf("%q: %v, %d files, %s", version, err, len(files), text)
		}
	}
}

func makeRelease(t *testing.T, out, version string, platforms ...string) (said string, err error) {
	t.Helper()
	cmd := exec.Command("make", "release", "VERSION="+version, "RELEASE_PLATFORMS="+strings.Join(platforms, " "))
	cmd.Dir = e2etest.RepoRoot(t)
	cmd.Env = append(os.Environ(), "OUT="+out)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// checkSums checks that a release is these files, and their checksums.
func checkSums(t *testing.T, dir string, names ...string) {
	t.Helper()
	sums := map[string]string{}
	content, err := os.ReadFile(filepath.Join(dir, "checksums.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		sums[fields[1]] = fields[0]
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != len(names)+1 || len(sums) != len(names) {
		t.Errorf("the release has %v, %v; checksums of %v", files, err, sums)
	}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(content)); sums[name] != got {
			t.Errorf("%s has the sum %s, not %q", name, got, sums[name])
		}
	}
}

// checkMaterials checks that a bill of materials names Caddy, as go.mod has it.
func checkMaterials(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		BomFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(content, &bill); err != nil {
		t.Fatal(err)
	}
	if c := bill.Metadata.Component; bill.BomFormat != "CycloneDX" || c.Name != "github.com/caddy-sse/caddy-sse" || c.Version != released {
		t.Errorf("it is a bill of %+v in the format %q", c, bill.BomFormat)
	}
	found := map[string]string{}
	for _, c := range bill.Components {
		found[c.Name] = c.Version
	}
	required := regexp.MustCompile(`\t(github\.com/\S+) (v\S+)\n`)
	for _, name := range []string{"github.com/caddyserver/caddy/v2", "github.com/redis/go-redis/v9"} {
		for _, match := range required.FindAllStringSubmatch(string(repoFile(t, "go.mod")), -1) {
			if match[1] == name && found[name] != match[2] {
				t.Errorf("%s %s is not in it, but %q", name, match[2], found[name])
			}
		}
	}
	if found["std"] == "" {
		t.Error("Go's own library is not in it")
	}
}

var healthCheck = regexp.MustCompile(`(?m)^HEALTHCHECK (?:--\S+ )*\\\n\tCMD (.+)$`)

// The image's health check, run against the Caddyfile of the README and the one that the image has.
func TestTheImageKnowsWhetherItsCaddyServes(t *testing.T) {
	t.Parallel()
	e2etest.Need(t, "curl")
	match := healthCheck.FindSubmatch(repoFile(t, "Dockerfile"))
	if match == nil || !bytes.Contains(match[1], []byte("http://127.0.0.1:2019/sse/health/live")) {
		t.Fatalf("the Dockerfile has the health check %q", match)
	}
	readme := regexp.MustCompile("(?s)```caddyfile\n(http://localhost:8080 .*?)```").FindSubmatch(repoFile(t, "README.md"))
	if readme == nil {
		t.Fatal("the README has no Caddyfile to start with")
	}
	if !bytes.Contains(repoFile(t, "Dockerfile"), []byte("EXPOSE 8080\n")) {
		t.Error("the image does not expose the port of the README's Caddyfile")
	}
	for name, caddyfile := range map[string]string{
		"the README's": strings.Replace(string(readme[1]), "http://localhost:8080", "http://localhost:{{port}}", 1),
		"the image's":  string(repoFile(t, "image/Caddyfile")),
	} {
		server := e2etest.Start(t, caddyfile, e2etest.Env("SERVER_NAME=http://localhost:{{port}}",
			"GLOBAL_OPTIONS=", "CADDY_EXTRA_CONFIG=", "MERCURE_EXTRA_DIRECTIVES=", "CADDY_SERVER_EXTRA_DIRECTIVES=",
			"MERCURE_PUBLISHER_JWT_KEY="+strings.Repeat("p", 32), "MERCURE_SUBSCRIBER_JWT_KEY="+strings.Repeat("s", 32)))
		command := strings.Replace(string(match[1]), "http://127.0.0.1:2019", server.AdminURL(""), 1)
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v\n%s", name, command, err, out)
		}
		server.Kill()
		if exec.Command("sh", "-c", command).Run() == nil {
			t.Errorf("%s is healthy without a process", name)
		}
	}
}

// The labels that registries show, and the version that the program is stamped with.
func TestTheImageSaysWhatItIs(t *testing.T) {
	t.Parallel()
	dockerfile := string(repoFile(t, "Dockerfile"))
	for label, want := range map[string]string{
		"title": "caddy-sse", "licenses": "Apache-2.0", "source": "https://github.com/caddy-sse/caddy-sse", "version": "$VERSION",
	} {
		if !strings.Contains(dockerfile, `org.opencontainers.image.`+label+`="`+want+`"`) {
			t.Errorf("the label %s is not %q", label, want)
		}
	}
	stamp := "-X github.com/caddy-sse/caddy-sse.stamped="
	for file, version := range map[string]string{"Dockerfile": "$VERSION", "scripts/release": "$version"} {
		if !bytes.Contains(repoFile(t, file), []byte(stamp+version)) {
			t.Errorf("%s does not stamp the version", file)
		}
	}
}

func repoFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return content
}
