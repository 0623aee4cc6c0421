// Package migrations holds the schemas of the databases, in two dialects, and brings a
// database to the newest one.
//
// Its duty: [Postgres] and [SQLite] apply the missing steps, one process at a time.
// [PostgresVersion] and [SQLiteVersion] read the version of a database's schema and
// change nothing. [Newest] gives the version that this program knows.
//
// Its limit: it only goes forward. To go back, restore a backup of the database.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// table is where goose stores the applied steps.
const table = "tunnox_schema"

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// Dialect is one of the two kinds of databases, and the name of its folder here.
type Dialect string

// The dialects.
const (
	DialectPostgres Dialect = "postgres"
	DialectSQLite   Dialect = "sqlite"
)

// Postgres brings a database to the newest schema and gives the number of steps.
// Several processes may call it at once: one works, the others wait.
func Postgres(ctx context.Context, db *sql.DB) (applied int, err error) {
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return 0, fmt.Errorf("migrate postgres: %w", err)
	}
	return up(ctx, DialectPostgres, db, goose.WithSessionLocker(locker))
}

// SQLite brings a database to the newest schema and gives the number of steps. The
// caller makes sure that no other process uses the file.
func SQLite(ctx context.Context, db *sql.DB) (applied int, err error) {
	return up(ctx, DialectSQLite, db)
}

func up(ctx context.Context, d Dialect, db *sql.DB, options ...goose.ProviderOption) (int, error) {
	folder, err := fs.Sub(files, string(d))
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", d, err)
	}
	dialect := goose.DialectPostgres
	if d == DialectSQLite {
		dialect = goose.DialectSQLite3
	}
	// The provider is not closed: that would close the caller's db.
	p, err := goose.NewProvider(dialect, db, folder,
		append(options, goose.WithTableName(table), goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", d, err)
	}
	results, err := p.Up(ctx)
	if err != nil {
		return len(results), fmt.Errorf("migrate %s: %w", d, err)
	}
	return len(results), nil
}

// Newest gives the version of the schema that this program knows.
func Newest(d Dialect) int64 {
	entries, err := files.ReadDir(string(d))
	if err != nil {
		panic(err) // an unknown dialect; the folders are embedded
	}
	var newest int64
	for _, e := range entries {
		version, err := goose.NumericComponent(e.Name())
		if err != nil {
			panic(err)
		}
		newest = max(newest, version)
	}
	return newest
}

// PostgresVersion gives the version of a database's schema, 0 for none. It changes
// nothing, so a role that may only read can call it.
func PostgresVersion(ctx context.Context, db *sql.DB) (int64, error) {
	return version(ctx, db, `SELECT to_regclass('`+table+`') IS NOT NULL`)
}

// SQLiteVersion gives the version of a database's schema, 0 for none.
func SQLiteVersion(ctx context.Context, db *sql.DB) (int64, error) {
	return version(ctx, db, `SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '`+table+`')`)
}

func version(ctx context.Context, db *sql.DB, exists string) (int64, error) {
	var there bool
	if err := db.QueryRowContext(ctx, exists).Scan(&there); err != nil {
		return 0, fmt.Errorf("look for the table of schema versions: %w", err)
	}
	if !there {
		return 0, nil
	}
	var v int64
	err := db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+table+` WHERE is_applied`).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the schema version: %w", err)
	}
	return v, nil
}
