package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
)

const migrateLong = `Bring a database to the schema that this version knows: the Postgres of --postgres,
or without it the embedded database in --data. The schema only goes forward. The
command may be repeated, and ends with 0 when there is nothing to do. Servers of
another version must not be running.`

// migrate brings the schema of one database up to date.
func migrate(ctx context.Context, cfg *config, out io.Writer, _ *slog.Logger) (err error) {
	var steps int
	var what string
	if cfg.Postgres != "" {
		what = "the Postgres database"
		steps, err = postgres.Migrate(ctx, cfg.Postgres)
	} else {
		// A server makes its directory. Here a new directory would be a typing error
		// that looks like success.
		path, err := filepath.Abs(cfg.Data)
		if err != nil {
			return fmt.Errorf("--data: %w", err)
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("--data: there is no directory %s, so there is nothing to migrate", path)
		}
		var dir *dataDir
		if dir, err = openDataDir(cfg.Data); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, dir.close()) }()
		what = dir.file(logFile)
		steps, err = sqlite.Migrate(ctx, what)
	}
	if err != nil {
		return err
	}
	switch steps {
	case 0:
		_, err = fmt.Fprintf(out, "%s has the newest schema already\n", what)
	case 1:
		_, err = fmt.Fprintf(out, "%s: 1 step, now at the newest schema\n", what)
	default:
		_, err = fmt.Fprintf(out, "%s: %d steps, now at the newest schema\n", what, steps)
	}
	return err
}
