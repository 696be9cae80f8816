// Package docs checks the Markdown files of this repository.
package docs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

const root = "../.."

// TestLinksResolve reads every Markdown file: a relative link must name a file
// of the repository, a #fragment a heading in it. Links to elsewhere are only
// parsed, so that the test needs no network.
func TestLinksResolve(t *testing.T) {
	docs := map[string]document{}
	for _, path := range markdownFiles(t) {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		docs[path] = parse(source)
	}
	if len(docs) == 0 {
		t.Fatal("no Markdown file was found")
	}
	for path, doc := range docs {
		for _, link := range doc.links {
			if err := check(docs, path, link); err != nil {
				t.Errorf("%s: link %q: %v", rel(path), link, err)
			}
		}
	}
}

// document is what links need to know of a Markdown file.
type document struct {
	links   []string
	anchors map[string]bool
}

var (
	htmlLink   = regexp.MustCompile(`(?i)\b(?:href|src)\s*=\s*["']([^"']*)["']`)
	htmlAnchor = regexp.MustCompile(`(?i)\b(?:id|name)\s*=\s*["']([^"']*)["']`)
	lineAnchor = regexp.MustCompile(`^L\d+(-L\d+)?$`)
)

func parse(source []byte) document {
	doc := document{anchors: map[string]bool{}}
	markdown := goldmark.New(goldmark.WithExtensions(extension.GFM))
	tree := markdown.Parser().Parse(text.NewReader(source))
	addHTML := func(lines *text.Segments) {
		html := lines.Value(source)
		for _, match := range htmlLink.FindAllSubmatch(html, -1) {
			doc.links = append(doc.links, string(match[1]))
		}
		for _, match := range htmlAnchor.FindAllSubmatch(html, -1) {
			doc.anchors[string(match[1])] = true
		}
	}
	_ = ast.Walk(tree, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch node := node.(type) {
		case *ast.Link:
			doc.links = append(doc.links, string(node.Destination))
		case *ast.Image:
			doc.links = append(doc.links, string(node.Destination))
		case *ast.AutoLink:
			if node.AutoLinkType == ast.AutoLinkURL {
				doc.links = append(doc.links, string(node.URL(source)))
			}
		case *ast.RawHTML:
			addHTML(node.Segments)
		case *ast.HTMLBlock:
			addHTML(node.Lines())
		case *ast.Heading:
			doc.addHeading(plainText(node, source))
		}
		return ast.WalkContinue, nil
	})
	return doc
}

// addHeading makes the anchor that GitHub makes: lower case, blanks to
// hyphens, other punctuation gone, and a number behind a repeated one.
func (d *document) addHeading(heading string) {
	slug := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
	anchor := slug
	for n := 1; d.anchors[anchor]; n++ {
		anchor = fmt.Sprintf("%s-%d", slug, n)
	}
	d.anchors[anchor] = true
}

func plainText(node ast.Node, source []byte) string {
	var b bytes.Buffer
	_ = ast.Walk(node, func(child ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			switch child := child.(type) {
			case *ast.Text:
				b.Write(child.Value(source))
			case *ast.String:
				b.Write(child.Value)
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

func check(docs map[string]document, from, link string) error {
	target, err := url.Parse(link)
	if err != nil {
		return err
	}
	switch {
	case target.Scheme == "http" || target.Scheme == "https":
		if target.Host == "" {
			return errors.New("has no host")
		}
		return nil
	case target.Scheme == "mailto":
		return nil
	case target.Scheme != "" || target.Host != "" || strings.HasPrefix(target.Path, "/"):
		return errors.New("is neither relative nor http(s)")
	case link == "":
		return errors.New("is empty")
	}
	path := from
	if target.Path != "" {
		path = filepath.Join(filepath.Dir(from), filepath.FromSlash(target.Path))
		if err := exists(path); err != nil {
			return err
		}
	}
	if target.Fragment == "" {
		return nil
	}
	doc, isMarkdown := docs[path]
	switch {
	case isMarkdown && !doc.anchors[target.Fragment]:
		return fmt.Errorf("%s has no heading #%s", rel(path), target.Fragment)
	case !isMarkdown && !lineAnchor.MatchString(target.Fragment):
		return fmt.Errorf("%s is not Markdown and has no headings", rel(path))
	}
	return nil
}

// exists compares names itself: on macOS and Windows the file system would let
// a link with other capitals pass.
func exists(path string) error {
	inside, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsLocal(inside) {
		return errors.New("leads out of the repository")
	}
	dir := root
	for name := range strings.SplitSeq(filepath.ToSlash(inside), "/") {
		if name == "." {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		found := false
		for _, entry := range entries {
			found = found || entry.Name() == name
		}
		if !found {
			return fmt.Errorf("there is no %s", filepath.ToSlash(inside))
		}
		dir = filepath.Join(dir, name)
	}
	return nil
}

func markdownFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			switch {
			case path == root:
				return nil
			case strings.HasPrefix(name, ".") && name != ".github", name == "testdata", name == "node_modules", name == "build":
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) == ".md" || name == "llms.txt" {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func rel(path string) string {
	inside, err := filepath.Rel(root, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(inside)
}

func TestBrokenLinksAreFound(t *testing.T) {
	readme := filepath.Join(root, "README.md")
	docs := map[string]document{readme: parse([]byte("# One `two`, Three\n\n# Twice\n\n# Twice\n\n<a id=\"raw\"></a>"))}
	for link, ok := range map[string]bool{
		"#one-two-three":              true,
		"#twice":                      true,
		"#twice-1":                    true,
		"#raw":                        true,
		"go.mod":                      true,
		"internal/":                   true,
		"internal/docs/links_test.go": true,
		"go.mod#L3":                   true,
		"https://example.com/x#y":     true,
		"mailto:a@example.com":        true,
		"":                            false,
		"#twice-2":                    false,
		"#One-two-three":              false,
		"Go.mod":                      false,
		"missing.md":                  false,
		"../elsewhere":                false,
		"/etc/passwd":                 false,
		"go.mod#module":               false,
		"https:///path":               false,
		"javascript:alert(1)":         false,
	} {
		if err := check(docs, readme, link); (err == nil) != ok {
			t.Errorf("link %q: %v", link, err)
		}
	}
	got := parse([]byte("[a](b) ![c](d) <https://e> https://f.example [g][]\n\n`[no](no)` <a href=\"h\">\n\n[g]: i")).links
	want := "b d https://e https://f.example i h"
	if strings.Join(got, " ") != want {
		t.Errorf("links %q, want %q", got, want)
	}
}
