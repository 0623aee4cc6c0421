package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// lab replaces a test, so that the packages that start programs and databases for tests
// can be used here too.
type lab struct {
	testing.TB // nil: methods that are not implemented below are not used

	mu       sync.Mutex
	cleanups []func() // guarded by mu; run newest first
	failed   bool     // guarded by mu
	once     sync.Once
}

// fatal is the value with which Fatal panics; run recovers it.
type fatal struct{ message string }

func newLab() *lab { return &lab{} }

// run calls f and gives its failure.
func (l *lab) run(f func()) (err error) {
	defer func() {
		if stop, ok := recover().(fatal); ok {
			err = fmt.Errorf("%s", stop.message)
		}
	}()
	f()
	return nil
}

// end ends everything that was started, once.
func (l *lab) end() {
	l.once.Do(func() {
		for {
			l.mu.Lock()
			if len(l.cleanups) == 0 {
				l.mu.Unlock()
				return
			}
			last := l.cleanups[len(l.cleanups)-1]
			l.cleanups = l.cleanups[:len(l.cleanups)-1]
			l.mu.Unlock()
			last()
		}
	})
}

// part runs f with a lab whose programs end with it.
func (l *lab) part(f func(*lab)) {
	inner := newLab()
	l.Cleanup(inner.end)
	defer inner.end()
	f(inner)
}

// build builds the programs into a directory of this run, unless TUNNOX_TEST_BIN names
// a directory with others to measure.
func (l *lab) build() {
	if os.Getenv("TUNNOX_TEST_BIN") != "" {
		return
	}
	dir := l.TempDir()
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		l.Fatal("find the module: ", err)
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/tunnoxd", "./cmd/tunnox")
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	if out, err := cmd.CombinedOutput(); err != nil {
		l.Fatalf("build the programs: %v\n%s", err, out)
	}
	if err := os.Setenv("TUNNOX_TEST_BIN", dir); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) Helper() {}

func (l *lab) Name() string { return "bench" }

func (l *lab) Context() context.Context { return context.Background() }

func (l *lab) Cleanup(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cleanups = append(l.cleanups, f)
}

func (l *lab) Failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *lab) Fail() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = true
}

func (l *lab) Log(args ...any) { fmt.Fprintln(os.Stderr, args...) }

func (l *lab) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (l *lab) Error(args ...any) { l.Fail(); l.Log(args...) }

func (l *lab) Errorf(format string, args ...any) { l.Fail(); l.Logf(format, args...) }

func (l *lab) Fatal(args ...any) { l.Fail(); panic(fatal{fmt.Sprint(args...)}) }

func (l *lab) Fatalf(format string, args ...any) {
	l.Fail()
	panic(fatal{fmt.Sprintf(format, args...)})
}

func (l *lab) TempDir() string {
	dir, err := os.MkdirTemp("", "tunnox-bench-")
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
