package audit_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/mod/sumdb/note"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

// provable is a store with a tree, as both stores are.
type provable interface {
	eventstore.PersonalStore
	eventstore.Archive
	audit.Log
}

// world is a log, the key that signs it, and what the owner of the database can do to
// it.
type world struct {
	t     testing.TB
	store provable
	key   *audit.Key
	raw   *sql.DB // without the store, with all rights
	pg    bool
	n     int // records appended
}

func newWorld(t testing.TB, pg bool) *world {
	t.Helper()
	secret, err := audit.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	store, raw := openStore(t, pg)
	return &world{t: t, store: store, key: key, raw: raw, pg: pg}
}

func openStore(t testing.TB, pg bool) (provable, *sql.DB) {
	t.Helper()
	ctx := context.Background()
	driver, source := "sqlite", filepath.Join(t.TempDir(), "log.db")
	migrate, open := sqlite.Migrate, func() (provable, error) { return sqlite.Open(ctx, source) }
	if pg {
		driver, source = "pgx", services.Postgres(t)
		migrate, open = postgres.Migrate, func() (provable, error) { return postgres.Open(ctx, source, postgres.Options{MaxConns: 3}) }
	}
	if _, err := migrate(ctx, source); err != nil {
		t.Fatal(err)
	}
	store, err := open()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(raw.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return store, raw
}

// onEach runs a test over both stores.
func onEach(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, newWorld(t, false)) })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, newWorld(t, true)) })
}

// onEachMany runs tests over both stores, in one Postgres database one after the other:
// creating a database takes longer than a test.
func onEachMany(t *testing.T, tests map[string]func(*testing.T, *world)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		for name, test := range tests {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t, newWorld(t, false)) })
		}
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, true)
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				one := *w
				one.t = t
				test(t, &one)
				for _, table := range []string{"records", "seals", "streams", "claims", "keys"} {
					one.tamper("DELETE FROM es." + table)
				}
				one.tamper("UPDATE es.head SET position = 0")
			})
		}
	})
}

// grow appends records to three event streams, with claims and keys.
func (w *world) grow(records int) {
	w.t.Helper()
	var batch []eventstore.Append
	for range records {
		stream := domain.StreamID(fmt.Sprintf("mapping-%d", 1001+w.n%3))
		w.n++
		batch = append(batch, eventstore.Append{Account: 7, Key: fmt.Sprint("key-", w.n), KeyScope: "user:7", Subject: stream,
			Meta:    domain.Metadata{At: time.Unix(int64(w.n), 5).UTC(), Actor: "user:7", Command: "test"},
			Streams: []eventstore.StreamAppend{{Stream: stream, Expected: eventstore.Any}},
			Events:  []eventstore.NewEvent{{Name: "happened", Schema: 1, Data: fmt.Appendf(nil, `{"n":%d, "s":"é\u0000"}`, w.n)}},
			Claims:  []domain.Claim{{Scope: "name", Value: fmt.Sprint("n", w.n), Owner: stream}}})
	}
	for len(batch) > 0 {
		n := min(500, len(batch))
		results, err := w.store.AppendBatch(w.ctx(), batch[:n])
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		batch = batch[n:]
	}
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) sealer(o audit.SealerOptions) *audit.Sealer {
	w.t.Helper()
	if o.Key == nil {
		o.Key = w.key
	}
	s, err := audit.NewSealer(w.store, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// seal signs all records.
func (w *world) seal() audit.Checkpoint {
	w.t.Helper()
	c, err := w.sealer(audit.SealerOptions{}).Seal(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) keys() []note.Verifier {
	w.t.Helper()
	keys, err := audit.ParseVerifiers(w.key.VerifierKey())
	if err != nil {
		w.t.Fatal(err)
	}
	return keys
}

// export gives the log as a file.
func (w *world) export() []byte {
	w.t.Helper()
	var file bytes.Buffer
	out := audit.NewWriter(&file, time.Unix(0, 0), []string{w.key.VerifierKey()})
	if err := w.store.Archive(w.ctx(), out.Put); err != nil {
		w.t.Fatal(err)
	}
	if err := out.End(); err != nil {
		w.t.Fatal(err)
	}
	return file.Bytes()
}

// verify checks the store directly.
func (w *world) verify(anchors ...audit.Checkpoint) audit.Report {
	w.t.Helper()
	v := audit.NewVerifier(w.keys(), anchors...)
	err := w.store.Archive(w.ctx(), v.Add)
	if _, isFinding := errors.AsType[*audit.Finding](err); err != nil && !isFinding {
		w.t.Fatal(err)
	}
	return v.End()
}

// verifyFile checks an export.
func (w *world) verifyFile(file []byte, anchors ...audit.Checkpoint) audit.Report {
	w.t.Helper()
	v := audit.NewVerifier(w.keys(), anchors...)
	err := audit.Read(bytes.NewReader(file), v.Add)
	if _, isFinding := errors.AsType[*audit.Finding](err); err != nil && !isFinding {
		w.t.Fatal(err)
	}
	return v.End()
}

// tamper runs statements as the owner of the database, without the triggers. "es." is
// left out for a database without schemas.
func (w *world) tamper(statements ...string) {
	w.t.Helper()
	if w.pg {
		statements = append([]string{"ALTER TABLE es.records DISABLE TRIGGER ALL", "ALTER TABLE es.seals DISABLE TRIGGER ALL"}, statements...)
	} else {
		for _, trigger := range []string{"records_no_update", "records_no_delete", "records_no_replace", "seals_no_update", "seals_no_delete", "seals_no_replace"} {
			statements = append([]string{"DROP TRIGGER IF EXISTS " + trigger}, statements...)
		}
	}
	conn, err := w.raw.Conn(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	for _, s := range statements {
		if !w.pg {
			s = strings.ReplaceAll(s, "es.", "")
		}
		if _, err := conn.ExecContext(w.ctx(), s); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
}

// rehash makes the leaf hash of a record match its content, as an attacker would who
// knows how it is made.
func (w *world) rehash(position int) {
	w.t.Helper()
	leaves, err := w.store.Leaves(w.ctx(), domain.Position(position-1), 1)
	if err != nil {
		w.t.Fatal(err)
	}
	hash := eventstore.HashLeaf(leaves[0].Content)
	literal := fmt.Sprintf("x'%x'", hash)
	if w.pg {
		literal = fmt.Sprintf("'\\x%x'::bytea", hash)
	}
	w.tamper(fmt.Sprintf("UPDATE es.records SET leaf_hash = %s WHERE position = %d", literal, position))
}

func (w *world) wants(r audit.Report, kind audit.Kind, position, through int) {
	w.t.Helper()
	if r.Finding == nil || r.Finding.Kind != kind || int(r.Finding.Position) != position || int(r.Finding.Through) != through {
		w.t.Errorf("found %v, want %s at %d through %d", r.Finding, kind, position, through)
	}
}
