package option

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Fill returns a config value with its placeholders replaced, each of which must be set. No error holds a secret.
func Fill(value string) (string, error) {
	text, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil || text == "" {
		return "", fmt.Errorf("%s is empty or not set", PlaceholderOnly(value))
	}
	return text, nil
}

// secretPlaceholder is what a secret is mostly given as. Anything else in braces may be the secret.
var secretPlaceholder = regexp.MustCompile(`^\{(env|file)\.[^{}]+\}$`)

// PlaceholderOnly returns a config value for an error message: its placeholder, never a secret.
func PlaceholderOnly(value string) string {
	if secretPlaceholder.MatchString(value) {
		return value
	}
	return "(not shown)"
}

// This file says what is wrong with a config, before placeholders are replaced: of a Caddyfile when it is
// read, of JSON when it is loaded.

// Error is an error of one option, or of how it stands beside others. An option of a block within
// the block has the name "<block>: <option>".
type Error struct {
	Option string
	Err    error
}

func (e *Error) Error() string { return e.Option + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

func Wrong(option, text string) error { return &Error{option, errors.New(text)} }

// UnlessPlaceholder makes a check pass over a value with a placeholder, as {env.X}. What comes of that is checked
// when the config is loaded.
func UnlessPlaceholder(check func(value string) error) func(value string) error {
	return func(value string) error {
		if strings.Contains(value, "{") {
			return nil
		}
		return check(value)
	}
}

// CheckNotEmpty refuses an empty value, which in JSON would stand for the default.
func CheckNotEmpty(value string) error {
	if value == "" {
		return errors.New("the value is empty; give it one, or leave the option out")
	}
	return nil
}

func Default[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
