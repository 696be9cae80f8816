package broker_test

import (
	"os"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/broker/brokertest"
)

func TestTheExampleIsABroker(t *testing.T) {
	brokertest.Run(t, brokertest.Subject{Module: func(testing.TB) broker.Module { return Module{} }})
}

func TestTheGuideShowsTheExample(t *testing.T) {
	const guide, example = "../docs/write-a-broker.md", "example_test.go"
	_, code, found := strings.Cut(read(t, example), "\n)\n\n")
	code, _, ended := strings.Cut(code, "\nfunc Example()")
	if !found || !ended {
		t.Fatalf("%s has another shape than this test knows", example)
	}
	if !strings.Contains(read(t, guide), "\n```go\n"+code+"```\n") {
		t.Errorf("%s does not show %s; copy what stands between its imports and Example", guide, example)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(content), "\r\n", "\n")
}
