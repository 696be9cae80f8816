package sse

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/go-redis/v9"
)

// redisURLs are the URLs of a broker, read one by one. Every server is spoken to as the first URL says, so the
// others must say the same, but for the address. Errors show no URL: it may hold a password.
type redisURLs struct {
	first     *redis.Options // what the first URL says; nil before it is read
	scheme    string         // that of the first URL
	number    int            // where the first URL stands: 1, or later if those before it are placeholders
	addresses []string
}

// add reads a URL, which is the one with this number in the config.
func (u *redisURLs) add(number int, text string) error {
	options, scheme, err := parseRedisURL(text)
	if err != nil {
		return fmt.Errorf("URL %d %w", number, err)
	}
	u.addresses = append(u.addresses, options.Addr)
	if u.first == nil {
		u.first, u.scheme, u.number = options, scheme, number
		return nil
	}
	for _, part := range []struct {
		name    string
		differs bool
	}{
		{"scheme", scheme != u.scheme},
		{"user", options.Username != u.first.Username},
		{"password", options.Password != u.first.Password},
		{"database", options.DB != u.first.DB},
	} {
		if part.differs {
			return fmt.Errorf("URL %d has another %s than URL %d; all URLs must have the same scheme, user, "+
				"password and database", number, part.name, u.number)
		}
	}
	return nil
}

// parseRedisURL reads a URL of Redis.
func parseRedisURL(text string) (options *redis.Options, scheme string, err error) {
	options, err = redis.ParseURL(text)
	if err != nil {
		return nil, "", errors.New("can't be read; it should be like redis://user:password@host:6379/0, " +
			"with characters such as {, #, / and @ in a password written as %7B, %23, %2F and %40")
	}
	parsed, err := url.Parse(text)
	if err != nil {
		return nil, "", err
	}
	if parsed.Fragment != "" { // a # in a password would end the URL, and what is before it be the address
		return nil, "", errors.New("has a # in it; in a user or a password write it as %23")
	}
	return options, parsed.Scheme, nil
}

// fillRedisURL replaces the placeholders of a URL.
func fillRedisURL(text string) (string, error) {
	filled, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil { // it quotes what stands in the braces, which may be a part of a password
		return "", errors.New("has a placeholder that is empty or not set; braces of a password are written as " +
			"%7B and %7D")
	}
	return filled, nil
}
