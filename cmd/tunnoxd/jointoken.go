package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

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
