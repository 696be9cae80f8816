package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
	"go.yaml.in/yaml/v3"

	_ "github.com/caddy-sse/caddy-sse"
	_ "github.com/caddy-sse/caddy-sse/mercure"
)

// languages say how the code of a language is checked. A block without a language is no code: an answer, a stream.
var languages = map[string]func(code string) error{
	"caddyfile": adapts,
	"console":   func(code string) error { return tryProgram("bash", commands(code), "-n") },
	"go":        parsesAsGo,
	"ini":       parsesAsINI,
	"js":        func(code string) error { return tryProgram("node", code, "--input-type=module", "--check") },
	"json":      parsesAsJSON,
	"jsx":       balanced,
	"nginx":     balanced, // internal/e2e runs it
	"php":       func(code string) error { return tryProgram("php", code, "-l") },
	"python":    func(code string) error { return tryProgram("python3", code, "-c", pythonParses) },
	"ruby":      func(code string) error { return tryProgram("ruby", code, "-c") },
	"sh":        func(code string) error { return tryProgram("bash", code, "-n") },
	"yaml":      func(code string) error { return yaml.Unmarshal([]byte(code), new(any)) },
}

const pythonParses = "import ast, sys; ast.parse(sys.stdin.read())"

func TestEveryBlockOfCodeInTheDocsIsRight(t *testing.T) {
	checked := make(map[string]int)
	for _, path := range markdownFiles(t) {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range codeBlocks(source) {
			check := languages[block.language]
			if block.language == "" {
				continue
			}
			if check == nil {
				t.Errorf("%s: nothing checks code in %s", rel(path), block.language)
				continue
			}
			checked[block.language]++
			err := check(block.code)
			if missing := (*missingError)(nil); errors.As(err, &missing) && os.Getenv("SSE_TEST_REQUIRE_ALL") == "" {
				t.Logf("%s: not checked: %v", rel(path), err)
			} else if err != nil {
				t.Errorf("%s: this %s is wrong: %v\n%s", rel(path), block.language, err, block.code)
			}
		}
	}
	for _, language := range []string{"caddyfile", "json", "sh", "js", "go"} {
		if checked[language] == 0 {
			t.Errorf("the docs show no %s", language)
		}
	}
}

// exampleBroker stands for the broker of docs/write-a-broker.md, so that Caddyfiles may name it.
type exampleBroker struct{}

func init() { caddy.RegisterModule(exampleBroker{}) }

func (exampleBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "sse.brokers.example", New: func() caddy.Module { return new(exampleBroker) }}
}

func (*exampleBroker) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

type codeBlock struct{ language, code string }

func codeBlocks(source []byte) (blocks []codeBlock) {
	tree := goldmark.New().Parser().Parse(text.NewReader(source))
	_ = ast.Walk(tree, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if block, ok := node.(*ast.FencedCodeBlock); ok && entering {
			blocks = append(blocks, codeBlock{string(block.Language(source)), string(block.Lines().Value(source))})
		}
		return ast.WalkContinue, nil
	})
	return blocks
}

// missingError is the error of a check that needs a program which is not there.
type missingError struct{ program string }

func (m *missingError) Error() string { return m.program + " is not installed" }

// tryProgram gives code to a program that says whether it is right.
func tryProgram(program, code string, args ...string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return &missingError{program}
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(code)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// commands are what is typed behind the prompts of a console; what else stands there is answers.
func commands(console string) string {
	var typed strings.Builder
	for line := range strings.Lines(console) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			typed.WriteString(command)
		}
	}
	return typed.String()
}

// adapts adapts a Caddyfile, or a part of one: directives of a site, options of a hub or of a route. What is shown as
// a whole is also formatted.
func adapts(code string) error {
	code = strings.ReplaceAll(code, " [<matcher>]", "")
	var errs []error
	for _, around := range []string{"%s", ":80 {\n%s\n}", "{\n\tsse {\n%s\n}\n}", ":80 {\n\tsse {\n%s\n}\n}"} {
		_, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(fmt.Appendf(nil, around, code),
			map[string]any{"filename": "Caddyfile"})
		if err == nil && around == "%s" && len(warnings) > 0 {
			return errors.New(warnings[0].String())
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// parsesAsJSON parses a value, or several: a line each, as in NDJSON.
func parsesAsJSON(code string) error {
	for decoder := json.NewDecoder(strings.NewReader(code)); ; {
		if err := decoder.Decode(new(any)); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// parsesAsGo parses a file, declarations, or statements.
func parsesAsGo(code string) error {
	var errs []error
	for _, around := range []string{"%s", "package p\n%s", "package p\nfunc f() {\n%s\n}"} {
		_, err := parser.ParseFile(token.NewFileSet(), "", fmt.Sprintf(around, code), 0)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

var iniLine = regexp.MustCompile(`^(\[\w+\]|[\w.]+ ?=.*|#.*|)$`)

func parsesAsINI(code string) error {
	for line := range strings.SplitSeq(code, "\n") {
		if !iniLine.MatchString(line) {
			return fmt.Errorf("%q is no section and no setting", line)
		}
	}
	return nil
}

// balanced is for code that no program here parses: its brackets are closed in the order in which they are opened.
func balanced(code string) error {
	closes := map[rune]rune{')': '(', ']': '[', '}': '{'}
	var open []rune
	for _, r := range code {
		switch {
		case strings.ContainsRune("([{", r):
			open = append(open, r)
		case closes[r] != 0 && (len(open) == 0 || open[len(open)-1] != closes[r]):
			return fmt.Errorf("%c closes nothing", r)
		case closes[r] != 0:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("%c is not closed", open[len(open)-1])
	}
	return nil
}

func TestWrongCodeIsFound(t *testing.T) {
	for language, code := range map[string]string{
		"caddyfile": "example.com {\n\tsse /events {\n\t\ttopcis news\n\t}\n}\n",
		"console":   "$ curl 'http://localhost\nanswer\n",
		"go":        "func f( {\n",
		"ini":       "not a setting\n",
		"js":        "const a = ;\n",
		"json":      `{"a":1,}`,
		"jsx":       "function A() { return <p>{a</p> }",
		"nginx":     "location / {\n",
		"php":       "<?php echo ;\n",
		"python":    "def f(:\n",
		"ruby":      "def f(\n",
		"sh":        "if true; do\n",
		"yaml":      "a: [\n",
	} {
		if err := languages[language](code); err == nil {
			t.Errorf("this %s is taken for right: %s", language, code)
		}
	}
	if len(codeBlocks([]byte("- a\n\n  ```json\n  {}\n  ```\n\n```sh\nls\n```\n"))) != 2 {
		t.Error("blocks of code are missed")
	}
}

// The README is what a stranger reads first: it has to stay short, and its picture has to be there.
func TestReadmeIsShort(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(readme, []byte("\n")); lines > 200 {
		t.Errorf("README.md has %d lines, of which it may have 200", lines)
	}
}

// Most examples listen on the same ports, and a second Caddy does not start, or worse, shares them.
func TestEachExampleSaysToStopTheOneBefore(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "examples", "*", "README.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no examples, %v", err)
	}
	starts := regexp.MustCompile("```sh\n[^`]*(?:caddy run --config|cluster/run)")
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		start := starts.FindIndex(text)
		if start != nil && !bytes.Contains(text[:start[0]], []byte("Stop the example that ran before")) {
			t.Errorf("%s does not say to stop the example before it", page)
		}
	}
}
