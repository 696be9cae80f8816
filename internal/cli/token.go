package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spf13/cobra"

	"github.com/caddy-sse/caddy-sse/internal/token"
)

func tokenCommand() *cobra.Command {
	t := &minter{}
	cmd := &cobra.Command{
		Use:   "token --secret-env NAME [--sub USER] [--subscribe TOPIC]... [--publish TOPIC]...",
		Short: "Makes a JSON Web Token for trying things out",
		Long: `
Makes a JSON Web Token, signed with HS256, for trying out a jwt block. The secret
comes from the environment or a file, since command lines can be seen by others.`,
		Example: `  export SSE_JWT_SECRET=$(openssl rand -hex 32)
  caddy sse token --secret-env SSE_JWT_SECRET --sub alice --subscribe 'orders/*' --publish @user/bob`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&t.secretEnv, "secret-env", "", "the environment variable that holds the secret")
	flags.StringVar(&t.secretFile, "secret-file", "", "the file that holds the secret")
	flags.StringVar(&t.subject, "sub", "", "the user")
	flags.StringArrayVar(&t.grants.Subscribe, "subscribe", nil, "a topic or pattern that may be subscribed to")
	flags.StringArrayVar(&t.grants.Publish, "publish", nil,
		"a topic, pattern, @client/<id>, @user/<name> or @broadcast that may be published to")
	flags.DurationVar(&t.ttl, "ttl", time.Hour, "how long the token is valid")
	flags.StringVar(&t.issuer, "issuer", "", "the issuer (default: none)")
	flags.StringVar(&t.audience, "audience", "", "the audience (default: none)")
	cmd.MarkFlagsOneRequired("secret-env", "secret-file")
	cmd.MarkFlagsMutuallyExclusive("secret-env", "secret-file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cmd.SilenceUsage = true
		token, err := t.mint(time.Now())
		if err != nil {
			return fmt.Errorf("no token: %w", err)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
		return err
	}
	return cmd
}

// minter makes tokens.
type minter struct {
	secretEnv, secretFile     string
	subject, issuer, audience string
	grants                    token.Grants
	ttl                       time.Duration
}

// mint makes a token that a jwt block with the same secret accepts.
func (t *minter) mint(now time.Time) (string, error) {
	secret, err := t.secret()
	if err != nil {
		return "", err
	}
	key, err := token.ReadKey(jose.HS256, string(secret))
	if err != nil {
		return "", err
	}
	if err := t.grants.Check(); err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: key}, nil)
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	claims := jwt.Claims{
		Subject:  t.subject,
		Issuer:   t.issuer,
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(t.ttl)),
	}
	if t.audience != "" {
		claims.Audience = jwt.Audience{t.audience}
	}
	return jwt.Signed(signer).Claims(claims).Claims(map[string]any{"sse": t.grants}).Serialize()
}

// secret returns the secret from the file or the environment.
func (t *minter) secret() ([]byte, error) {
	if t.secretFile != "" {
		secret, err := os.ReadFile(t.secretFile)
		return bytes.TrimRight(secret, "\r\n"), err
	}
	secret := os.Getenv(t.secretEnv)
	if secret == "" {
		return nil, errors.New("the environment variable " + t.secretEnv + " is not set")
	}
	return []byte(secret), nil
}
