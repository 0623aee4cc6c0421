package reach

import (
	"testing"
	"time"
)

func TestASleepAndAMoveAreSeen(t *testing.T) {
	before := seen{wall: time.Hour, monotonic: time.Hour, network: "192.0.2.0/24"}
	for name, c := range map[string]struct {
		wall, monotonic time.Duration
		network         string
		changed         bool
	}{
		"a second":                       {time.Second, time.Second, "192.0.2.0/24", false},
		"a busy machine":                 {4 * time.Second, 4 * time.Second, "192.0.2.0/24", false},
		"a sleep":                        {time.Minute, time.Second, "192.0.2.0/24", true},
		"a sleep that both clocks count": {time.Minute, time.Minute, "192.0.2.0/24", true},
		"a clock that was put right":     {2 * time.Second, time.Second, "192.0.2.0/24", false},
		"a clock that was set back":      {-time.Hour, time.Second, "192.0.2.0/24", false},
		"another network":                {time.Second, time.Second, "198.51.100.0/24", true},
		"no network":                     {time.Second, time.Second, "", true},
	} {
		now := seen{before.wall + c.wall, before.monotonic + c.monotonic, c.network}
		if now.changed(before) != c.changed {
			t.Errorf("%s: changed is %v", name, !c.changed)
		}
	}
}

func TestChangesAreQuietAndEnd(t *testing.T) {
	changes := Changes(t.Context())
	select {
	case <-changes:
		t.Error("a change that was none")
	case <-time.After(2500 * time.Millisecond): // two looks
	}
}
