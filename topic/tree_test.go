package topic

import (
	"slices"
	"testing"
)

func TestTreeFindsThePatternsThatCoverATopic(t *testing.T) {
	patterns := []string{"**", "*", "a", "a/*", "a/**", "a/b", "*/b", "a/*/c", "*/*/*", "a/b/**", "b/**"}
	var tree Tree[string]
	for _, pattern := range patterns {
		*tree.Add(pattern) = pattern
	}
	for _, name := range []string{"a", "b", "a/b", "a/b/c", "a//c", "b/b/b/b", "c/", "/"} {
		var got, want []string
		tree.Match(name, func(pattern *string) { got = append(got, *pattern) })
		for _, pattern := range patterns {
			if Match(pattern, name) {
				want = append(want, pattern)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q is covered by %q; want %q", name, got, want)
		}
	}
}

func TestTreeKeepsNothingOfWhatIsRemoved(t *testing.T) {
	var tree Tree[int]
	patterns := []string{"**", "a/**", "a/*", "a/b/c/*", "*/*/*", "a"}
	for _, pattern := range patterns {
		*tree.Add(pattern)++
	}
	if again := tree.Add("a/*"); *again != 1 || tree.Len() != len(patterns) {
		t.Errorf("adding a pattern again gives %d, of %d patterns", *again, tree.Len())
	}
	for _, missing := range []string{"b", "a/b", "a/b/**", "*", "a/b/c/*/**"} {
		if tree.Get(missing) != nil {
			t.Errorf("%q has a value", missing)
		}
		tree.Remove(missing)
	}
	for left := len(patterns); left > 0; left-- {
		if tree.Len() != left {
			t.Errorf("there are %d patterns; want %d", tree.Len(), left)
		}
		tree.Remove(patterns[left-1])
	}
	if tree.Len() != 0 || tree.root.literal != nil || tree.root.any != nil || tree.root.rest != nil {
		t.Errorf("with all patterns removed the tree has %+v", tree)
	}
}
