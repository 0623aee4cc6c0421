package domain

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew from what the code does; read the difference before committing it")

// TestStories runs testdata/*.txt; testdata/README explains how to read them.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := tellStories(t, file, string(text))
			if got == string(text) {
				return
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s no longer tells what happens (go test ./domain -run Stories -update writes it anew):\n%s",
				file, firstDifference(string(text), got))
		})
	}
}

// tellStories gives the text back with every answer replaced by what the code
// does now. Lines that begin with two blanks are answers.
func tellStories(t *testing.T, file, text string) string {
	var out strings.Builder
	w := newWorld()
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if strings.HasPrefix(line, "  ") {
			continue
		}
		out.WriteString(line + "\n")
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "", "#":
		case "story":
			w = newWorld()
		case "given":
			if err := w.given(rest); err != nil {
				t.Fatalf("%s:%d: given %s: %v", file, i+1, rest, err)
			}
		case "when":
			c, err := parseCommand(rest)
			if err != nil {
				t.Fatalf("%s:%d: %v", file, i+1, err)
			}
			d, err := w.run(c)
			if err != nil && CodeOf(err) == "" {
				t.Fatalf("%s:%d: %v", file, i+1, err)
			}
			out.WriteString(answer(d, err))
		case "show":
			out.WriteString("  " + compact(w.state(StreamID(rest))) + "\n")
		default:
			t.Fatalf("%s:%d: want story, given, when, show or #, got %q", file, i+1, word)
		}
	}
	return out.String()
}

// given is a command that must be accepted, or "event STREAM NAME JSON" for a
// history that no command writes any more.
func (w *world) given(rest string) error {
	event, ok := strings.CutPrefix(rest, "event ")
	if !ok {
		c, err := parseCommand(rest)
		if err != nil {
			return err
		}
		_, err = w.run(c)
		return err
	}
	parts := strings.SplitN(event, " ", 3)
	if len(parts) < 3 {
		return errors.New("want event STREAM NAME JSON")
	}
	e, err := Decode(parts[1], 1, []byte(parts[2]))
	if err != nil {
		return err
	}
	return w.add("given", 0, Change{Stream: StreamID(parts[0]), Event: e})
}

// answer tells a decision, one fact a line.
func answer(d Decision, err error) string {
	var b strings.Builder
	if refused, ok := errors.AsType[*Error](err); ok {
		fmt.Fprintf(&b, "  refused %s: %s\n", refused.Code, refused.Message)
		for _, f := range refused.Faults {
			fmt.Fprintf(&b, "    %s %s\n", f.Field, f.Message)
		}
		return b.String()
	}
	if len(d.Changes) == 0 {
		b.WriteString("  nothing to do\n")
	}
	for _, ch := range d.Changes {
		owner := ""
		if ch.Owner != 0 && ch.Owner != d.Account {
			owner = fmt.Sprintf(" of %d", ch.Owner)
		}
		fmt.Fprintf(&b, "  %s %s %s%s\n", ch.Stream, ch.Event.EventName(), compact(ch.Event), owner)
	}
	for _, c := range d.Releases {
		fmt.Fprintf(&b, "  releases %s %s of %s\n", c.Scope, c.Value, c.Owner)
	}
	for _, c := range d.Claims {
		fmt.Fprintf(&b, "  claims %s %s for %s\n", c.Scope, c.Value, c.Owner)
	}
	for _, id := range d.Closes {
		fmt.Fprintf(&b, "  closes %s\n", id)
	}
	return b.String()
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n  written: %s\n  happens: %s", i+1, a, b)
		}
	}
	return "none"
}
