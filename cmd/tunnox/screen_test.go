package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// evil is a text that would clear the screen, turn the direction of writing and fake a line.
const evil = "a\x1b[2J\x1b]0;title\a\u202eb\u2066c\r\nfake line\u2028fake\u009b1A\tz\u200f"

// TestNothingOfOthersMovesTheCursor runs every command with answers full of such text,
// and with refusals full of it.
func TestNothingOfOthersMovesTheCursor(t *testing.T) {
	b, err := os.ReadFile("../../httpapi/testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(b, &document); err != nil {
		t.Fatal(err)
	}
	item := map[string]any{evil: evil, "meta": map[string]any{"actor": evil, "source": evil, "at": evil}, "last": map[string]any{"error": evil}}
	for _, schema := range document.Components.Schemas {
		for name := range schema.Properties {
			if item[name] == nil {
				item[name] = evil
			}
		}
	}
	whole := map[string]any{}
	for name, value := range item {
		whole[name] = value
	}
	whole["items"], whole["events"], whole["next"] = []any{item}, []any{item}, nil
	whole["checks"] = map[string]any{evil: evil}
	whole["version"] = map[string]any{"version": evil}
	delete(whole, "ends")
	answer, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	refusal, err := json.Marshal(map[string]any{"detail": evil, "title": evil, "code": evil, "errors": []any{map[string]any{"location": "body." + evil, "message": evil}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("the secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Total-Count", "0")
		if r.URL.Query().Get("dry_run") == "true" {
			w.Header().Set("Content-Type", planType)
		}
		_, _ = w.Write(answer)
	}
	bad := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			_, _ = w.Write(refusal)
		}
	}
	shown := 0
	for id, lines := range commandsOf {
		for _, line := range lines {
			if strings.Contains(line, "--json") || id == "stream-events" || strings.HasPrefix(line, "events export") {
				continue // JSON is for programs
			}
			for _, args := range [][]string{strings.Fields(strings.ReplaceAll(line, "FILE", file)), strings.Fields(strings.ReplaceAll(strings.ReplaceAll(line, " --dry-run", ""), "FILE", file))} {
				for name, handler := range map[string]http.HandlerFunc{"answer": good, "refused": bad(409), "broken": bad(500)} {
					_, stdout, stderr := tunnox(t, handler, args...)
					if strings.Contains(stdout+stderr, "a?[2J") {
						shown++
					}
					harmless(t, strings.Join(args, " ")+" ("+name+")", stdout+stderr)
				}
			}
		}
	}
	if shown < 50 {
		t.Errorf("only %d outputs showed the text at all", shown)
	}
}

// harmless reports what moves the cursor or begins a line that we did not write.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && r != '\t' && (r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069) {
			t.Errorf("%s prints %U: %q", what, r, text)
			return
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(what, "audit checkpoint") {
			break // a note has lines
		}
		if strings.HasPrefix(strings.TrimPrefix(line, "tunnox: "), "fake") {
			t.Errorf("%s prints a line of somebody else: %q", what, text)
			return
		}
	}
}

func TestTimesAndSizesAreForPeopleAtATerminalOnly(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for far, want := range map[time.Duration]string{0: "now", 5 * time.Second: "5s ago", -90 * time.Second: "in 1m", 3 * time.Hour: "3h ago",
		49 * time.Hour: "2d ago", 40 * 24 * time.Hour: "2026-01-20"} {
		if got := relative(now.Add(-far), now); got != want {
			t.Errorf("%v before now is %q, want %q", far, got, want)
		}
	}
	o, err := parseObject([]byte(`{"created_at":"2026-03-01T11:57:00Z","name":"2026-03-01T11:57:00Z","current_month_traffic":1500000,"meta":{"at":"2026-03-01T11:59:50Z"},"user_id":100000000}`))
	if err != nil {
		t.Fatal(err)
	}
	(&screen{now: func() time.Time { return now }}).forPeople(o)
	got := fmt.Sprint(o["created_at"], "|", o["name"], "|", o["current_month_traffic"], "|", o.text("meta.at"), "|", o["user_id"])
	if want := "3m ago|2026-03-01T11:57:00Z|1.5 MB|10s ago|100000000"; got != want {
		t.Errorf("for people it is %q, want %q", got, want)
	}
	var plain bytes.Buffer
	if err := printTable(&plain, []column{field("CREATED", "created_at")}, []json.RawMessage{[]byte(`{"created_at":"2026-03-01T11:57:00Z"}`)}); err != nil || !strings.Contains(plain.String(), "2026-03-01T11:57:00Z") {
		t.Errorf("in a pipe: %v %q", err, plain.String())
	}
}

func TestWidthsOfLetters(t *testing.T) {
	for text, want := range map[string]int{"abc": 3, "日本": 4, "e\u0301": 1, "é": 1, "🦦": 2} {
		if got := columnsOf(text); got != want {
			t.Errorf("%q takes %d columns, want %d", text, got, want)
		}
	}
}

// TestTheLatestEventsAreShown: without a place to begin at, the newest are asked for and
// shown in the order in which they happened.
func TestTheLatestEventsAreShown(t *testing.T) {
	var asked string
	log := func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.RawQuery
		order := []int{1, 2}
		if r.URL.Query().Get("order") == "newest" {
			order = []int{9, 8}
		}
		fmt.Fprintf(w, `{"items":[{"position":%d},{"position":%d}],"next":null}`, order[0], order[1])
	}
	for line, want := range map[string][]string{"events": {"8", "9", "limit=20"}, "events --limit 2": {"8", "9", "limit=2"}, "events --newest": {"9", "8", "limit=500"},
		"events --all": {"1", "2", "limit=500"}, "events --after 0": {"1", "2", "limit=500"}} {
		_, stdout, _ := tunnox(t, log, strings.Fields(line)...)
		lines := strings.Split(stdout, "\n")
		if len(lines) < 3 || !strings.HasPrefix(lines[1], want[0]) || !strings.HasPrefix(lines[2], want[1]) || !strings.Contains(asked, want[2]) {
			t.Errorf("%s asks %q and shows %q, want %v", line, asked, stdout, want)
		}
	}
}
