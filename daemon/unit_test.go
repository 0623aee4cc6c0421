package daemon

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The files in deploy/systemd take no right away that an installed unit leaves.
func TestUnitsAreHardenedAsTheDeployedOnes(t *testing.T) {
	for _, file := range []string{"tunnox-agent.service", "tunnoxd.service"} {
		text, err := os.ReadFile("../deploy/systemd/" + file)
		if err != nil {
			t.Fatal(err)
		}
		_, hard, ok := strings.Cut(string(text), "\nNoNewPrivileges")
		hard, _, _ = strings.Cut("NoNewPrivileges"+hard, "\n\n[Install]")
		if lines := strings.Split(hard, "\n"); !ok || len(lines) < 15 {
			t.Fatalf("%s: %q", file, hard)
		} else {
			for _, line := range lines {
				if line != "ProtectHome=yes" && line != "AmbientCapabilities=" && !slices.Contains(hardening, line) {
					t.Errorf("%s has %s, and installed units do not", file, line)
				}
			}
		}
	}
	unit := Unit(Service{Description: "100% x", Program: "/opt/my program", Arguments: []string{"a b", `q"q`, "$HOME", "%h", "", `back\slash`, "two\nlines"}}, false)
	if want := `ExecStart="/opt/my program" "a b" "q\"q" $$HOME %%h "" "back\\slash" "two\\nlines"`; !strings.Contains(unit, want+"\n") && !strings.Contains(unit, strings.Replace(want, `\\n`, `\n`, 1)+"\n") {
		t.Errorf("lacks %s:\n%s", want, unit)
	}
	if !strings.Contains(unit, "Description=100%% x\n") {
		t.Error(unit)
	}
}
