package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFilesThatTheDocsNameExist reads what the docs say of where things are, outside the examples. A Go file or a
// package in a code span must exist: by its path from the root or from the document, or in a directory that the same
// paragraph or row of a table names.
func TestFilesThatTheDocsNameExist(t *testing.T) {
	named := 0
	for _, path := range markdownFiles(t) {
		if strings.HasPrefix(rel(path), "examples/") {
			continue
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range blocks(string(source)) {
			names := namesIn(block)
			named += len(names)
			for _, name := range names {
				if !isThere(name, filepath.Dir(path), names) {
					t.Errorf("%s: there is no %s", rel(path), name)
				}
			}
		}
	}
	if named == 0 {
		t.Error("the docs name no file")
	}
}

var (
	fence    = regexp.MustCompile("(?ms)^\\s*```.*?^\\s*```")
	rowOrGap = regexp.MustCompile(`\n\s*\n|\n\|`)
	codeSpan = regexp.MustCompile("`([^`]+)`")
	fileName = regexp.MustCompile(`^[\w./-]+\.go$|^(internal|hub|broker|topic|eventstream|cmd|bench)/[\w./-]+$`)
)

// blocks returns the paragraphs of a document and the rows of its tables, without blocks of code.
func blocks(source string) []string {
	return rowOrGap.Split(fence.ReplaceAllString(source, ""), -1)
}

func namesIn(block string) (names []string) {
	for _, span := range codeSpan.FindAllStringSubmatch(block, -1) {
		if fileName.MatchString(span[1]) {
			names = append(names, span[1])
		}
	}
	return names
}

func isThere(name, dir string, beside []string) bool {
	bases := []string{root, dir}
	for _, other := range beside {
		bases = append(bases, filepath.Join(root, other), filepath.Join(dir, other))
	}
	for _, base := range bases {
		if exists(filepath.Join(base, filepath.FromSlash(name))) == nil {
			return true
		}
	}
	return false
}

func TestAbsentFilesAreFound(t *testing.T) {
	text := "One `internal/docs`: `links_test.go`,\nand `go.mod`.\n\n| `links_test.go` | `absent.go` |\n| `internal/absent` |\n\n```\n`code.go`\n```\n"
	var absent []string
	for _, block := range blocks(text) {
		names := namesIn(block)
		for _, name := range names {
			if !isThere(name, root, names) {
				absent = append(absent, name)
			}
		}
	}
	want := "links_test.go absent.go internal/absent"
	if got := strings.Join(absent, " "); got != want {
		t.Errorf("%q are absent, want %q", got, want)
	}
}
