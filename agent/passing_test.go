package agent

import (
	"testing"

	"github.com/tunnox-net/tunnox/wire"
)

// TestConnectionsAreCountedForTheirTunnel: those of a mapping that a program holds, those
// of a share by the service that is shared, and none else.
func TestConnectionsAreCountedForTheirTunnel(t *testing.T) {
	ts := newTunnels(&Agent{})
	public := ts.add(Tunnel{Kind: TunnelPublic}, nil)
	shared := ts.add(Tunnel{Kind: TunnelExpose}, nil)
	public.allowed, shared.allowed = "127.0.0.1:80", "127.0.0.1:5432"
	ts.hold(public, 1000)
	for _, c := range []struct {
		mapping int64
		service string
		want    *tally
	}{
		{1000, "127.0.0.1:80", &public.tally},
		{1000, "127.0.0.1:5432", &public.tally}, // a mapping of its own to a service that is shared too
		{1001, "127.0.0.1:5432", &shared.tally},
		{1001, "127.0.0.1:81", nil},
		{0, "127.0.0.1:5432", nil},
	} {
		if got := ts.tally(c.mapping, c.service); got != c.want {
			t.Errorf("mapping %d to %s is counted for the wrong tunnel", c.mapping, c.service)
		}
	}

	one := public.tally.begin("192.0.2.1:1")
	count := one.count()
	count.AToB(5)
	count.BToA(7)
	public.tally.refused("192.0.2.2:1", wire.DialRefused)
	got := public.tally.traffic()
	if got.Open != 1 || got.Connections != 1 || got.Failed != 1 || got.ToService != 5 || got.FromService != 7 {
		t.Errorf("the numbers are %+v", got)
	}
	if len(got.Passages) != 2 || got.Passages[0].Code != string(wire.DialRefused) || !got.Passages[1].Open || got.Passages[1].From != "192.0.2.1:1" || got.Passages[1].FromService != 7 {
		t.Errorf("the connections are %+v", got.Passages)
	}
	one.end()
	for range 10 * maxPassages {
		public.tally.begin("192.0.2.3:1").end()
	}
	if got = public.tally.traffic(); got.Open != 0 || len(got.Passages) != maxPassages || got.Connections != 10*maxPassages+1 {
		t.Errorf("%d open, %d of %d kept", got.Open, len(got.Passages), got.Connections)
	}
	var none *tally // of a mapping that nobody holds
	none.refused("192.0.2.1:1", wire.DialRefused)
	none.begin("192.0.2.1:1").end()
	if none.begin("").count().AToB != nil {
		t.Error("a connection that nobody looks at is counted")
	}
}
