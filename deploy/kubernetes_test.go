// Package deploy_test checks that what is deployed fits together.
package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

// labels choose pods.
type labels map[string]string

// resource is what the test looks at of any kind.
type resource struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Selector yaml.Node
		Ports    []struct {
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels labels }
			Spec     struct {
				Containers []container
				Volumes    []struct {
					Name      string
					ConfigMap struct{ Name string } `yaml:"configMap"`
				}
			}
		}
	}
}

type container struct {
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	Env            []struct{ Name string }
	ReadinessProbe probe `yaml:"readinessProbe"`
	LivenessProbe  probe `yaml:"livenessProbe"`
	VolumeMounts   []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

func resources(t *testing.T) map[string]resource {
	t.Helper()
	content, err := os.ReadFile("kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]resource)
	for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var r resource
		if err := decoder.Decode(&r); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[r.Kind] = r
	}
}

// Kubernetes takes the manifests: no kind, field or type that it does not know.
func TestKubernetesKnowsAllThatTheManifestsSay(t *testing.T) {
	t.Parallel()
	known, err := check(t, "../../deploy/kubernetes.yaml")
	const all = "ConfigMap caddy-sse\nDeployment caddy-sse\nService caddy-sse\nPodDisruptionBudget caddy-sse\n"
	if err != nil || known != all {
		t.Errorf("it knows %q, want %q: %v", known, all, err)
	}
	content, err := os.ReadFile("kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	misspelt := filepath.Join(t.TempDir(), "misspelt.yaml")
	content = bytes.Replace(content, []byte("readinessProbe:"), []byte("readynessProbe:"), 1)
	if err := os.WriteFile(misspelt, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := check(t, misspelt); err == nil || !strings.Contains(said, "readynessProbe") {
		t.Errorf("a misspelt field is no error: %s", said)
	}
}

// check runs tools/manifests, and returns what it prints.
func check(t *testing.T, file string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "-C", "../tools/manifests", "run", ".", file).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(failed.Stderr), err
	}
	return string(out), err
}

func TestKubernetesManifestsFitTogether(t *testing.T) {
	all := resources(t)
	pods := all["Deployment"].Spec.Template
	if len(all) != 4 || len(pods.Spec.Containers) != 1 {
		t.Fatalf("there are %d resources, and %d containers", len(all), len(pods.Spec.Containers))
	}
	chosen := func(kind string, selector labels) {
		t.Helper()
		for name, value := range selector {
			if pods.Metadata.Labels[name] != value {
				t.Errorf("the %s chooses pods with %s: %s, which they do not have", kind, name, value)
			}
		}
		if len(selector) == 0 {
			t.Errorf("the %s chooses no pods", kind)
		}
	}
	for _, kind := range []string{"Deployment", "PodDisruptionBudget"} {
		var selector struct {
			MatchLabels labels `yaml:"matchLabels"`
		}
		node := all[kind].Spec.Selector
		if err := node.Decode(&selector); err != nil {
			t.Fatal(err)
		}
		chosen(kind, selector.MatchLabels)
	}
	var selector labels
	node := all["Service"].Spec.Selector
	if err := node.Decode(&selector); err != nil {
		t.Fatal(err)
	}
	chosen("Service", selector)

	caddy := pods.Spec.Containers[0]
	port := caddy.Ports[0].Name
	for _, to := range []string{all["Service"].Spec.Ports[0].TargetPort, caddy.ReadinessProbe.HTTPGet.Port, caddy.LivenessProbe.HTTPGet.Port} {
		if to != port {
			t.Errorf("something goes to the port %s, but there is only %s", to, port)
		}
	}
	if mounted := pods.Spec.Volumes[0]; mounted.ConfigMap.Name != all["ConfigMap"].Metadata.Name ||
		caddy.VolumeMounts[0].Name != mounted.Name || caddy.VolumeMounts[0].MountPath != "/etc/caddy" {
		t.Error("the Caddyfile is not mounted where the image looks for it")
	}
}

// The Caddyfile gets all that it asks of its environment, listens where the port is, and answers the probes.
func TestKubernetesCaddyfileServesAndAnswersTheProbes(t *testing.T) {
	all := resources(t)
	caddy := all["Deployment"].Spec.Template.Spec.Containers[0]
	caddyfile := all["ConfigMap"].Data["Caddyfile"]
	if !strings.Contains(caddyfile, "\n:8080 {") || caddy.Ports[0].ContainerPort != 8080 {
		t.Fatal("the Caddyfile listens elsewhere than on the container's port")
	}
	for _, v := range caddy.Env {
		if !strings.Contains(caddyfile, "{env."+v.Name+"}") {
			t.Errorf("nothing asks for %s", v.Name)
		}
	}
	caddyfile = strings.NewReplacer(":8080", "http://127.0.0.1:{{port}}", "shutdown_delay 5s", "").Replace(caddyfile)
	redis := e2etest.RedisServer(t)
	server := e2etest.Start(t, caddyfile, e2etest.Env("REDIS_URL="+redis.URL(), "SSE_PUBLISH_TOKEN=secret"))
	for _, p := range []probe{caddy.ReadinessProbe, caddy.LivenessProbe} {
		e2etest.Await(t, "the probe "+p.HTTPGet.Path+" to succeed", func() bool {
			return e2etest.Send(t, http.MethodGet, server.URL(p.HTTPGet.Path), "").Status == http.StatusOK
		})
	}
	stream := e2etest.Subscribe(t, server.URL("/events?topic=a"))
	stream.Connected(t)
	e2etest.Publish(t, server.URL("/events?topic=a"), "hello", e2etest.Header("Authorization", "Bearer secret"))
	stream.Expect(t, "hello")
}
