// Package guide follows the recipes of docs/guide as a reader would: each command of a
// page is run, in the page's order, on the machine that the page names, and what the
// page shows must appear.
package guide

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// step is a command of a page with the output that the page shows below it.
type step struct {
	machine, command string
	shows            []string
	line             int
}

// prompt begins a command: the machine's name and a dollar sign.
var prompt = regexp.MustCompile(`^([a-z]+)\$ (.+)$`)

// stepsOf reads the console blocks of a page. A command may go on in the next line after
// a backslash, and ends with the remark that follows two blanks and a number sign.
func stepsOf(t *testing.T, name string) (steps []step) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide", name))
	if err != nil {
		t.Fatal(err)
	}
	inside, goesOn := false, false
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "```") {
			inside = line == "```console"
			continue
		}
		found := prompt.FindStringSubmatch(line)
		switch {
		case !inside || line == "":
		case goesOn:
			last := &steps[len(steps)-1]
			last.command, goesOn = strings.CutSuffix(last.command+" "+strings.TrimSpace(line), `\`)
		case found != nil:
			s := step{machine: found[1], line: i + 1}
			s.command, _, _ = strings.Cut(found[2], "  #")
			s.command, goesOn = strings.CutSuffix(s.command, `\`)
			steps = append(steps, s)
		case len(steps) == 0:
			t.Fatalf("%s:%d: output of no command", name, i+1)
		default:
			last := &steps[len(steps)-1]
			last.shows = append(last.shows, line)
		}
	}
	if len(steps) == 0 {
		t.Fatalf("%s has no commands in console blocks", name)
	}
	return steps
}

// filesOf gives the blocks of a page that follow a line such as "`tunnox.yaml` on nas:",
// by machine and name.
func filesOf(t *testing.T, name string) map[[2]string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide", name))
	if err != nil {
		t.Fatal(err)
	}
	files := map[[2]string]string{}
	heading := regexp.MustCompile("(?ms)^`([^`\n]+)` on ([a-z]+):\n\n```[a-z]*\n(.*?)^```$")
	for _, found := range heading.FindAllStringSubmatch(string(text), -1) {
		files[[2]string{found[2], found[1]}] = found[3]
	}
	return files
}

// varying is a word of an output that is another one each time: it has a digit, or dots
// that stand for something, or it is a name that a server draws.
var varying = regexp.MustCompile(`[0-9]|\.\.\.|^https?://`)

// patternOf gives the pattern that an output line must match, and its varying words.
func patternOf(line string) (*regexp.Regexp, []string) {
	var parts, words []string
	for _, word := range strings.Fields(line) {
		if varying.MatchString(word) {
			parts = append(parts, `(\S+)`)
			words = append(words, word)
		} else {
			parts = append(parts, regexp.QuoteMeta(word))
		}
	}
	return regexp.MustCompile(strings.Join(parts, `\s+`)), words
}
