package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/control"
	controlpostgres "github.com/tunnox-net/tunnox/control/postgres"
)

const joinTokenLong = `Print the join token, with which forwarders join the cluster. With --postgres it is
read from the database, with the API key of the control planes (TUNNOXD_API_KEY, or
else DATA/api-key); without it from DATA/join-token. Everybody who has the token can
become a node of the cluster: keep it in files that only the forwarders' account can
read. --out writes such a file, so that a forwarder gets the token and nothing else.`

const rotateJoinTokenLong = `Make a new join token and print it. The old token is refused at once. Nodes that have
joined stay in the cluster, and renew their certificates without a token. Control
planes know the new token at once; they write DATA/join-token again when they start.`

const nodeTokenLong = `Make a join token that is good for one node, and for an hour. A forwarder takes it
with --join-token-file as it takes the standing one, and needs no token afterwards as
long as its data directory stays and it runs at least once a day. So nothing of use
lies on its machine for somebody who takes it over. Tokens end with a rotation of the
join token, too.`

// passLimits are the limits of a token.
type passLimits struct {
	many    bool
	expires time.Duration
}

// makeNodeToken makes a token with limits.
func makeNodeToken(ctx context.Context, cfg *config, limits passLimits, to tokenTo) error {
	switch {
	case cfg.Postgres == "":
		return usageError{errors.New("--postgres is required: it has the cluster's secrets")}
	case limits.expires < 0 || limits.expires > 0 && limits.expires < time.Second:
		return usageError{errors.New("--expires must be 0 or a second or more")}
	case limits.many && limits.expires == 0:
		return usageError{errors.New("a token for any number of nodes and for ever is the one of tunnoxd join-token")}
	}
	pass := control.Pass{Once: !limits.many}
	if limits.expires > 0 {
		pass.Expires = time.Now().Add(limits.expires)
	}
	return withJoinTokens(ctx, cfg, func(tokens *control.JoinTokens) (control.JoinToken, error) { return tokens.Pass(ctx, pass) }, to)
}

// tokenTo writes a join token.
type tokenTo func(control.JoinToken) error

// tokenOut prints a token, or writes it to a file that only its owner can read.
func tokenOut(file string, out io.Writer) tokenTo {
	return func(token control.JoinToken) error {
		if file != "" {
			return token.Save(file)
		}
		_, err := fmt.Fprintln(out, token.Text())
		return err
	}
}

// joinToken gives the cluster's join token.
func joinToken(ctx context.Context, cfg *config, to tokenTo) error {
	if cfg.Postgres == "" {
		path, err := filepath.Abs(filepath.Join(cfg.Data, "join-token"))
		if err != nil {
			return fmt.Errorf("--data: %w", err)
		}
		token, err := control.LoadJoinToken(path)
		if err != nil {
			return err
		}
		return to(token)
	}
	return withJoinTokens(ctx, cfg, func(tokens *control.JoinTokens) (control.JoinToken, error) { return tokens.Current(ctx) }, to)
}

// rotateJoinToken replaces the join token.
func rotateJoinToken(ctx context.Context, cfg *config, to tokenTo) error {
	if cfg.Postgres == "" {
		return usageError{errors.New("--postgres is required: it has the cluster's secrets")}
	}
	return withJoinTokens(ctx, cfg, func(tokens *control.JoinTokens) (control.JoinToken, error) { return tokens.Rotate(ctx) }, to)
}

// withJoinTokens opens the cluster's secrets while control planes may be running. It
// locks no data directory and starts nothing.
func withJoinTokens(ctx context.Context, cfg *config, get func(*control.JoinTokens) (control.JoinToken, error), to tokenTo) error {
	shared, vault, key, err := openVault(ctx, cfg)
	if err != nil {
		return err
	}
	defer shared.Close()
	authority, err := control.OpenAuthority(ctx, vault, control.AuthorityOptions{})
	if err != nil {
		return otherKey(err, key)
	}
	tokens, err := control.OpenJoinTokens(ctx, vault, authority)
	if err != nil {
		return otherKey(err, key)
	}
	token, err := get(tokens)
	if err != nil {
		return err
	}
	return to(token)
}

// openVault opens the cluster's secrets; who calls it closes the database.
func openVault(ctx context.Context, cfg *config) (*controlpostgres.Cluster, control.Vault, apiKey, error) {
	dir, err := filepath.Abs(cfg.Data)
	if err != nil {
		return nil, nil, apiKey{}, fmt.Errorf("--data: %w", err)
	}
	key, ok, err := readAPIKey(&dataDir{path: dir}, cfg.apiKey)
	if err != nil {
		return nil, nil, key, err
	}
	if !ok {
		return nil, nil, key, fmt.Errorf("there is no API key to open the cluster's secrets with: set TUNNOXD_API_KEY, or --data to the data directory of a control plane (%s has no api-key)", dir)
	}
	shared, err := controlpostgres.Open(ctx, cfg.Postgres)
	if err != nil {
		return nil, nil, key, err
	}
	if some, err := shared.HasSecrets(ctx); err != nil || !some {
		shared.Close()
		return nil, nil, key, errors.Join(err, errors.New("this database has no cluster's secrets: start a control plane first"))
	}
	return shared, vaultOf(shared, key, cfg.apiKeyBefore), key, nil
}

// recordKeyBeside gives the key for records to a command beside running servers.
func recordKeyBeside(ctx context.Context, cfg *config) (*attest.Key, error) {
	shared, vault, key, err := openVault(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer shared.Close()
	return recordKeyOf(ctx, vault, key)
}
