package main

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// An export goes to what is there. Only a file is replaced, by a whole one.
func TestAnExportReplacesFilesOnly(t *testing.T) {
	dir := t.TempDir()
	text := func(to io.Writer) error { _, err := io.WriteString(to, "the log"); return err }
	read := func(path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	kind := func(path string) os.FileMode {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Type()
	}

	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		b, err := os.ReadFile(pipe)
		if err != nil {
			t.Error(err)
		}
		got <- string(b)
	}()
	if err := writeFile(pipe, text); err != nil {
		t.Fatal(err)
	}
	if kind(pipe) != os.ModeNamedPipe {
		t.Fatal("a file stands in the place of the pipe")
	}
	if s := <-got; s != "the log" {
		t.Errorf("through the pipe came %q", s)
	}

	file, link, empty := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "empty")
	for from, to := range map[string]string{link: "file", empty: "not-yet", filepath.Join(dir, "null"): os.DevNull} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, []byte("what was there before, which is longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, empty, filepath.Join(dir, "null")} {
		if err := writeFile(path, text); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if kind(path) != os.ModeSymlink {
			t.Errorf("a file stands in the place of the link %s", path)
		}
	}
	if read(file) != "the log" || read(filepath.Join(dir, "not-yet")) != "the log" {
		t.Errorf("links lead to %q and %q", read(file), read(filepath.Join(dir, "not-yet")))
	}
	if kind(os.DevNull)&os.ModeDevice == 0 {
		t.Error("a file stands in the place of the null device")
	}
	if err := writeFile(dir, text); err == nil {
		t.Error("a directory was written to")
	}
}
