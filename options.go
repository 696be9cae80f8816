package sse

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// option is one option of a Caddyfile block.
type option struct {
	takes string                             // its arguments as the documentation writes them, for error messages
	read  func(d *caddyfile.Dispenser) error // from its name on
}

// errArguments is what reading an option returns for too few arguments or too many. It names none of
// them, lest it name a secret.
var errArguments = errors.New("too few arguments, or too many")

// readBlock reads the options of a block, each at most once but those in repeatable.
func readBlock(d *caddyfile.Dispenser, options map[string]option, repeatable ...string) error {
	return make(places).readBlock(d, "", options, repeatable...)
}

// places are where options stand, by the names that an optionError has for them; "" is the whole.
type places map[string]caddyfile.Token

// locate adds to an error where its option stands.
func (at places) locate(err error) error {
	if err == nil {
		return nil
	}
	token := at[""]
	if wrong := (*optionError)(nil); errors.As(err, &wrong) {
		if place, there := at[wrong.option]; there {
			token = place
		}
	}
	d := caddyfile.NewDispenser([]caddyfile.Token{token})
	d.Next()
	return d.WrapErr(err)
}

// readBlock is readBlock that notes where the options stand, with the block before their names.
func (at places) readBlock(d *caddyfile.Dispenser, block string, options map[string]option, repeatable ...string) error {
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		o, known := options[name]
		if !known {
			return d.Errf("unknown option %q; the options here are %s", name, strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		if seen[name] && !slices.Contains(repeatable, name) {
			return d.Errf("option %q is there twice", name)
		}
		seen[name] = true
		at[block+name] = d.Token()
		if err := o.read(d); err == errArguments { //nolint:errorlint // it is returned bare
			return d.Errf("%s: %w; write: %s", name, err, strings.TrimSpace(name+" "+o.takes))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// readWord reads the one argument of an option.
func readWord(d *caddyfile.Dispenser, field *string) error {
	if !d.Args(field) || d.NextArg() {
		return errArguments
	}
	return nil
}

// wordOption is an option of one argument, which has to pass the checks.
func wordOption(takes string, field *string, checks ...func(word string) error) option {
	return option{takes, func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if err := readWord(d, field); err != nil {
			return err
		}
		return check(d, name, []string{*field}, checks)
	}}
}

// wordsOption is an option of one or more arguments, each of which has to pass the checks.
func wordsOption(takes string, field *[]string, checks ...func(word string) error) option {
	return option{takes, func(d *caddyfile.Dispenser) error {
		name := d.Val()
		words := d.RemainingArgs()
		if len(words) == 0 {
			return errArguments
		}
		*field = append(*field, words...)
		return check(d, name, words, checks)
	}}
}

func check(d *caddyfile.Dispenser, option string, words []string, checks []func(word string) error) error {
	for _, word := range words {
		for _, check := range checks {
			if err := check(word); err != nil {
				return d.Errf("%s: %w", option, err)
			}
		}
	}
	return nil
}

// flagOption is an option without arguments.
func flagOption(field *bool) option {
	return option{"", func(d *caddyfile.Dispenser) error {
		if d.NextArg() {
			return errArguments
		}
		*field = true
		return nil
	}}
}

func onOffOption(field **bool) option {
	return option{"on | off", func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var word string
		if err := readWord(d, &word); err != nil {
			return err
		}
		on := word == "on"
		if !on && word != "off" {
			return d.Errf("%s: %q is neither on nor off", name, word)
		}
		*field = &on
		return nil
	}}
}

func numberOption(field *int, least int) option {
	return option{"<number>", func(d *caddyfile.Dispenser) error {
		if err := numberOf(d, field, least); err != nil {
			return err
		}
		if d.NextArg() {
			return errArguments
		}
		return nil
	}}
}

// numberOf reads an option's next argument as a whole number.
func numberOf(d *caddyfile.Dispenser, field *int, least int) error {
	name := d.Val()
	if !d.NextArg() {
		return errArguments
	}
	n, err := strconv.Atoi(d.Val())
	if err != nil || n < least {
		return d.Errf("%s: %q is not a whole number, %d or more", name, d.Val(), least)
	}
	*field = n
	return nil
}

// How an option of a duration takes what is no duration, and zero.
type durationRule uint8

const (
	positive     durationRule = iota // neither: it must be more than 0
	offAllowed                       // "off" is a negative duration in JSON
	offIsDefault                     // "off" is 0 in JSON, which is the default
	zeroIsOff                        // 0 is meant, and negative in JSON, where 0 is the default
)

func durationOption(field *caddy.Duration, rule durationRule) option {
	takes, least := "<duration>", "of more than 0, such as 30s"
	switch rule {
	case offAllowed, offIsDefault:
		takes, least = "<duration> | off", "of more than 0, such as 30s, nor off"
	case zeroIsOff:
		least = "of 0 or more, such as 30s"
	case positive:
	}
	return option{takes, func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var word string
		if err := readWord(d, &word); err != nil {
			return err
		}
		duration, err := caddy.ParseDuration(word)
		switch {
		case word == "off" && rule == offAllowed, err == nil && duration == 0 && rule == zeroIsOff:
			*field = -1
		case word == "off" && rule == offIsDefault:
			*field = 0
		case err != nil || duration <= 0:
			return d.Errf("%s: %q is not a duration %s", name, word, least)
		default:
			*field = caddy.Duration(duration)
		}
		return nil
	}}
}

func bytesOption[T int | int64](field *T) option {
	return option{"<size>", func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var word string
		if err := readWord(d, &word); err != nil {
			return err
		}
		size, err := sizeOf(d, name, word)
		*field = T(size)
		return err
	}}
}

func sizeOf(d *caddyfile.Dispenser, name, word string) (int64, error) {
	size, err := humanize.ParseBytes(word)
	if err != nil || size == 0 || size > math.MaxInt32*1024 {
		return 0, d.Errf("%s: %q is not a size of more than 0, such as 1MiB", name, word)
	}
	return int64(size), nil
}
