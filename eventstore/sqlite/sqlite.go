// Package sqlite keeps the log in a file, for the embedded form.
//
// Its duty is the contract of [eventstore.Store]. One connection writes, in immediate
// transactions, so appends are in order by construction; other connections read at the
// same time (WAL). A commit is flushed before it is acknowledged (synchronous FULL;
// NORMAL would lose the end of the log when the machine fails).
//
// Its limit: one process at a time. A lock file enforces this.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	driver "modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite/internal/queries"
	"github.com/tunnox-net/tunnox/migrations"
)

// readers is how many connections read at once.
const readers = 4

// Store is the log in a file.
type Store struct {
	path   string
	lock   *lockFile // nil when readOnly
	writer *sql.DB   // one connection
	reader *sql.DB
	write  *queries.Queries
	read   *queries.Queries
	signal eventstore.Signal
	recent eventstore.Recent

	readOnly bool // another process may be writing

	closing sync.Once
	done    chan struct{} // closed by Close

	writing  chan struct{}   // holds one token; its owner may use writer
	position domain.Position // guarded by writing
	recorded time.Time       // of the last record; guarded by writing
	tried    int             // what CanAppend wrote last; guarded by writing

	idsMu sync.Mutex
	ids   map[domain.Sequence]int64 // guarded by idsMu; the last id drawn
}

// Migrate makes the file if there is none, brings it to the schema that this program
// knows, and gives the number of steps. The file must not be in use.
func Migrate(ctx context.Context, path string) (applied int, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, fmt.Errorf("migrate the log: %w", err)
	}
	lock, err := lockPath(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	db, err := open(path, writerPragmas, 1)
	if err != nil {
		return 0, fmt.Errorf("migrate the log: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return migrations.SQLite(ctx, db)
}

// Open opens the log. It gives [eventstore.ErrSchema] if the file's schema is older or
// newer than this program's, or if there is none yet: then call [Migrate] first.
func Open(ctx context.Context, path string) (_ *Store, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	lock, err := lockPath(path)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, lock: lock, done: make(chan struct{}), writing: make(chan struct{}, 1), ids: map[domain.Sequence]int64{}}
	s.writing <- struct{}{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.writer, err = open(path, writerPragmas, 1); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if err := checkSchema(ctx, s.writer); err != nil {
		return nil, err
	}
	if s.reader, err = open(path, readerPragmas, readers); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if s.write, err = queries.Prepare(ctx, s.writer); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if s.read, err = queries.Prepare(ctx, s.reader); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if err := s.count(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

var errReadOnly = errors.New("eventstore: the log was opened for reading only")

// OpenReadOnly opens the log while another process may write to it, for backups and
// audits. It takes no lock: readers of the file disturb nobody.
func OpenReadOnly(ctx context.Context, path string) (_ *Store, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	s := &Store{readOnly: true, done: make(chan struct{}), ids: map[domain.Sequence]int64{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.reader, err = open(path, readerPragmas, readers); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if err := checkSchema(ctx, s.reader); err != nil {
		return nil, err
	}
	if s.read, err = queries.Prepare(ctx, s.reader); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return s, s.count(ctx)
}

var (
	writerPragmas = []string{"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)", "wal_autocheckpoint(4000)", "cache_size(-16000)", "secure_delete(ON)"}
	readerPragmas = []string{"query_only(1)", "busy_timeout(5000)", "cache_size(-16000)", "mmap_size(268435456)"}
)

func open(path string, pragmas []string, conns int) (*sql.DB, error) {
	q := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func checkSchema(ctx context.Context, db *sql.DB) error {
	have, err := migrations.SQLiteVersion(ctx, db)
	if err != nil {
		return failure(ctx, "open the log", err)
	}
	want := migrations.Newest(migrations.DialectSQLite)
	switch {
	case have < want:
		return fmt.Errorf("%w: the file has version %d, older than %d: run the migration", eventstore.ErrSchema, have, want)
	case have > want:
		return fmt.Errorf("%w: the file has version %d, newer than %d: update this program", eventstore.ErrSchema, have, want)
	}
	return nil
}

// count reads the end of the log and of the ids from the log. An id that was drawn
// before a restart, and that no append used, is drawn again: nobody has seen it.
func (s *Store) count(ctx context.Context) error {
	p, err := s.read.Position(ctx)
	if err != nil {
		return failure(ctx, "open the log", err)
	}
	s.position = domain.Position(p)
	var micros int64
	switch err := s.reader.QueryRowContext(ctx, "SELECT recorded_at FROM records ORDER BY position DESC LIMIT 1").Scan(&micros); {
	case err == nil:
		s.recorded = time.UnixMicro(micros).UTC()
	case !errors.Is(err, sql.ErrNoRows):
		return failure(ctx, "open the log", err)
	}
	s.signal.Raise(s.position)
	s.idsMu.Lock()
	defer s.idsMu.Unlock()
	for sequence, category := range map[domain.Sequence]string{
		domain.SequenceUser: domain.CategoryUser, domain.SequenceClient: domain.CategoryClient, domain.SequenceMapping: domain.CategoryMapping,
	} {
		last, err := s.read.LastNumber(ctx, category+"-")
		if err != nil {
			return failure(ctx, "open the log", err)
		}
		// Anonymous clients have numbers below the sequence's first number.
		s.ids[sequence] = max(last, sequence.First()-1)
	}
	return nil
}

// Close implements [eventstore.Store].
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		close(s.done)
		if !s.readOnly {
			<-s.writing // waits for a running append; the token never comes back
		}
		for _, q := range []*queries.Queries{s.read, s.write} {
			if q != nil {
				err = errors.Join(err, q.Close())
			}
		}
		// Close the writer last: the last connection that closes checkpoints the WAL,
		// and a reader may not do that.
		for _, db := range []*sql.DB{s.reader, s.writer} {
			if db != nil {
				err = errors.Join(err, db.Close())
			}
		}
		if s.lock != nil {
			err = errors.Join(err, s.lock.release())
		}
	})
	return err
}

// NextID implements [eventstore.Store].
func (s *Store) NextID(ctx context.Context, sequence domain.Sequence) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.idsMu.Lock()
	defer s.idsMu.Unlock()
	if _, ok := s.ids[sequence]; !ok {
		return 0, fmt.Errorf("eventstore: unknown sequence %q", sequence)
	}
	s.ids[sequence]++
	return s.ids[sequence], nil
}

// failure adds the operation to an error of the database.
func failure(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	if e, ok := errors.AsType[*driver.Error](err); ok {
		switch e.Code() & 0xff { // the primary code of an extended one
		case sqlitelib.SQLITE_BUSY, sqlitelib.SQLITE_LOCKED, sqlitelib.SQLITE_IOERR, sqlitelib.SQLITE_FULL,
			sqlitelib.SQLITE_CANTOPEN, sqlitelib.SQLITE_NOMEM, sqlitelib.SQLITE_READONLY, sqlitelib.SQLITE_INTERRUPT:
			return fmt.Errorf("%w: %s: %w", eventstore.ErrUnavailable, doing, err)
		}
		return fmt.Errorf("%s: %w", doing, err)
	}
	if errors.Is(err, sql.ErrConnDone) || strings.Contains(err.Error(), " is closed") {
		return fmt.Errorf("%w: %s: %w", eventstore.ErrUnavailable, doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
