package wholefile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/wholefile"
)

// A reader sees one of the contents that were written, never a part or a mix.
func TestReadersSeeWholeFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	contents := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 50_000)}
	write := func(i int) {
		if err := wholefile.Write(path, contents[i%2], 0o600); err != nil {
			t.Error(err)
		}
	}
	write(0)
	var writing sync.WaitGroup
	for w := range 2 {
		writing.Go(func() {
			for i := range 50 {
				write(i + w)
			}
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(b, contents[0]) && !bytes.Equal(b, contents[1]) {
			t.Fatalf("%d bytes of no content that was written, %v", len(b), err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// The mode is the one that was asked for, also of a file that had another.
func TestTheModeIsTheOneAskedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "unit")
	for _, mode := range []fs.FileMode{0o644, 0o600, 0o640} {
		if err := wholefile.Write(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("the mode is %v, %v, want %v", info.Mode(), err, mode)
		}
	}
}

// What cannot be written leaves nothing behind, and what was there.
func TestAFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken") // a folder with something in it cannot be replaced
	if err := os.MkdirAll(filepath.Join(path, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := wholefile.Write(path, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || !left[0].IsDir() {
		t.Errorf("left are %v, %v", left, err)
	}
	if err := wholefile.Write(filepath.Join(dir, "nowhere", "x"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the folder: %v", err)
	}
}
