package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/migrations"
	"github.com/tunnox-net/tunnox/primary"
)

// oldestPostgres and oldestRedis are the oldest versions that Tunnox works with.
const (
	oldestPostgres = 15
	oldestRedis    = 7
)

// postgres checks the database of the log.
func (e *exam) postgres(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*examLimit)
	defer cancel()
	db, err := primary.DB(e.cfg.Postgres)
	if err != nil {
		e.report.Fail("postgres", "correct --postgres", "%v", err)
		return
	}
	defer db.Close()
	var version int
	var text, zone string
	var now time.Time
	begun := time.Now()
	err = db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('TimeZone'), clock_timestamp()`).Scan(&version, &text, &zone, &now)
	if err != nil {
		e.report.Fail("postgres", "see whether Postgres runs there, takes connections from this machine, and knows this user and password", "%s", oneSentence(err))
		return
	}
	took := time.Since(begun)
	if version/10000 < oldestPostgres {
		e.report.Fail("postgres", fmt.Sprintf("update it to version %d or newer", oldestPostgres), "version %s", text)
	} else {
		e.report.Well("postgres", "version %s, answers in %v", text, took.Round(100*time.Microsecond))
	}
	e.postgresClock(now.Sub(begun.Add(took/2)), zone)
	if err := writes(ctx, db); err != nil {
		e.report.Fail("postgres writes", "name the primary: a standby, a full disk and a read-only database take no commands", "%s", oneSentence(err))
	} else {
		e.report.Well("postgres writes", "taken")
	}
	at, err := migrations.PostgresVersion(ctx, db)
	e.schema(at, migrations.Newest(migrations.DialectPostgres), err)
}

// writes writes a row of its own, to the disk, and removes it.
func writes(ctx context.Context, db *sql.DB) (err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreDone(tx.Rollback())) }()
	for _, statement := range []string{`CREATE TEMPORARY TABLE tunnox_doctor (n int) ON COMMIT DROP`, `INSERT INTO tunnox_doctor VALUES (1)`, `SELECT pg_current_xact_id()`} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

func (e *exam) postgresClock(ahead time.Duration, zone string) {
	text := fmt.Sprintf("differs by %v; times are stored without regard to its time zone, %s", ahead.Abs().Round(time.Millisecond), zone)
	if ahead.Abs() > 2*time.Second {
		e.report.Note("postgres clock", "switch time synchronisation on, here and at the database", "%s", text)
		return
	}
	e.report.Well("postgres clock", "%s", text)
}

// schema tells whether the schema fits this program.
func (e *exam) schema(at, newest int64, err error) {
	switch {
	case err != nil:
		e.report.Fail("schema", "let this user read the tables of the database", "%s", oneSentence(err))
	case at == 0:
		e.report.Well("schema", "the database is empty; the first start makes it")
	case at < newest:
		e.report.Fail("schema", "make a backup, stop the servers, and run tunnoxd migrate", "version %d, this program needs %d", at, newest)
	case at > newest:
		e.report.Fail("schema", "update this program: a newer one has migrated the database", "version %d, this program knows %d", at, newest)
	default:
		e.report.Well("schema", "version %d, the newest", at)
	}
}

// embedded checks the log in the data directory.
func (e *exam) embedded(ctx context.Context) {
	file := filepath.Join(e.cfg.Data, logFile)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		e.report.Well("log", "there is none yet; the first start makes it")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*examLimit)
	defer cancel()
	store, err := explainSchema(sqlite.OpenReadOnly(ctx, file))
	if err != nil {
		e.report.Fail("log", "restore a backup, or migrate: tunnoxd migrate --data "+e.cfg.Data, "%s: %s", file, oneSentence(err))
		return
	}
	head, err := store.Head(ctx)
	if err = errors.Join(err, store.Close()); err != nil {
		e.report.Fail("log", "restore a backup", "%s: %s", file, oneSentence(err))
		return
	}
	e.report.Well("log", "%s, %d records, schema %d", file, head.Position, migrations.Newest(migrations.DialectSQLite))
}

// redis checks the server of read models, feed and presence.
func (e *exam) redis(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*examLimit)
	defer cancel()
	options, err := e.cfg.redisOptions()
	if err != nil {
		e.report.Fail("redis", "correct --redis or --redis-file", "%s", oneSentence(err))
		return
	}
	options.MaxRetries, options.ContextTimeoutEnabled = -1, true
	redis.SetLogger(redisLog{quiet})
	guard := guardRedis(options, quiet)
	defer guard.probe.Close()
	begun := time.Now()
	err = guard.takesWrites(ctx)
	took := time.Since(begun)
	switch {
	case errors.Is(err, errRefuses):
		e.report.Fail("redis", "name the primary; give it memory (maxmemory) and a disk that takes writes, or set save \"\"", "%s", oneSentence(err))
		return
	case err != nil:
		e.report.Fail("redis", "see whether Redis runs there, takes connections from this machine, and knows this user and password", "%s", oneSentence(err))
		return
	}
	version := infoOf(ctx, guard.probe, "server")["redis_version"]
	major, _, _ := strings.Cut(version, ".")
	if version != "" && len(major) == 1 && major < fmt.Sprint(oldestRedis) {
		e.report.Fail("redis", fmt.Sprintf("update it to version %d or newer", oldestRedis), "version %s", version)
	} else {
		e.report.Well("redis", "version %s, takes writes, answers in %v", orUnknown(version), took.Round(100*time.Microsecond))
	}
	if err := guard.keepsKeys(ctx); err != nil {
		e.report.Fail("redis policy", "redis-cli config set maxmemory-policy noeviction; a read model with evicted rows is wrong", "%v", err)
		return
	}
	memory := infoOf(ctx, guard.probe, "memory")
	switch {
	case memory["maxmemory_policy"] == "":
		e.report.Well("redis policy", "this user may not ask; it must be noeviction")
	case memory["maxmemory_policy"] != "noeviction":
		e.report.Note("redis policy", "set it to noeviction before a limit of memory is set", "%s, without a limit of memory", memory["maxmemory_policy"])
	default:
		e.report.Well("redis policy", "noeviction")
	}
}

// infoOf reads a section of INFO; nothing where the user may not ask.
func infoOf(ctx context.Context, client *redis.Client, section string) map[string]string {
	said := map[string]string{}
	text, err := client.Info(ctx, section).Result()
	if err != nil {
		return said
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		said[name] = value
	}
	return said
}

func orUnknown(text string) string {
	if text == "" {
		return "unknown"
	}
	return text
}

// oneSentence is an error without line breaks.
func oneSentence(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
