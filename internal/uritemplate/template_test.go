package uritemplate

import (
	"errors"
	"strings"
	"testing"
)

// examples are templates with texts that they expand to, most of them from RFC 6570, and texts that they don't.
var examples = []struct {
	template string
	matches  []string
	others   []string
}{
	// Section 1.2, and 3.2.2: simple strings.
	{"{var}", []string{"value", "", "a,b", "a%20b", "%C3%A9"}, []string{"a b", "a/b", "é", "a=b", "%41", "a%2"}},
	{"{hello}", []string{"Hello%20World%21"}, []string{"Hello World!"}},
	{"{half}", []string{"50%25"}, []string{"50%"}},
	{"O{empty}X", []string{"OX", "OabcX"}, []string{"O", "X", "OX "}},
	{"{x,y}", []string{"1024,768", "1024"}, nil},
	{"{x,hello,y}", []string{"1024,Hello%20World%21,768"}, nil},
	{"?{x,empty}", []string{"?1024,", "?1024"}, []string{"1024"}},
	{"{var:3}", []string{"val", "va", "", "%C3%A9%C3%A9%C3%A9"}, []string{"value", "a,b", "%C3%A9%C3%A9%C3%A9%C3%A9"}},
	{"{var:30}", []string{"value"}, nil},
	{"{list}", []string{"red,green,blue"}, nil},
	{"{list*}", []string{"red,green,blue"}, nil},
	{"{keys}", []string{"semi,%3B,dot,.,comma,%2C"}, nil},
	{"{keys*}", []string{"semi=%3B,dot=.,comma=%2C"}, []string{"semi=%3B=x", "a,semi=%3B"}},

	// Section 3.2.3: reserved.
	{"{+var}", []string{"value", "a/b?c=d#e", "%41"}, []string{"a b", "é", "%4"}},
	{"{+hello}", []string{"Hello%20World!"}, nil},
	{"{base}index", []string{"http%3A%2F%2Fexample.com%2Fhome%2Findex"}, nil},
	{"{+base}index", []string{"http://example.com/home/index"}, []string{"http://example.com/home/"}},
	{"O{+empty}X", []string{"OX"}, nil},
	{"{+path}/here", []string{"/foo/bar/here"}, nil},
	{"here?ref={+path}", []string{"here?ref=/foo/bar"}, nil},
	{"up{+path}{var}/here", []string{"up/foo/barvalue/here"}, nil},
	{"{+x,hello,y}", []string{"1024,Hello%20World!,768"}, nil},
	{"{+path,x}/here", []string{"/foo/bar,1024/here"}, nil},
	{"{+path:6}/here", []string{"/foo/b/here"}, []string{"/foo/bar/here"}},
	{"{+list*}", []string{"red,green,blue"}, nil},
	{"{+keys}", []string{"semi,;,dot,.,comma,,"}, nil},
	{"{+keys*}", []string{"semi=;,dot=.,comma=,"}, nil},

	// Section 3.2.4: fragments.
	{"{#var}", []string{"#value", ""}, []string{"value"}},
	{"foo{#empty}", []string{"foo#", "foo"}, []string{"foo##é"}},
	{"{#x,hello,y}", []string{"#1024,Hello%20World!,768"}, nil},
	{"{#path:6}here", []string{"#/foo/bhere"}, nil},
	{"{#keys*}", []string{"#semi=;,dot=.,comma=,"}, nil},

	// Section 3.2.5: labels.
	{"{.who}", []string{".fred", ""}, []string{"fred"}},
	{"{.who,who}", []string{".fred.fred"}, nil},
	{"{.half,who}", []string{".50%25.fred"}, nil},
	{"www{.dom*}", []string{"www.example.com"}, nil},
	{"X{.var:3}", []string{"X.val"}, []string{"X.value"}},
	{"X{.list}", []string{"X.red,green,blue"}, nil},
	{"X{.list*}", []string{"X.red.green.blue"}, nil},
	{"X{.keys*}", []string{"X.semi=%3B.dot=..comma=%2C"}, nil},
	{"X{.empty_keys}", []string{"X"}, nil},

	// Section 3.2.6: path segments.
	{"{/who}", []string{"/fred", ""}, []string{"fred", "/fred/fred"}},
	{"{/who,who}", []string{"/fred/fred"}, nil},
	{"{/var,empty}", []string{"/value/"}, nil},
	{"{/var,x}/here", []string{"/value/1024/here"}, nil},
	{"{/var:1,var}", []string{"/v/value"}, []string{"/va/value"}},
	{"{/list}", []string{"/red,green,blue"}, nil},
	{"{/list*}", []string{"/red/green/blue"}, []string{"/red,green"}},
	{"{/list*,path:4}", []string{"/red/green/blue/%2Ffoo"}, nil},
	{"{/keys*}", []string{"/semi=%3B/dot=./comma=%2C"}, nil},

	// Section 3.2.7: path parameters.
	{"{;who}", []string{";who=fred", ";who", ""}, []string{";what=fred", ";who="}},
	{"{;empty}", []string{";empty"}, nil},
	{"{;v,empty,who}", []string{";v=6;empty;who=fred"}, nil},
	{"{;v,bar,who}", []string{";v=6;who=fred"}, []string{";who=fred;v=6"}},
	{"{;hello:5}", []string{";hello=Hello"}, []string{";hello=Hello%20"}},
	{"{;list}", []string{";list=red,green,blue"}, nil},
	{"{;list*}", []string{";list=red;list=green;list=blue"}, nil},
	{"{;keys}", []string{";keys=semi,%3B,dot,.,comma,%2C"}, nil},
	{"{;keys*}", []string{";semi=%3B;dot=.;comma=%2C", ";semi;dot"}, nil},

	// Section 3.2.8 and 3.2.9: queries.
	{"{?who}", []string{"?who=fred", "?who=", ""}, []string{"?who", "?q=fred", "?who=fred&x=1"}},
	{"{?x,y,empty}", []string{"?x=1024&y=768&empty="}, nil},
	{"{?x,y,undef}", []string{"?x=1024&y=768"}, nil},
	{"{?var:3}", []string{"?var=val"}, []string{"?var=value"}},
	{"{?list}", []string{"?list=red,green,blue"}, nil},
	{"{?list*}", []string{"?list=red&list=green&list=blue"}, nil},
	{"{?keys}", []string{"?keys=semi,%3B,dot,.,comma,%2C"}, nil},
	{"{?keys*}", []string{"?semi=%3B&dot=.&comma=%2C", "?any=thing"}, []string{"?any"}},
	{"?fixed=yes{&x}", []string{"?fixed=yes&x=1024", "?fixed=yes"}, []string{"?fixed=yes?x=1024"}},
	{"{&var:3}", []string{"&var=val"}, nil},
	{"{&keys*}", []string{"&semi=%3B&dot=.&comma=%2C"}, nil},

	// Literals.
	{"", []string{""}, []string{"a"}},
	{"caf\u00e9/{x}", []string{"caf\u00e9/1", "caf%C3%A9/1"}, []string{"cafe/1", "caf%c3/1"}},
	{"%41{x}", []string{"%41b"}, []string{"Ab"}},
	{"it's/{x}", []string{"it's/1"}, nil},

	// What users of Mercure write.
	{"https://example.com/books/{id}", []string{"https://example.com/books/1"}, []string{"https://example.com/books/1/2"}},
	{"https://example.com/App%5CEntity%5CBook/{id}", []string{"https://example.com/App%5CEntity%5CBook/7"}, nil},
	{"{scheme}://{+host}/demo/books/{id}.jsonld", []string{"https://localhost:8080/demo/books/1.jsonld"}, nil},
	{"https://chat.example.com/users/foo/{?topic}", []string{
		"https://chat.example.com/users/foo/?topic=https%3A%2F%2Fexample.com%2Fbooks%2F1",
	}, []string{"https://chat.example.com/users/bar/?topic=1"}},
	{"/.well-known/mercure/subscriptions/x{/subscriber}", []string{
		"/.well-known/mercure/subscriptions/x/urn%3Auuid%3A1", "/.well-known/mercure/subscriptions/x",
	}, nil},
}

func parse(t testing.TB, text string) *Template {
	t.Helper()
	template, err := Parse(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return template
}

func TestTemplateMatchesWhatItExpandsTo(t *testing.T) {
	for _, e := range examples {
		template := parse(t, e.template)
		for _, text := range e.matches {
			if !template.Match(text) {
				t.Errorf("%q does not match %q", e.template, text)
			}
		}
		for _, text := range e.others {
			if template.Match(text) {
				t.Errorf("%q matches %q", e.template, text)
			}
		}
	}
}

func TestTextsThatAreNoTemplatesAreRefused(t *testing.T) {
	for _, text := range []string{
		"{", "}", "a}", "{a", "{}", "{+}", "{a}}", "{{a}}", "{ a}", "{a b}", "{a.}", "{.a..b}", "{a-b}", "{a:}", "{a:0}",
		"{a:10000}", "{a:01}", "{a:x}", "{a:-1}", "{a:+1}", "{a*:3}", "{a:3*}", "{a**}", "{a,}", "{,a}", "{!a}", "{=a}", "{|a}", "{@a}",
		"{a%4}", "a b{c}", "a%{c}", "a%4{c}", "<{c}", "\"{c}", "\\{c}", "^{c}", "`{c}", "|{c}", "\x7f{c}", "\u0085{c}", "\xff{c}",
	} {
		if _, err := Parse(text); err == nil || errors.Is(err, ErrTooMany) {
			t.Errorf("Parse(%q) = %v; it is no template", text, err)
		}
	}
	for _, text := range []string{"{a%41}", "{a_b.c9}", "{?a,b*,c:9999}", "\u00a0{a}", "it's", "[{a}]"} {
		if _, err := Parse(text); err != nil {
			t.Errorf("Parse(%q) = %v", text, err)
		}
	}
}

func TestExpressionsAreBounded(t *testing.T) {
	if _, err := Parse(strings.Repeat("{a}", MaxExpressions)); err != nil {
		t.Error(err)
	}
	if _, err := Parse(strings.Repeat("{a}", MaxExpressions+1)); !errors.Is(err, ErrTooMany) {
		t.Errorf("one expression more than may be: %v", err)
	}
}

func TestPrefixIsOfAllThatMatches(t *testing.T) {
	for text, want := range map[string]string{
		"{a}": "", "a/b{c}": "a/b", "a": "a", "caf\u00e9/{x}": "caf", "": "",
	} {
		template := parse(t, text)
		if got := template.Prefix(); got != want {
			t.Errorf("%q has the prefix %q; want %q", text, got, want)
		}
		if n := template.Expressions(); n != strings.Count(text, "{") {
			t.Errorf("%q has %d expressions", text, n)
		}
	}
}
