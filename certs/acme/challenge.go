package acme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// ErrNoChallenge: the authority asks nothing about this host now.
var ErrNoChallenge = errors.New("acme: there is no challenge for this host")

// Challenge is what the authority wants to see at a host.
type Challenge struct {
	Token         string // the last element of the path of HTTP-01
	Authorization string // the content of HTTP-01; TLS-ALPN-01 has its hash
}

// challenges stores what is to be shown to the authority, for all who serve visitors.
// It is the solver of both kinds: a host has one challenge at a time.
type challenges struct {
	storage certmagic.Storage
	prefix  string
}

// Present implements acmez.Solver.
func (c *challenges) Present(ctx context.Context, challenge acme.Challenge) error {
	text, err := json.Marshal(Challenge{Token: challenge.Token, Authorization: challenge.KeyAuthorization})
	if err != nil {
		return fmt.Errorf("store a challenge: %w", err)
	}
	return c.storage.Store(ctx, c.prefix+challenge.Identifier.Value, text)
}

// CleanUp implements acmez.Solver. It works after the order's time, too.
func (c *challenges) CleanUp(ctx context.Context, challenge acme.Challenge) error {
	return c.storage.Delete(context.WithoutCancel(ctx), c.prefix+challenge.Identifier.Value)
}

// Challenge gives what the authority wants to see at a host now, whichever keeper has
// made the order, or ErrNoChallenge.
func (k *Keeper) Challenge(ctx context.Context, host string) (Challenge, error) {
	var c Challenge
	text, err := k.config.Storage.Load(ctx, k.issuer.challenges.prefix+host)
	if errors.Is(err, fs.ErrNotExist) {
		return c, ErrNoChallenge
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return c, fmt.Errorf("load the challenge of %s: %w", host, err)
	}
	return c, nil
}
