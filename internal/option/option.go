// Package option reads the options of Caddyfile blocks: a table for each block, with one line for each
// option. It knows the kinds of options, and what a module asks of its values.
package option

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// Option is one option of a Caddyfile block.
type Option struct {
	// Takes is the option's arguments as the documentation writes them. Error messages show it.
	Takes string
	// Place is where the option belongs, if it is not here. Then Read is not called.
	Place string
	// Read reads the option. The dispenser stands at the option's name.
	Read func(d *caddyfile.Dispenser) error
}

// ErrArguments is the error of [Option.Read] for too few or too many arguments. It shows none of them, since
// one may be a secret.
var ErrArguments = errors.New("too few arguments, or too many")

// Block reads the options of a block. Each may stand there once, but those in repeatable any number of times.
func Block(d *caddyfile.Dispenser, options map[string]Option, repeatable ...string) error {
	return make(Positions).Block(d, "", options, repeatable...)
}

// Positions are where options stand, by the names that [Error] has for them. The name "" is the directive.
type Positions map[string]caddyfile.Token

// Block reads the options of a block, as [Block] does, and notes where each stands. The prefix comes before
// their names: "<block>: " for a block within the block, "" for the outer one.
func (at Positions) Block(
	d *caddyfile.Dispenser, prefix string, options map[string]Option, repeatable ...string,
) error {
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		o, known := options[name]
		switch {
		case !known:
			return d.Errf("unknown option %q; the options here are %s", name, strings.Join(namesOf(options), ", "))
		case o.Place != "":
			return d.Errf("the option %q does not belong here, but in %s", name, o.Place)
		}
		if seen[name] && !slices.Contains(repeatable, name) {
			return d.Errf("option %q is there twice", name)
		}
		seen[name] = true
		at[prefix+name] = d.Token()
		wrong := ErrArguments
		if o.Takes != "" && d.CountRemainingArgs() == 0 {
			wrong = errEmpty
		}
		if err := o.Read(d); err == ErrArguments { //nolint:errorlint // it is returned bare
			return d.Errf("%s: %w; write: %s", name, wrong, strings.TrimSpace(name+" "+o.Takes))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// errEmpty is ErrArguments for an option with nothing behind it.
var errEmpty = errors.New("it is empty (and so is {$NAME} if no variable of that name is set)")

// namesOf returns the names of the options that belong where the table is for.
func namesOf(options map[string]Option) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if options[name].Place == "" {
			names = append(names, name)
		}
	}
	return names
}

// AddMisplaced adds options to a table that are often written there, but belong in another place.
func AddMisplaced(options map[string]Option, place string, names ...string) {
	for _, name := range names {
		if _, there := options[name]; !there {
			options[name] = Option{Place: place}
		}
	}
}

// Locate adds file and line to an error: those of the option that the error is about.
func (at Positions) Locate(err error) error {
	if err == nil {
		return nil
	}
	token := at[""]
	if wrong := (*Error)(nil); errors.As(err, &wrong) {
		if place, there := at[wrong.Option]; there {
			token = place
		}
	}
	d := caddyfile.NewDispenser([]caddyfile.Token{token})
	d.Next()
	return d.WrapErr(err)
}

// ReadWord reads an option's only argument.
func ReadWord(d *caddyfile.Dispenser, field *string) error {
	if !d.Args(field) || d.NextArg() {
		return ErrArguments
	}
	return nil
}

// Word is an option with one argument. The argument has to pass the checks.
func Word(takes string, field *string, checks ...func(word string) error) Option {
	return Option{Takes: takes, Read: func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if err := ReadWord(d, field); err != nil {
			return err
		}
		return checkWords(d, name, []string{*field}, checks)
	}}
}

// Words is an option with one or more arguments. Each has to pass the checks.
func Words(takes string, field *[]string, checks ...func(word string) error) Option {
	return Option{Takes: takes, Read: func(d *caddyfile.Dispenser) error {
		name := d.Val()
		words := d.RemainingArgs()
		if len(words) == 0 {
			return ErrArguments
		}
		*field = append(*field, words...)
		return checkWords(d, name, words, checks)
	}}
}

func checkWords(d *caddyfile.Dispenser, name string, words []string, checks []func(word string) error) error {
	for _, word := range words {
		for _, check := range checks {
			if err := check(word); err != nil {
				return d.Errf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// Flag is an option without arguments. It is true if it is there.
func Flag(field *bool) Option {
	return Option{Read: func(d *caddyfile.Dispenser) error {
		if d.NextArg() {
			return ErrArguments
		}
		*field = true
		return nil
	}}
}

// OnOff is an option that is on or off. The field stays nil if it is left out.
func OnOff(field **bool) Option {
	return Option{Takes: "on | off", Read: func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var word string
		if err := ReadWord(d, &word); err != nil {
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

// Number is an option with a whole number of at least least.
func Number(field *int, least int) Option {
	return Option{Takes: "<number>", Read: func(d *caddyfile.Dispenser) error {
		if err := ReadNumber(d, field, least); err != nil {
			return err
		}
		if d.NextArg() {
			return ErrArguments
		}
		return nil
	}}
}

// ReadNumber reads an option's next argument as a whole number of at least least.
func ReadNumber(d *caddyfile.Dispenser, field *int, least int) error {
	name := d.Val()
	if !d.NextArg() {
		return ErrArguments
	}
	n, err := strconv.Atoi(d.Val())
	if err != nil || n < least {
		return d.Errf("%s: %q is not a whole number, %d or more", name, d.Val(), least)
	}
	*field = n
	return nil
}

// DurationRule says what a duration may be besides more than 0, and what that is in JSON.
type DurationRule uint8

// The rules for durations. In JSON, 0 stands for the default.
const (
	Positive     DurationRule = iota // nothing else
	OffAllowed                       // "off", which is negative in JSON
	OffIsDefault                     // "off", which is 0 in JSON: off is the default
	ZeroIsOff                        // 0, which is negative in JSON
)

// Duration is an option with a duration.
func Duration(field *caddy.Duration, rule DurationRule) Option {
	takes, expected := "<duration>", "of more than 0, such as 30s"
	switch rule {
	case OffAllowed, OffIsDefault:
		takes, expected = "<duration> | off", "of more than 0, such as 30s, nor off"
	case ZeroIsOff:
		expected = "of 0 or more, such as 30s"
	case Positive:
	}
	return Option{Takes: takes, Read: func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var word string
		if err := ReadWord(d, &word); err != nil {
			return err
		}
		duration, err := caddy.ParseDuration(word)
		switch {
		case word == "off" && rule == OffAllowed, err == nil && duration == 0 && rule == ZeroIsOff:
			*field = -1
		case word == "off" && rule == OffIsDefault:
			*field = 0
		case err != nil || duration <= 0:
			return d.Errf("%s: %q is not a duration %s", name, word, expected)
		case duration < time.Millisecond:
			return d.Errf("%s: %q is less than a millisecond; give it more, such as 30s", name, word)
		default:
			*field = caddy.Duration(duration)
		}
		return nil
	}}
}

// Bytes is an option with a size in bytes, such as 1MiB.
func Bytes[T int | int64](field *T) Option {
	return Option{Takes: "<size>", Read: func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var word string
		if err := ReadWord(d, &word); err != nil {
			return err
		}
		size, err := ParseSize(d, name, word)
		*field = T(size)
		return err
	}}
}

// ParseSize returns the size in bytes that an argument of the option stands for.
func ParseSize(d *caddyfile.Dispenser, name, word string) (int64, error) {
	size, err := humanize.ParseBytes(word)
	if err != nil || size == 0 || size > math.MaxInt32*1024 {
		return 0, d.Errf("%s: %q is not a size of more than 0, such as 1MiB", name, word)
	}
	return int64(size), nil
}
