package uritemplate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The templates and texts of these tests are random, and short: so they often match, or nearly do.

func choose(random *rand.Rand, from ...string) string { return from[random.IntN(len(from))] }

func randomTemplate(random *rand.Rand) string {
	var b strings.Builder
	for range 1 + random.IntN(4) {
		if random.IntN(2) == 0 {
			b.WriteString(choose(random, "a", "b", "/", ".", "?a=", "ab", ",", ";a", "&", "\u00e9", "%C3%A9", "#"))
			continue
		}
		b.WriteString("{" + choose(random, "", "", "+", "#", ".", "/", ";", "?", "&"))
		for i := range 1 + random.IntN(3) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(choose(random, "a", "b", "ab", "c") + choose(random, "", "", "*", ":1", ":2"))
		}
		b.WriteString("}")
	}
	return b.String()
}

func randomText(random *rand.Rand, most int) string {
	var b strings.Builder
	for range random.IntN(most + 1) {
		b.WriteString(choose(random, "a", "b", "/", ".", ",", ";", "?", "&", "=", "#", "%2C", "%C3%A9", "%41", "%", "\u00e9", " "))
	}
	return b.String()
}

// randomValues assigns something to most variables. A value that is cut to a length is a string.
func randomValues(random *rand.Rand, template string) map[string]any {
	values := map[string]any{}
	for _, name := range []string{"a", "b", "ab", "c"} {
		isString := strings.Contains(template, name+":")
		switch kind := random.IntN(5); {
		case kind == 0:
		case kind == 1 && !isString:
			var list []string
			for range random.IntN(4) {
				list = append(list, randomValue(random))
			}
			values[name] = list
		case kind == 2 && !isString:
			var pairs [][2]string
			for range random.IntN(3) {
				pairs = append(pairs, [2]string{"k" + randomValue(random), randomValue(random)})
			}
			values[name] = pairs
		default:
			values[name] = randomValue(random)
		}
	}
	return values
}

func randomValue(random *rand.Rand) string {
	return choose(random, "", "x", "ab", "a,b", "\u00e9", "x/y", "50%", "1=2", "a b", "%41", "#", "\u4f60\u597d")
}

func TestTemplateMatchesRandomExpansions(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		text := randomTemplate(random)
		values := randomValues(random, text)
		if expansion := expand(text, values); !parse(t, text).Match(expansion) {
			t.Fatalf("%q does not match its expansion %q by %q", text, expansion, values)
		}
	}
}

func TestTreeMatchesWhatEachTemplateMatches(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		var tree Tree[[]string] // the templates that have a value in common
		var templates []*Template
		values := map[*[]string]bool{}
		for range 200 {
			template := parse(t, randomTemplate(random))
			if slices.ContainsFunc(templates, func(other *Template) bool { return other.text == template.text }) {
				continue
			}
			templates = append(templates, template)
			value := tree.Add(template)
			*value = append(*value, template.text)
			values[value] = true
			if tree.Get(template) != value {
				t.Fatalf("the value of %q is not found", template)
			}
		}
		if tree.Len() != len(values) {
			t.Fatalf("the tree says that it has %d values; want %d", tree.Len(), len(values))
		}
		for len(templates) > 0 {
			for range 20 {
				wantSame(t, &tree, templates, randomText(random, 8))
			}
			for range min(len(templates), 40) {
				i := random.IntN(len(templates))
				gone := templates[i]
				templates = slices.Delete(templates, i, i+1)
				value := tree.Get(gone)
				*value = slices.DeleteFunc(*value, func(text string) bool { return text == gone.text })
				if len(*value) == 0 {
					tree.Remove(gone)
				}
			}
		}
		if tree.Len() != 0 || tree.Open() != 0 || !tree.root.empty() {
			t.Fatalf("of a tree without templates there are %d values and %d open expressions", tree.Len(), tree.Open())
		}
	}
}

// wantSame compares what a tree finds with what each template says.
func wantSame(t testing.TB, tree *Tree[[]string], templates []*Template, text string) {
	t.Helper()
	var got, want []string
	tree.Match(text, func(value *[]string) { got = append(got, *value...) })
	for _, template := range templates {
		if template.Match(text) {
			want = append(want, template.text)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("for %q the tree finds\n%q; want\n%q", text, got, want)
	}
}

func TestTemplatesThatDifferByHiddenNamesShareAValue(t *testing.T) {
	var tree Tree[int]
	for i, same := range [][]string{{"a/{id}", "a/{x}"}, {"{/a*}", "{/b*}"}, {"{?a*}", "{?b*}"}} {
		one, other := tree.Add(parse(t, same[0])), tree.Add(parse(t, same[1]))
		if one != other || tree.Len() != i+1 {
			t.Errorf("%q have values of their own", same)
		}
	}
	if tree.Add(parse(t, "{?a}")) == tree.Add(parse(t, "{?b}")) {
		t.Error("names that stand in expansions make no difference")
	}
}

func TestOpenCountsWhatAnyTextMayComeTo(t *testing.T) {
	var tree Tree[int]
	for i := range 1000 {
		tree.Add(parse(t, fmt.Sprintf("users/%d/{?topic}", i)))
	}
	if n := tree.Open(); n != 0 {
		t.Errorf("templates with literals of their own have %d open expressions", n)
	}
	for i := range 1000 {
		tree.Add(parse(t, fmt.Sprintf("{+a}%d{+b}", i)))
	}
	for i := range 100 {
		tree.Add(parse(t, fmt.Sprintf("{x:%d}", i+1)))
	}
	if n := tree.Open(); n != 1000+100-fewBranches+1 {
		t.Errorf("there are %d open expressions", n)
	}
}

// FuzzMatch tries any templates on any texts: the tree says what the template says.
func FuzzMatch(f *testing.F) {
	for _, e := range examples {
		for _, text := range slices.Concat(e.matches, e.others) {
			f.Add(e.template, text)
		}
	}
	f.Fuzz(func(t *testing.T, template, text string) {
		parsed, err := Parse(template)
		if err != nil || len(text) > 200 || len(template) > 200 {
			t.Skip()
		}
		var tree Tree[[]string]
		other := parse(t, "{a}{+b}")
		for _, one := range []*Template{parsed, other} {
			*tree.Add(one) = []string{one.text}
		}
		if tree.Len() == 2 {
			wantSame(t, &tree, []*Template{parsed, other}, text)
		}
		tree.Remove(parsed)
		tree.Remove(other)
		if !tree.root.empty() || tree.Open() != 0 {
			t.Errorf("something of %q is left", template)
		}
	})
}

func BenchmarkTree(b *testing.B) {
	for name, test := range map[string]struct {
		template func(i int) string
		text     string
	}{
		"prefix":   {func(i int) string { return fmt.Sprintf("https://example.com/users/%d/{?topic}", i) }, "https://example.com/users/77/?topic=books"},
		"common":   {func(i int) string { return fmt.Sprintf("https://example.com/{tenant}/books/%d", i) }, "https://example.com/acme/books/77"},
		"none":     {func(i int) string { return fmt.Sprintf("{scheme}://{+host}/%d/{id}.jsonld", i) }, "https://example.com/77/1.jsonld"},
		"presence": {func(i int) string { return fmt.Sprintf("/.well-known/mercure/subscriptions/%d{/subscriber}", i) }, "/.well-known/mercure/subscriptions/77/urn%3Auuid%3A1"},
		"hostile": {func(i int) string {
			return fmt.Sprintf("{+a}%c{+b}%c{+c}%c{+d}", "e./o"[i%4], "xamp"[i/4%4], 'a'+i/16%26)
		}, "https://example.com/users/77/?topic=books"},
	} {
		b.Run(name, func(b *testing.B) {
			var tree Tree[int]
			for i := range 10_000 {
				tree.Add(parse(b, test.template(i)))
			}
			found := 0
			for b.Loop() {
				tree.Match(test.text, func(*int) { found++ })
			}
			b.ReportMetric(float64(found)/float64(b.N), "matches")
		})
	}
}
