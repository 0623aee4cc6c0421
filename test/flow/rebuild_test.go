package flow

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/load"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestRebuildWhileServing rebuilds the read models while a control plane is in use, on
// a terminal: every answer is right, and there is a progress bar.
func TestRebuildWhileServing(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	control := programs.StartServer(t, "control", "--postgres", postgres, "--redis", redis)
	world := load.Populate(t, control.API, 8, 2)
	if r := load.Run(world.Callers, 500*time.Millisecond, world.Write); r.Failed > 0 {
		t.Fatal(r.Err)
	}
	asked := make(chan load.Result, 1)
	go func() { asked <- load.Run(world.Callers, 2*time.Second, world.Both) }()
	for range 3 {
		shown, err := programs.OnTerminal(t, "tunnoxd", "rebuild", "--postgres", postgres, "--redis", redis, "--data", control.Dir)
		if err != nil {
			t.Errorf("rebuild: %v\n%s", err, shown)
		}
		if !strings.Contains(shown, "\rbuilding [") || !regexp.MustCompile(`rebuilt the read models from \d+ events in [0-9.]+ s \(\d+ events/s\)`).MatchString(shown) {
			t.Errorf("the terminal showed %q", shown)
		}
	}
	r := <-asked
	t.Logf("while read models were rebuilt: %v", r)
	if r.Failed > 0 || r.Done == 0 {
		t.Errorf("%v: %v", r, r.Err)
	}
}
