package sqlite_test

import (
	"context"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Reading still works in each of these cases, so reading does not show them.
func TestALogThatCannotBeWrittenIsNotReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	s := openPath(t, path)
	can := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return s.CanAppend(ctx)
	}
	try := func(what string, begin, end func()) {
		t.Helper()
		if err := can(); err != nil {
			t.Fatalf("before %s: %v", what, err)
		}
		begin()
		if err := can(); err == nil {
			t.Errorf("with %s the log is said to be ready for appends", what)
		}
		if _, err := s.Head(t.Context()); err != nil {
			t.Errorf("with %s the log cannot be read: %v", what, err)
		}
		end()
	}

	db := rawDB(t, path)
	db.SetMaxOpenConns(1)
	execute := func(statement string) {
		t.Helper()
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	try("a locked file", func() { execute("BEGIN IMMEDIATE") }, func() { execute("ROLLBACK") })

	// A limit on the size of files refuses writes as a full disk does, without a full
	// disk.
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	try("no room", func() { limit(syscall.Rlimit{Cur: 100 << 10, Max: before.Max}) }, func() { limit(before) })
	if err := can(); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
