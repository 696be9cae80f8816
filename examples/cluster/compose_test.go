package cluster_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// service is what this test understands of one in compose.yaml; anything else is an error.
type service struct {
	Build       string
	Image       string
	WorkingDir  string `yaml:"working_dir"`
	Command     []string
	Environment map[string]string
	Volumes     []string
	Ports       []string
	DependsOn   any `yaml:"depends_on"`
	Healthcheck struct {
		Test     []string
		Interval string
	}
	Restart string
}

// The topology of compose.yaml as processes: each service's command and environment, with addresses of this
// machine in the place of the containers' names.
func TestComposeFileJoinsTwoInstancesBehindAFront(t *testing.T) {
	services := composeFile(t)
	redis := e2etest.RedisServer(t, services["redis"].Command[1:]...)
	one := startService(t, services["one"], "redis:6379", redis.Addr())
	two := startService(t, services["two"], "redis:6379", redis.Addr())
	front := startService(t, services["front"],
		"one:8081", one.Expand("127.0.0.1:{{port}}"), "two:8082", two.Expand("127.0.0.1:{{port}}"))

	listens := map[string]*e2etest.Stream{}
	for len(listens) < 2 {
		stream := e2etest.Subscribe(t, front.URL("/events?topic=cluster"))
		name, _, _ := strings.Cut(stream.Connected(t).ClientID, ".")
		listens[name] = stream
	}
	e2etest.Publish(t, front.URL("/events?topic=cluster"), "hello")
	last := listens["one"].Expect(t, "hello")
	listens["two"].Expect(t, "hello")

	one.Kill()
	e2etest.Publish(t, front.URL("/events?topic=cluster"), "without one")
	again := e2etest.Subscribe(t, front.URL("/events?topic=cluster"), e2etest.LastEventID(last.ID))
	if resume := again.Connected(t).Resume; resume != "complete" {
		t.Errorf("resume is %q", resume)
	}
	again.Expect(t, "without one")

	health := services["two"].Healthcheck.Test
	path := strings.TrimPrefix(health[len(health)-1], "http://127.0.0.1:2019")
	if status := e2etest.Send(t, http.MethodGet, two.AdminURL(path), "").Status; status != http.StatusOK {
		t.Errorf("the health of two is answered %d", status)
	}
	if page := e2etest.Send(t, http.MethodGet, front.URL("/"), ""); page.Status != http.StatusOK {
		t.Errorf("the page is answered %d", page.Status)
	}
}

func composeFile(t *testing.T) map[string]service {
	t.Helper()
	content, err := os.Open(filepath.Join(e2etest.RepoRoot(t), "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var file struct {
		Services  map[string]service
		Volumes   map[string]any
		Extension map[string]any `yaml:",inline"`
	}
	decoder := yaml.NewDecoder(content)
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatalf("reading compose.yaml: %v", err)
	}
	for name := range file.Extension {
		if !strings.HasPrefix(name, "x-") {
			t.Errorf("compose.yaml has an unknown %q", name)
		}
	}
	for name, s := range file.Services {
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			_, named := file.Volumes[source]
			if _, err := os.Stat(filepath.Join(e2etest.RepoRoot(t), source)); err != nil && !named {
				t.Errorf("%s mounts %s: %v", name, source, err)
			}
		}
		if s.Build == "" && name != "redis" {
			t.Errorf("%s is not built from this checkout", name)
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s is open to the world, where anybody may publish: %s", name, port)
			}
		}
	}
	return file.Services
}

// startService runs what a container would, with other addresses.
func startService(t *testing.T, s service, addresses ...string) *e2etest.Server {
	t.Helper()
	if len(s.Command) != 4 || !slices.Equal(s.Command[:3], []string{"caddy", "run", "--config"}) {
		t.Fatalf("the command is %q", s.Command)
	}
	if s.Environment["BIND"] != "0.0.0.0" {
		t.Errorf("it can't be reached from another container: %v", s.Environment)
	}
	replace := strings.NewReplacer(append(addresses, "0.0.0.0", "127.0.0.1", "8081", "{{port}}", "8082", "{{port}}")...)
	var env []string
	for name, value := range s.Environment {
		env = append(env, name+"="+replace.Replace(value))
	}
	mounted := strings.TrimPrefix(filepath.ToSlash(s.Command[3]), "examples/cluster/")
	config := read(t, mounted, "{$BIND:127.0.0.1}")
	return e2etest.Start(t, strings.ReplaceAll(config, ":8080", ":{{port}}"), e2etest.Env(env...), e2etest.WorkDir(e2etest.RepoRoot(t)))
}

func TestDockerfileBuildsWithTheVersionsOfGoMod(t *testing.T) {
	root := e2etest.RepoRoot(t)
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for image, required := range map[string]string{
		"golang:%s-alpine": `(?m)^go (\d+\.\d+)`,
		"caddy:%s-alpine":  `github\.com/caddyserver/caddy/v2 v(\S+)`,
	} {
		version := regexp.MustCompile(required).FindSubmatch(gomod)
		if version == nil {
			t.Fatalf("go.mod does not say %s", required)
		}
		if from := "FROM " + fmt.Sprintf(image, version[1]); !strings.Contains(string(dockerfile), from) {
			t.Errorf("the Dockerfile does not say %s", from)
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^COPY (.+) \S+$`).FindAllStringSubmatch(string(dockerfile), -1) {
		for source := range strings.FieldsSeq(line[1]) {
			if _, err := os.Stat(filepath.Join(root, source)); err != nil && !strings.Contains(line[1], "--from=") {
				t.Errorf("it copies %s: %v", source, err)
			}
		}
	}
}
