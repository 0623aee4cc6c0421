package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
)

// openToRead opens the log of --postgres, or the log in --data, while servers may be
// running.
func openToRead(ctx context.Context, cfg *config) (provable, error) {
	if cfg.Postgres != "" {
		return explainSchema(postgres.Open(ctx, cfg.Postgres, postgres.Options{MaxConns: 4}))
	}
	path, err := existing(cfg.Data)
	if err != nil {
		return nil, err
	}
	return explainSchema(sqlite.OpenReadOnly(ctx, filepath.Join(path, logFile)))
}

// explainSchema adds what to do about a schema of another version.
func explainSchema[S provable](s S, err error) (provable, error) {
	if errors.Is(err, eventstore.ErrSchema) {
		return nil, fmt.Errorf("%w\n  if the schema is older: make a backup, stop the servers, and run tunnoxd migrate", err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// existing gives the data directory, which must exist: a new one would be a typing
// error that looks like an empty log.
func existing(data string) (string, error) {
	path, err := filepath.Abs(data)
	if err != nil {
		return "", fmt.Errorf("--data: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("--data: there is no directory %s", path)
	}
	return path, nil
}
