package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheCommandsStatusAndOutputAreItsOwn(t *testing.T) {
	for command, want := range map[string]int{"echo said": 0, "exit 3": 3, "kill -9 $$": 1} {
		var out, told bytes.Buffer
		if got := run([]string{"sh", "-c", command}, &out, &told); got != want {
			t.Errorf("%s: status %d, want %d", command, got, want)
		}
		if command == "echo said" && out.String() != "said\n" {
			t.Errorf("the command's output is %q", out.String())
		}
		if !strings.Contains(told.String(), "took") || !strings.Contains(told.String(), "times as long as on a calm machine now") {
			t.Errorf("%s: told %q", command, told.String())
		}
	}
	var out, told bytes.Buffer
	if got := run([]string{"/no/such/program"}, &out, &told); got != 127 || !strings.Contains(told.String(), "no such file") {
		t.Errorf("status %d, told %q", got, told.String())
	}
	if got := run(nil, &out, &told); got != 2 {
		t.Errorf("status %d without a command", got)
	}
}

func TestOtherWorkIsTold(t *testing.T) {
	for _, c := range []struct {
		own, others, stolen float64
		slow                bool
	}{{0.9, 0.02, 0, false}, {0.5, 0.4, 0, true}, {0.5, 0, 0.3, true}, {0.1, 0.06, 0.06, true}} {
		if said := verdict(c.own, c.others, c.stolen); strings.Contains(said, "WAS SLOW") != c.slow {
			t.Errorf("%+v: %s", c, said)
		}
	}
}

func TestCoresAreRead(t *testing.T) {
	got, err := parse("cpu  100 1 20 4000 50 3 4 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
	if want := (usage{busy: 1280 * time.Millisecond, stolen: 70 * time.Millisecond}); err != nil || got != want {
		t.Errorf("read %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "cpu 1 2", "cpu0 1 2 3 4 5 6 7 8 9\n", "cpu a b c d e f g h\n"} {
		if _, err := parse(text); err == nil {
			t.Errorf("read %q", text)
		}
	}
}
