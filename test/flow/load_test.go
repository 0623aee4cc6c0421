package flow

import (
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"

	"github.com/tunnox-net/tunnox/test/load"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestLoad calls a control plane from many callers at once, first reads, then writes,
// then both: every answer is the right one. test/bench prints and judges the rates; the
// bound here holds on a busy machine too.
func TestLoad(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	control := programs.StartServer(t, "control", "--postgres", postgres, "--redis", redis,
		"--rate-limit", "1000000", "--rate-burst", "1000000")
	world := load.Populate(t, control.API, 16, 3)
	for _, mix := range []struct {
		what  string
		least float64 // requests a second
		do    func(caller int, c *load.Caller) error
	}{
		{"reads", 200, world.Read},
		{"writes", 20, world.Write},
		{"nine reads to a write", 100, world.Both},
	} {
		r := load.Run(world.Callers, time.Second, mix.do)
		t.Logf("%s: %v", mix.what, r)
		if r.Failed > 0 || !pace.Race && r.Rate() < mix.least {
			t.Errorf("%s: %v, want no error and %.0f/s at least: %v", mix.what, r, mix.least, r.Err)
		}
	}
}
