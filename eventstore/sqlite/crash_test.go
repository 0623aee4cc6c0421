package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/eventstoretest"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/migrations"
)

// With crashEnv this test binary is the process that is killed.
const crashEnv = "TUNNOX_CRASH_LOG"

// TestHammerChild is the body of the killed process; without crashEnv it does nothing.
func TestHammerChild(t *testing.T) {
	path := os.Getenv(crashEnv)
	if path == "" {
		return
	}
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	err = eventstoretest.Hammer(context.Background(), s, func(a eventstoretest.Acknowledged) {
		fmt.Printf("acknowledged %s %d %d\n", a.Key, a.First, a.Last)
	})
	t.Fatalf("the writer ended by itself: %v", err)
}

func TestKilledWriterLosesNothingAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	if _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		path := fmt.Sprintf("%s.%d", path, round)
		if _, err := sqlite.Migrate(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		acknowledged := hammerAndKill(t, path, 20+60*round)
		eventstoretest.CheckAfterCrash(t, openPath(t, path), acknowledged)
	}
}

// hammerAndKill starts a writer and kills it with signal 9 after enough reports, while
// it is still writing.
func hammerAndKill(t *testing.T, path string, enough int) (acknowledged []eventstoretest.Acknowledged) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHammerChild$")
	child.Env = append(os.Environ(), crashEnv+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	var kill sync.Once
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var a eventstoretest.Acknowledged
		// Nobody got an acknowledgement from a line that the kill cut off.
		if n, err := fmt.Sscanf(lines.Text()+"\n", "acknowledged %s %d %d\n", &a.Key, &a.First, &a.Last); n == 3 && err == nil {
			acknowledged = append(acknowledged, a)
		} else {
			said = append(said, lines.Text())
		}
		if len(acknowledged) >= enough {
			kill.Do(func() {
				if err := child.Process.Signal(syscall.SIGKILL); err != nil {
					t.Errorf("kill: %v", err)
				}
			})
		}
	}
	_ = child.Wait() // killed
	if len(acknowledged) < enough {
		t.Fatalf("the writer reported %d appends: %s", len(acknowledged), strings.Join(said, "\n"))
	}
	return acknowledged
}

func TestOneProcessAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	openPath(t, path)
	for what, err := range map[string]error{
		"open":    second(sqlite.Open(t.Context(), path)),
		"migrate": second(sqlite.Migrate(t.Context(), path)),
	} {
		if err == nil || !strings.Contains(err.Error(), "in use by another process (pid "+fmt.Sprint(os.Getpid())+")") {
			t.Errorf("%s a log that is open: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestSchemaMustFit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	if _, err := sqlite.Open(t.Context(), path); err == nil || !os.IsNotExist(errors.Unwrap(err)) {
		t.Errorf("open what is not there: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path); !errors.Is(err, eventstore.ErrSchema) || !strings.Contains(err.Error(), "older") {
		t.Errorf("open an empty file: %v", err)
	}
	if steps, err := sqlite.Migrate(t.Context(), path); steps == 0 || err != nil {
		t.Fatalf("migrate: %d steps, %v", steps, err)
	}
	if steps, err := sqlite.Migrate(t.Context(), path); steps != 0 || err != nil {
		t.Fatalf("migrate again: %d steps, %v", steps, err)
	}
	db := rawDB(t, path)
	if _, err := db.Exec("INSERT INTO tunnox_schema (version_id, is_applied) VALUES (?, 1)", migrations.Newest(migrations.DialectSQLite)+1); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path); !errors.Is(err, eventstore.ErrSchema) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("open a newer schema: %v", err)
	}
	if err := os.WriteFile(path+".garbage", []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path+".garbage"); err == nil || errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("open what is no database: %v", err)
	}
}

func TestLogIsAppendOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	s := openPath(t, path)
	if _, err := s.AppendBatch(t.Context(), []eventstore.Append{eventA()}); err != nil {
		t.Fatal(err)
	}
	db := rawDB(t, path)
	for _, statement := range []string{
		"UPDATE records SET data = '{}'",
		"DELETE FROM records",
		"INSERT OR REPLACE INTO records SELECT 1, stream, version, owner, 'forged', schema, event_id, data, meta, leaf_hash, recorded_at FROM records",
		"INSERT OR REPLACE INTO records SELECT 2, stream, version, owner, 'forged', schema, event_id, data, meta, leaf_hash, recorded_at FROM records",
	} {
		if _, err := db.Exec(statement); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	records, err := s.ReadAll(t.Context(), 0, 10)
	if err != nil || len(records) != 1 || records[0].Name != "happened" {
		t.Fatalf("the log is now %+v, %v", records, err)
	}
}

func TestReopenedLogGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	for i := range 3 {
		if _, err := sqlite.Migrate(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		s, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		results, err := s.AppendBatch(t.Context(), []eventstore.Append{eventA()})
		if err != nil || int(results[0].Last) != i+1 {
			t.Fatalf("append after reopening: %+v, %v", results, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil { // a second Close does nothing
			t.Fatal(err)
		}
		if _, err := s.AppendBatch(t.Context(), []eventstore.Append{eventA()}); !errors.Is(err, eventstore.ErrUnavailable) {
			t.Errorf("append to a closed log: %v", err)
		}
		if _, err := s.Head(t.Context()); !errors.Is(err, eventstore.ErrUnavailable) {
			t.Errorf("read a closed log: %v", err)
		}
	}
}

func eventA() eventstore.Append {
	return eventstore.Append{Streams: []eventstore.StreamAppend{{Stream: "user-1", Expected: eventstore.Any}},
		Events: []eventstore.NewEvent{{Name: "happened", Schema: 1, Data: []byte(`{}`)}}, Account: 1}
}

func TestIDsGoOnAfterAReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	if _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	a := eventA()
	a.Streams = []eventstore.StreamAppend{{Stream: "client-299999999"}, {Stream: "client-600000041"}, {Stream: "client-600000007"}}
	a.Events = append(a.Events, a.Events[0], a.Events[0])
	a.Events[1].Stream, a.Events[2].Stream = 1, 2
	if _, err := s.AppendBatch(t.Context(), []eventstore.Append{a}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openPath(t, path)
	for sequence, want := range map[string]int64{"client": 600000042, "user": 100000001, "mapping": 1001} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if got, err := again.NextID(ctx, domain.Sequence(sequence)); err != nil || got != want {
			t.Errorf("next %s id: %d, %v; want %d", sequence, got, err, want)
		}
		cancel()
	}
}
