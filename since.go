package sse

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/hub"
)

// since is where a client begins that brings no ID, as it was asked for. The zero value is now.
type since struct {
	hub.Since
	age time.Duration // before the request, instead of Since.Time; 0 is none
}

// at returns what it means to a request of that moment.
func (s since) at(now time.Time) hub.Since {
	if s.age > 0 {
		s.Time = now.Add(-s.age)
	}
	return s.Since
}

// maxUnixSeconds is the year 5138. More is taken for milliseconds, which pages have at hand.
const maxUnixSeconds = 100_000_000_000

var errSince = errors.New("since is now, all, latest, a number of messages such as -50, a duration such as 10m or 2d, " +
	"a time such as 2026-11-30T08:00:00Z, or a Unix time in seconds")

// parseSince reads what stands for it in a query or a config.
func parseSince(text string) (s since, err error) {
	wrong := func(why string) (since, error) { return since{}, fmt.Errorf("%q %s; %w", text, why, errSince) }
	switch text {
	case "now":
		return s, nil
	case "all":
		s.All = true
		return s, nil
	case "latest":
		s.Latest = true
		return s, nil
	}
	if number, err := strconv.ParseInt(text, 10, 64); err == nil {
		switch {
		case strings.HasPrefix(text, "-") && number < 0:
			s.Newest = int(min(-number, 1<<31-1))
			return s, nil
		case strings.Trim(text, "0123456789") != "":
			return wrong("is no place to begin at")
		case number > maxUnixSeconds:
			return wrong("is not in seconds")
		}
		s.Time = time.Unix(number, 0)
		return s, nil
	}
	if age, err := caddy.ParseDuration(text); err == nil {
		if age <= 0 {
			return wrong("is not in the past")
		}
		s.age = age
		return s, nil
	}
	// In a query that was not escaped, the plus of a time zone has become a space.
	if t, err := time.Parse(time.RFC3339, strings.Replace(text, " ", "+", 1)); err == nil {
		s.Time = t
		return s, nil
	}
	return wrong("is no place to begin at")
}

// checkSince says what is wrong with the option.
func checkSince(text string) error {
	_, err := parseSince(text)
	return err
}
