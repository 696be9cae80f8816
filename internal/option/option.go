package option

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

// Option is one option of a Caddyfile block.
type Option struct {
	Takes string                             // its arguments as the documentation writes them, for error messages
	Read  func(d *caddyfile.Dispenser) error // from its name on
}

// ErrArguments is what reading an option returns for too few arguments or too many. It names none of
// them, lest it name a secret.
var ErrArguments = errors.New("too few arguments, or too many")

// Block reads the options of a block, each at most once but those in repeatable.
func Block(d *caddyfile.Dispenser, options map[string]Option, repeatable ...string) error {
	return make(Positions).Block(d, "", options, repeatable...)
}

// Positions are where options stand, by the names that an optionError has for them; "" is the whole.
type Positions map[string]caddyfile.Token

// Locate adds to an error where its option stands.
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

// Block is readBlock that notes where the options stand, with the block before their names.
func (at Positions) Block(d *caddyfile.Dispenser, block string, options map[string]Option, repeatable ...string) error {
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
		if err := o.Read(d); err == ErrArguments { //nolint:errorlint // it is returned bare
			return d.Errf("%s: %w; write: %s", name, err, strings.TrimSpace(name+" "+o.Takes))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// ReadWord reads the one argument of an option.
func ReadWord(d *caddyfile.Dispenser, field *string) error {
	if !d.Args(field) || d.NextArg() {
		return ErrArguments
	}
	return nil
}

// Word is an option of one argument, which has to pass the checks.
func Word(takes string, field *string, checks ...func(word string) error) Option {
	return Option{takes, func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if err := ReadWord(d, field); err != nil {
			return err
		}
		return check(d, name, []string{*field}, checks)
	}}
}

// Words is an option of one or more arguments, each of which has to pass the checks.
func Words(takes string, field *[]string, checks ...func(word string) error) Option {
	return Option{takes, func(d *caddyfile.Dispenser) error {
		name := d.Val()
		words := d.RemainingArgs()
		if len(words) == 0 {
			return ErrArguments
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

// Flag is an option without arguments.
func Flag(field *bool) Option {
	return Option{"", func(d *caddyfile.Dispenser) error {
		if d.NextArg() {
			return ErrArguments
		}
		*field = true
		return nil
	}}
}

func OnOff(field **bool) Option {
	return Option{"on | off", func(d *caddyfile.Dispenser) error {
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

func Number(field *int, least int) Option {
	return Option{"<number>", func(d *caddyfile.Dispenser) error {
		if err := NumberOf(d, field, least); err != nil {
			return err
		}
		if d.NextArg() {
			return ErrArguments
		}
		return nil
	}}
}

// NumberOf reads an option's next argument as a whole number.
func NumberOf(d *caddyfile.Dispenser, field *int, least int) error {
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

// How an option of a duration takes what is no duration, and zero.
type durationRule uint8

const (
	Positive     durationRule = iota // neither: it must be more than 0
	OffAllowed                       // "off" is a negative duration in JSON
	OffIsDefault                     // "off" is 0 in JSON, which is the default
	ZeroIsOff                        // 0 is meant, and negative in JSON, where 0 is the default
)

func Duration(field *caddy.Duration, rule durationRule) Option {
	takes, least := "<duration>", "of more than 0, such as 30s"
	switch rule {
	case OffAllowed, OffIsDefault:
		takes, least = "<duration> | off", "of more than 0, such as 30s, nor off"
	case ZeroIsOff:
		least = "of 0 or more, such as 30s"
	case Positive:
	}
	return Option{takes, func(d *caddyfile.Dispenser) error {
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
			return d.Errf("%s: %q is not a duration %s", name, word, least)
		default:
			*field = caddy.Duration(duration)
		}
		return nil
	}}
}

func Bytes[T int | int64](field *T) Option {
	return Option{"<size>", func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var word string
		if err := ReadWord(d, &word); err != nil {
			return err
		}
		size, err := SizeOf(d, name, word)
		*field = T(size)
		return err
	}}
}

func SizeOf(d *caddyfile.Dispenser, name, word string) (int64, error) {
	size, err := humanize.ParseBytes(word)
	if err != nil || size == 0 || size > math.MaxInt32*1024 {
		return 0, d.Errf("%s: %q is not a size of more than 0, such as 1MiB", name, word)
	}
	return int64(size), nil
}
