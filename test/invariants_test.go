package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guard is a test as docs/invariants.md names it: folder, function and, behind a
// slash, a part of a suite, for example `eventstore/eventstoretest.Run/8 writers`.
var guard = regexp.MustCompile("`([a-z0-9/]+)\\.([A-Z]\\w+)(?:/([^`]+))?`")

// A promise whose test was renamed or lost is no promise.
func TestEveryInvariantHasItsTest(t *testing.T) {
	b, err := os.ReadFile("../docs/invariants.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what holds") {
			continue
		}
		rows++
		guards := guard.FindAllStringSubmatch(line, -1)
		if len(guards) == 0 {
			t.Errorf("no test guards: %s", line)
		}
		for _, g := range guards {
			if !holds(t, filepath.Join("..", g[1]), g[2], g[3]) {
				t.Errorf("there is no test %s (from %q)", g[0], strings.TrimSpace(line))
			}
		}
	}
	if rows < 10 {
		t.Errorf("docs/invariants.md has %d invariants; was its form changed?", rows)
	}
}

// holds reports whether a folder's Go files declare the function and name the part.
func holds(t *testing.T, folder, function, part string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	declared, named := false, part == ""
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source := string(b)
		declared = declared || strings.Contains(source, "func "+function+"(")
		named = named || strings.Contains(source, `"`+part+`"`)
	}
	return declared && named
}
