package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxFile bounds a file of the repository. Everybody who clones it downloads every
// version of every file for ever.
const maxFile = 1 << 20

// A program that was built beside its source is committed easily, and stays in the
// history for good.
func TestNoProgramAndNoLargeFileIsCommitted(t *testing.T) {
	listed, err := exec.Command("git", "-C", "..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatalf("list the files of the repository: %v", err)
	}
	files := strings.Split(strings.TrimSuffix(string(listed), "\x00"), "\x00")
	if len(files) < 500 {
		t.Fatalf("git lists %d files; this test does not see the repository", len(files))
	}
	for _, file := range files {
		if fault := unfit(t, filepath.Join("..", file)); fault != "" {
			t.Errorf("%s %s; do not commit it", file, fault)
		}
	}
}

// unfit says why a file does not belong in the repository, or nothing.
func unfit(t *testing.T, file string) string {
	t.Helper()
	info, err := os.Lstat(file)
	if os.IsNotExist(err) {
		return "" // removed and not committed yet
	}
	if err != nil {
		t.Fatal(err)
	}
	if !info.Mode().IsRegular() {
		return ""
	}
	if info.Size() > maxFile {
		return "has more than 1 MiB"
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, magic := range []string{"\x7fELF", "MZ\x90\x00", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe", "!<arch>\n", "PK\x03\x04", "\x1f\x8b"} {
		if bytes.HasPrefix(text, []byte(magic)) {
			return "is a program or an archive"
		}
	}
	return ""
}

// The test above finds the files that it should find.
func TestProgramsAndLargeFilesAreFound(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"program": "\x7fELF\x02\x01", "archive": "\x1f\x8b\x08", "large": strings.Repeat("a line\n", maxFile/7+1),
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if unfit(t, file) == "" {
			t.Errorf("a file with a %s is fit", name)
		}
	}
	file := filepath.Join(dir, "source")
	if err := os.WriteFile(file, []byte("package test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if fault := unfit(t, file); fault != "" {
		t.Errorf("a source file %s", fault)
	}
}
