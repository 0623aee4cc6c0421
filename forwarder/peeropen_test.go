package forwarder_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// What came over a bridge goes over no other: the forwarder that was asked in
// vain says so, and opens nothing itself.
func TestSecondHopIsRefused(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		_, target, m := c.apart(echo(t))
		a, third := c.member("node-00a"), c.member("node-00c")
		ask := func(open *wirepb.Open) error {
			stream, err := a.peers.open(t.Context(), third.id, third.address)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Reset()
			stream.SetDeadline(time.Now().Add(pace.Guard))
			if err := wire.WriteOpen(stream, open); err != nil {
				t.Fatal(err)
			}
			return wire.ReadOpened(stream)
		}
		if err := ask(&wirepb.Open{MappingId: m.id, TargetClient: target.id, Hop: 1}); !errors.Is(err, wire.TargetOffline) {
			t.Errorf("a target that is elsewhere: %v", err)
		}
		for _, hop := range []uint32{0, 2, 1 << 31} {
			if err := ask(&wirepb.Open{MappingId: m.id, TargetClient: target.id, Hop: hop}); !errors.Is(err, wire.Malformed) {
				t.Errorf("hop %d: %v", hop, err)
			}
		}
		if n := third.peers.opened.Load(); n != 0 {
			t.Errorf("the third forwarder opened %d streams", n)
		}
	})
}

// The target's forwarder decides from its own records, whatever is claimed.
func TestTargetsForwarderAuthorisesAgain(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		source, target, m := c.apart(echo(t))
		a, b := c.member("node-00a"), c.member("node-00b")
		ask := func(open *wirepb.Open) error {
			open.Hop = 1
			stream, err := a.peers.open(t.Context(), b.id, b.address)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Reset()
			stream.SetDeadline(time.Now().Add(pace.Guard))
			if err := wire.WriteOpen(stream, open); err != nil {
				t.Fatal(err)
			}
			return wire.ReadOpened(stream)
		}
		other := c.client(c.user)
		c.agent(other, c.at("node-00b"))
		for what, try := range map[string]struct {
			open *wirepb.Open
			want wire.Code
		}{
			"as it should be":             {&wirepb.Open{MappingId: m.id, TargetClient: target.id}, ""},
			"a service of the sender's":   {&wirepb.Open{MappingId: m.id, TargetClient: target.id, Service: "192.0.2.1:1"}, ""},
			"no such mapping":             {&wirepb.Open{MappingId: m.id + 1000, TargetClient: target.id}, wire.NoSuchMapping},
			"another client than it says": {&wirepb.Open{MappingId: m.id, TargetClient: other.id}, wire.NoSuchMapping},
			"a client that is not here":   {&wirepb.Open{MappingId: m.id, TargetClient: source.id}, wire.TargetOffline},
			"a version nobody has":        {&wirepb.Open{MappingId: m.id, TargetClient: target.id, MappingVersion: 1000}, ""},
		} {
			if code := wire.CodeOf(ask(try.open)); code != try.want {
				t.Errorf("%s: %q, want %q", what, code, try.want)
			}
		}
		c.plane.do(t, domain.SetMappingEnabled{ID: m.id})
		eventually(t, "a disabled mapping is refused by the target's forwarder too", func() bool {
			return errors.Is(ask(&wirepb.Open{MappingId: m.id, TargetClient: target.id}), wire.MappingDisabled)
		})
	})
}

// What ends a mapping ends its streams at both forwarders, and so does a user who
// is disabled.
func TestDisabledEndsStreamsOnBothNodes(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		_, _, m := c.apart(echo(t))
		for what, command := range map[string][2]domain.Command{
			"mapping": {domain.SetMappingEnabled{ID: m.id}, domain.SetMappingEnabled{ID: m.id, Enabled: true}},
			"user":    {domain.SetUserEnabled{ID: c.user}, domain.SetUserEnabled{ID: c.user, Enabled: true}},
		} {
			// The second forwarder may be behind, and still have the end of before to come.
			var conn net.Conn
			eventually(t, "it works before the "+what+" is disabled", func() bool {
				if conn = dialled(t, m.address); conn == nil {
					return false
				}
				return roundTrip(conn, "alive") == nil
			})
			c.plane.do(t, command[0])
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("%s disabled: the stream got %v, want a reset", what, err)
			}
			for _, id := range []string{"node-00a", "node-00b"} {
				c.member(id).unused(t)
			}
			c.plane.do(t, command[1])
		}
	})
}

// Connections of a mapping count where its source agent is, and only there.
func TestLimitsCountAtTheSource(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		user := c.newUser(domain.Limits{MaxConnectionsPerMapping: ptr(int64(2))})
		source, target := c.client(user), c.client(user)
		c.agent(target, c.at("node-00b"))
		c.agent(source, c.at("node-00a"))
		m := c.mapping(source, target, echo(t))
		c.listening(m)
		first, second := connect(t, m.address), connect(t, m.address)
		if err := errors.Join(roundTrip(first, "a"), roundTrip(second, "b")); err != nil {
			t.Fatal(err)
		}
		if _, err := heard(m.address); !isReset(err) {
			t.Fatalf("the third connection got %v, want a reset", err)
		}
		first.Close()
		eventually(t, "a connection is free", func() bool { return works(m.address) })
		second.Close()
	})
}

// The target's agent moves: from the second forwarder to the third, and then to
// the source's own. New connections follow, and what the source's forwarder
// remembers does not hold them up.
func TestTargetMoves(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		source, target := c.client(c.user), c.client(c.user)
		c.agent(source, c.at("node-00a"))
		m := c.mapping(source, target, echo(t))
		c.listening(m)
		if _, err := heard(m.address); !isReset(err) {
			t.Fatalf("a target that is nowhere: %v", err)
		}
		for _, id := range []string{"node-00b", "node-00c", "node-00a", "node-00b"} {
			r := c.agent(target, c.at(id))
			if err := roundTrip(connect(t, m.address), "now at "+id); err != nil {
				t.Fatalf("after the move to %s: %v", id, err)
			}
			conn := connect(t, m.address)
			if err := roundTrip(conn, "a stream that lives"); err != nil {
				t.Fatal(err)
			}
			if id == "node-00c" {
				continue // the next one fences it
			}
			r.stop()
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("a stream outlived its target")
			}
		}
		for _, id := range nodeIDs {
			c.member(id).unused(t)
		}
	})
}

// A directory that has lost everything ends no connection and keeps none from
// being made: what is remembered is asked.
func TestDirectoryFlushed(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		_, _, m := c.apart(echo(t))
		if !works(m.address) {
			t.Fatal("it does not work before")
		}
		c.presences.flush()
		for range 20 {
			if !works(m.address) {
				t.Fatal("a connection failed after the directory was flushed")
			}
		}
	})
}
