package memory_test

import (
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/directory/directorytest"
	"github.com/tunnox-net/tunnox/directory/memory"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

func TestDirectory(t *testing.T) {
	directorytest.Run(t, func(testing.TB) directorytest.Backend {
		clock := directorytest.NewClock()
		d := memory.New(clock.Now)
		return directorytest.Backend{A: d, B: d, Clock: clock}
	})
}

func TestForgetsWhatIsLongGone(t *testing.T) {
	clock := directorytest.NewClock()
	d := memory.New(clock.Now)
	if _, err := d.Register(t.Context(), directory.Session{ClientID: 1, Node: "node-001"}); err != nil {
		t.Fatal(err)
	}
	clock.Advance(directory.Memory + 2*time.Hour)
	if _, err := d.Register(t.Context(), directory.Session{ClientID: 2, Node: "node-001"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Beat(t.Context(), "node-001", ""); err != nil {
		t.Fatal(err)
	}
	found, err := d.Lookup(t.Context(), 1, 2)
	if err != nil || !found[0].LastSeen.IsZero() || !found[1].Online {
		t.Errorf("lookup: %+v, %v", found, err)
	}
}
