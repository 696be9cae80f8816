package option

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Default sets a field that has the zero value.
func Default[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Error is what is wrong with an option, by itself or beside other options. [Positions.Locate] finds the
// option in the Caddyfile.
type Error struct {
	Option string // its name; "<block>: <option>" for an option of a block within the block
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return e.Option + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Wrong returns an [Error] with a text.
func Wrong(option, text string) error { return &Error{option, errors.New(text)} }

// CheckNotEmpty refuses an empty value. In JSON it would stand for the default.
func CheckNotEmpty(value string) error {
	if value == "" {
		return errors.New("the value is empty; give it one, or leave the option out")
	}
	return nil
}

// CheckCompress refuses what is no way to compress a stream.
func CheckCompress(coding string) error {
	if coding != "gzip" && coding != "off" {
		return fmt.Errorf("%q is none of gzip and off", coding)
	}
	return nil
}

// CheckDuration refuses a duration below a millisecond. In JSON it is a number that was meant to be something
// else: numbers there are nanoseconds. Zero and what is negative have meanings of their own.
func CheckDuration(d caddy.Duration) error {
	if d > 0 && time.Duration(d) < time.Millisecond {
		return fmt.Errorf("%v is less than a millisecond; in JSON a number is nanoseconds, "+
			"so write a text such as \"30s\"", time.Duration(d))
	}
	return nil
}

// Placeholders returns the names of the placeholders in a value.
func Placeholders(value string) (names []string) {
	_, _ = caddy.NewEmptyReplacer().ReplaceFunc(value, func(name string, _ any) (any, error) {
		names = append(names, name)
		return nil, nil
	})
	return names
}

// CheckPlaceholders refuses a placeholder that is none of Caddy's, which would always be empty. All of its own
// have a dot, once its Caddyfile has written the short ones out.
func CheckPlaceholders(value string) error {
	for _, name := range Placeholders(value) {
		if !strings.Contains(name, ".") {
			return fmt.Errorf("{%[1]s} is no placeholder that Caddy knows; write {query.%[1]s} for what "+
				"?%[1]s= says (one that the directive map sets needs a dot in its name, as {my.%[1]s})", name)
		}
	}
	return nil
}

// UnlessPlaceholder makes a check skip values with a placeholder, such as {env.X}. A Caddyfile may be read on
// another machine; the value is checked when the config is loaded.
func UnlessPlaceholder(check func(value string) error) func(value string) error {
	return func(value string) error {
		if strings.Contains(value, "{") {
			return nil
		}
		return check(value)
	}
}

// Fill replaces the placeholders of a value. It is an error if one of them is not set, or if nothing is
// left. The error does not show the value, which may be a secret.
func Fill(value string) (string, error) {
	text, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil || text == "" {
		return "", fmt.Errorf("%s is empty or not set", PlaceholderOnly(value))
	}
	return text, nil
}

// secretPlaceholder is how most configs name a secret. Anything else in braces may be the secret itself.
var secretPlaceholder = regexp.MustCompile(`^\{(env|file)\.[^{}]+\}$`)

// PlaceholderOnly returns a value for an error message if it is a placeholder and nothing else.
func PlaceholderOnly(value string) string {
	if secretPlaceholder.MatchString(value) {
		return value
	}
	return "(not shown)"
}
