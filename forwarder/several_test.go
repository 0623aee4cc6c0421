package forwarder_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// nodesOf names the nodes that a client has sessions at.
func (c *cluster) nodesOf(of client) (nodes []string) {
	for _, s := range c.presences.all(of.id) {
		nodes = append(nodes, s.Node)
	}
	slices.Sort(nodes)
	return nodes
}

// twice waits until each client has sessions at two nodes, but not at this one.
func (c *cluster) twice(but string, clients ...client) {
	c.t.Helper()
	for _, of := range clients {
		eventually(c.t, fmt.Sprintf("client %d has two sessions, none at %q", of.id, but), func() bool {
			nodes := c.nodesOf(of)
			return len(nodes) == 2 && !slices.Contains(nodes, but)
		})
	}
}

// connections makes a new connection every few milliseconds until it is told to
// end, and then gives how many there were and when, since its start, one failed.
func connections(t *testing.T, address string) (end func() (n int, failures []time.Duration)) {
	began := time.Now()
	var mu sync.Mutex
	var n int
	var failures []time.Duration
	var running sync.WaitGroup
	stop := make(chan struct{})
	running.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			running.Go(func() {
				at := time.Since(began)
				ok := works(address)
				mu.Lock()
				defer mu.Unlock()
				if n++; !ok {
					failures = append(failures, at)
				}
			})
		}
	})
	end = sync.OnceValues(func() (int, []time.Duration) {
		close(stop)
		running.Wait()
		return n, failures
	})
	t.Cleanup(func() { end() })
	return end
}

// An agent that was given one address has sessions at two nodes, and listens once.
// When a node is lost from one moment to the next, new connections go on over the
// other, and soon there are two sessions again.
func TestTwoSessions(t *testing.T) {
	t.Parallel() // it waits more than it works
	overCluster(t, func(t *testing.T, c *cluster) {
		source, target := c.client(c.user), c.client(c.user)
		c.agent(target, c.from("node-00b"))
		c.agent(source, c.from("node-00a"))
		c.twice("", source, target)
		m := c.mapping(source, target, echo(t))
		c.listening(m)
		watch := pace.Measure(t)
		for _, id := range []string{"node-00a", "node-00b", "node-00c"} {
			end := connections(t, m.address)
			time.Sleep(50 * time.Millisecond) // it is under load
			began := time.Now()
			c.cut(id)
			c.twice(id, source, target)
			back := time.Since(began)
			n, failures := end()
			t.Logf("%s lost: %d connections, %d failed; two sessions again after %v", id, n, len(failures), back)
			// What was being carried is lost; what comes later is not.
			for i, at := range failures {
				if late := at - failures[0]; late > watch.Allow(2*time.Second) {
					t.Errorf("failure %d is %v after the first", i, late)
				}
			}
			c.mend(id)
		}
	})
}

// Each forwarder in turn drains, ends and starts anew: no new connection fails, and
// one that lives through a drain is not hurt.
func TestRollingRestart(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, sessions := range []int{1, 2} {
		t.Run(fmt.Sprintf("sessions %d", sessions), func(t *testing.T) {
			overCluster(t, func(t *testing.T, c *cluster) {
				keep := func(cfg *agent.Config) { cfg.Sessions = sessions }
				source, target := c.client(c.user), c.client(c.user)
				c.agent(target, c.from("node-00b"), keep)
				c.agent(source, c.from("node-00a"), keep)
				m := c.mapping(source, target, echo(t))
				c.listening(m)
				end := connections(t, m.address)
				for _, id := range nodeIDs {
					c.restart(id, m)
				}
				n, failures := end()
				if t.Logf("%d connections, %d failed", n, len(failures)); len(failures) > 0 {
					t.Errorf("%d of %d connections failed, at %v", len(failures), n, failures)
				}
			})
		})
	}
}

// restart drains a node while a connection lives, and replaces it.
func (c *cluster) restart(id string, m mapping) {
	c.t.Helper()
	conn, err := net.Dial("tcp", m.address)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(pace.Guard))
	if err := roundTrip(conn, "before"); err != nil {
		c.t.Fatal(err)
	}
	old := c.member(id)
	ctx, cancel := context.WithTimeout(context.Background(), pace.Guard)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- old.Drain(ctx) }()
	for range 20 {
		if err := roundTrip(conn, "meanwhile"); err != nil {
			c.t.Fatalf("a connection that lives while %s drains: %v", id, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	conn.Close()
	if err := <-drained; err != nil {
		c.t.Fatal(err)
	}
	old.stop()
	c.prepare(id).run()
}

// A newer agent with the same client id ends all sessions of the older, which is
// told why and does not come back.
func TestNewerInstanceFencesEverySession(t *testing.T) {
	t.Parallel() // it waits more than it works
	overCluster(t, func(t *testing.T, c *cluster) {
		source, target := c.client(c.user), c.client(c.user)
		c.agent(target, c.from("node-00b"))
		first := c.agent(source, c.from("node-00a"))
		c.twice("", source)
		m := c.mapping(source, target, echo(t))
		c.listening(m)
		began := time.Now()
		c.agent(source, c.at("node-00c"))
		first.fenced(t, "it is at ")
		t.Logf("the older stands back after %v", time.Since(began))
		eventually(t, "only the newer is there", func() bool { return slices.Equal(c.nodesOf(source), []string{"node-00c"}) })
		eventually(t, "the newer serves the mapping", func() bool { return works(m.address) })
	})
}

// A client is disconnected at every node, and its agent comes back.
func TestDisconnectedByAnOperator(t *testing.T) {
	t.Parallel() // it waits more than it works
	overCluster(t, func(t *testing.T, c *cluster) {
		of := c.client(c.user)
		r := c.agent(of, c.from("node-00a"))
		c.twice("", of)
		before := c.presences.all(of.id)
		began := time.Now()
		if nodes, err := c.presences.Disconnect(t.Context(), of.id); err != nil || len(nodes) != 2 {
			t.Fatalf("disconnected at %v, %v", nodes, err)
		}
		if nodes := c.nodesOf(of); len(nodes) != 0 {
			t.Errorf("still at %v", nodes)
		}
		for _, s := range before {
			m := c.member(s.Node)
			eventually(t, "the session at "+s.Node+" ends", func() bool {
				return number(t, m.metrics, "tunnox_sessions_refused_total", string(wire.Disconnected)) == 1
			})
		}
		t.Logf("both sessions have ended after %v", time.Since(began))
		c.twice("", of)
		if d := time.Since(began); d < time.Second {
			t.Errorf("it was back after %v", d)
		}
		select {
		case <-r.done:
			t.Errorf("the agent ended: %v", r.err)
		default:
		}
	})
}

// A node drains because somebody asked for it over the directory: it says so, its
// agents leave, and it stays.
func TestAskedToDrain(t *testing.T) {
	t.Parallel() // it waits more than it works
	overCluster(t, func(t *testing.T, c *cluster) {
		source, target := c.client(c.user), c.client(c.user)
		c.agent(target, c.from("node-00b"))
		c.agent(source, c.from("node-00a"))
		c.twice("", source, target)
		m := c.mapping(source, target, echo(t))
		c.listening(m)
		end := connections(t, m.address)
		if err := c.presences.RequestDrain(t.Context(), "node-00b"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "node-00b announces that it drains", func() bool {
			nodes, err := c.presences.Nodes(t.Context(), "node-00b")
			return err == nil && len(nodes) == 1 && nodes[0].State == directory.NodeDraining
		})
		c.twice("node-00b", source, target)
		eventually(t, "its agents have left", func() bool { n, _ := c.member("node-00b").Load(); return n == 0 })
		if n, failures := end(); len(failures) > 0 {
			t.Errorf("%d of %d connections failed, at %v", len(failures), n, failures)
		}
	})
}

// Behind a balancer all nodes have one address. An agent finds a second node
// there all the same, and no try disturbs the session that it has.
func TestBalancer(t *testing.T) {
	t.Parallel() // it waits more than it works
	overCluster(t, func(t *testing.T, c *cluster) {
		for _, id := range nodeIDs {
			if err := c.presences.Announce(t.Context(), "", directory.Node{ID: id, Bridge: c.member(id).address,
				Agents: "balancer:443", State: directory.NodeActive}); err != nil {
				t.Fatal(err)
			}
		}
		var dials atomic.Int64
		of := c.client(c.user)
		c.agent(of, func(cfg *agent.Config) {
			cfg.Servers = []string{"balancer:443"}
			cfg.Dial = func(ctx context.Context, _ string) (transport.Session, error) {
				// The same node for some time, whatever is wanted.
				return c.dialNode(ctx, nodeIDs[min(dials.Add(1)/4, 2)])
			}
		})
		first := c.session(of)
		c.twice("", of)
		kept := func(s directory.Session) bool { return s.Session == first.Session }
		if all := c.presences.all(of.id); !slices.ContainsFunc(all, kept) {
			t.Errorf("the first session was replaced: %+v, now %+v", first, all)
		}
		if n := dials.Load(); n < 4 || n > 8 {
			t.Errorf("%d dials", n)
		}
	})
}

// A node speaks for the clients that are connected to it, and for no others.
func TestNodesDeliverForTheirOwnClients(t *testing.T) {
	t.Parallel() // it waits more than it works
	overCluster(t, func(t *testing.T, c *cluster) {
		_, target, m := c.apart(echo(t))
		b, third := c.member("node-00b"), c.member("node-00c")
		ask := func() error {
			stream, err := third.peers.open(t.Context(), b.id, b.address)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Reset()
			stream.SetDeadline(time.Now().Add(pace.Guard))
			if err := wire.WriteOpen(stream, &wirepb.Open{MappingId: m.id, TargetClient: target.id, Hop: 1}); err != nil {
				t.Fatal(err)
			}
			return wire.ReadOpened(stream)
		}
		for range 2 {
			if err := ask(); !errors.Is(err, wire.NoSuchMapping) {
				t.Errorf("a node without the source: %v", err)
			}
			if !works(m.address) {
				t.Error("the source's own node is refused")
			}
		}
		// A directory that has lost everything keeps nobody from connecting.
		c.presences.flush()
		if err := ask(); err != nil {
			t.Errorf("after a flush: %v", err)
		}
	})
}

// A forwarder that is frozen, and answers nothing at all, does not keep connections
// from a target that has another session.
func TestFrozenNodeIsPassedBy(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newCluster(t, "memory")
	source, target := c.client(c.user), c.client(c.user)
	c.agent(target, c.from("node-00b"))
	c.agent(source, c.at("node-00a"))
	c.twice("", target)
	if slices.Contains(c.nodesOf(target), "node-00a") {
		c.cut("node-00a") // the other two it will be
		c.twice("node-00a", target)
		c.mend("node-00a")
	}
	m := c.mapping(source, target, echo(t))
	c.listening(m)
	frozen := transport.ListenMemory() // takes sessions and says nothing
	defer frozen.Close()
	c.mu.Lock()
	c.reach["node-00b"] = frozen
	c.mu.Unlock()
	var held sync.WaitGroup
	defer held.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	held.Go(func() {
		for {
			link, err := frozen.Accept(ctx)
			if err != nil {
				return
			}
			defer link.Close()
		}
	})
	watch := pace.Measure(t)
	for range 4 {
		began := time.Now()
		if !works(m.address) {
			t.Fatal("a connection failed")
		}
		if d := time.Since(began); d > watch.Allow(5*time.Second) {
			t.Errorf("it took %v", d)
		}
	}
	cancel()
}

// A directory that was away may have let another node's lease run out and not this
// one's. Until that node has registered its sessions again nobody is refused.
func TestOthersLeasesRanOutWhileTheDirectoryWasAway(t *testing.T) {
	t.Parallel() // it waits for a heartbeat
	overCluster(t, func(t *testing.T, c *cluster) {
		source, _, m := c.apart(echo(t))
		c.presences.away(true)
		for end := time.Now().Add(3 * directory.TTL); c.presences.missed("node-00b") == 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("no heartbeat was missed")
			}
		}
		time.Sleep(100 * time.Millisecond) // the node has been told that it failed
		c.presences.away(false)
		for _, s := range c.presences.all(source.id) {
			if err := c.presences.Remove(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			if !works(m.address) {
				t.Fatal("a connection failed, because the directory had lost the source")
			}
		}
	})
}

// An agent of an older version, which knows of one session only, is served as
// before: it is told nothing that it would have to understand.
func TestOldAgentIsServed(t *testing.T) {
	t.Parallel() // it waits more than it works
	overCluster(t, func(t *testing.T, c *cluster) {
		source, target, m := c.apart(echo(t))
		c.settled(source)
		for _, of := range []client{source, target} {
			if nodes := c.nodesOf(of); len(nodes) != 1 {
				t.Errorf("client %d is at %v", of.id, nodes)
			}
		}
		if !works(m.address) {
			t.Error("it does not work")
		}
	})
}
