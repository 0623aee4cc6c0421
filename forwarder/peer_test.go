package forwarder_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/bridge"
	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// cluster is a world with more than one forwarder. Those of a world over memory
// reach each other over memory, the others over the real bridge.
type cluster struct {
	*world
	authority *control.Authority

	mu    sync.Mutex
	nodes map[string]*member                   // guarded by mu
	reach map[string]*transport.MemoryListener // guarded by mu; by node, over memory
	links map[string][]transport.Session       // guarded by mu; of agents, by node
	gone  map[string]bool                      // guarded by mu; nodes that agents do not reach
}

// member is a forwarder of a cluster.
type member struct {
	*node
	id      string
	address string       // of its bridge
	agents  string       // where agents connect
	pool    *bridge.Pool // over the real bridge
	peers   *peers
	run     func()
}

// overCluster runs one test body over both kinds of cluster, of three forwarders.
func overCluster(t *testing.T, body func(t *testing.T, c *cluster)) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			c := newCluster(t, mode)
			body(t, c)
			for _, id := range nodeIDs {
				c.member(id).unused(t)
			}
		})
	}
}

var nodeIDs = []string{"node-00a", "node-00b", "node-00c"}

func newCluster(t *testing.T, mode string) *cluster {
	w := newWorld(t, mode) // its own forwarder is outside the cluster
	c := &cluster{world: w, nodes: map[string]*member{}, reach: map[string]*transport.MemoryListener{},
		links: map[string][]transport.Session{}, gone: map[string]bool{}}
	var err error
	if c.authority, err = control.OpenAuthority(t.Context(), control.NewFileVault(t.TempDir()), control.AuthorityOptions{}); err != nil {
		t.Fatal(err)
	}
	var members []*member
	for _, id := range nodeIDs {
		members = append(members, c.prepare(id))
	}
	for _, m := range members { // when all are announced, so that each knows the others at once
		m.run()
	}
	return c
}

// member gives the present life of a node.
func (c *cluster) member(id string) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

// peers counts what one forwarder opens to others.
type peers struct {
	opened atomic.Int64
	open   func(ctx context.Context, node, address string) (transport.Stream, error)
}

func (p *peers) Open(ctx context.Context, node, address string) (transport.Stream, error) {
	p.opened.Add(1)
	return p.open(ctx, node, address)
}

// prepare makes a forwarder of the cluster that others know; its run starts it.
func (c *cluster) prepare(id string) *member {
	c.t.Helper()
	metrics := forwarder.NewMetrics()
	m := &member{id: id, peers: &peers{}}
	announce := func(state directory.NodeState) {
		if err := c.presences.Announce(context.Background(), "", directory.Node{ID: id, Bridge: m.address, Agents: m.agents, State: state}); err != nil {
			c.t.Error(err)
		}
	}
	f, err := forwarder.New(forwarder.Config{Node: id, Lookup: c.plane, Feed: c.plane, Directory: c.presences, Nodes: c.presences,
		Peers: m.peers, Logger: c.log.With("part", id), Metrics: metrics, Limits: c.limits,
		Announce: func(context.Context) { announce(directory.NodeDraining) }})
	if err != nil {
		c.t.Fatal(err)
	}
	at := "127.0.0.1:0"
	if old := c.member(id); old != nil && c.mode != "memory" {
		at = old.agents // a restart finds agents where they were
	}
	m.node = &node{Forwarder: f, metrics: metrics, listener: c.listenAt(at)}
	m.agents = m.listener.Addr().String()
	unlink := c.linkMemory
	if c.mode != "memory" {
		unlink = c.linkBridge
	} else {
		m.agents = id + ":1"
	}
	end := unlink(m)
	var running sync.WaitGroup
	m.run = func() {
		running.Go(func() {
			if err := f.Run(context.Background()); err != nil {
				c.t.Errorf("%s: %v", id, err)
			}
		})
		running.Go(func() {
			if err := f.Serve(context.Background(), m.listener); err != nil {
				c.t.Errorf("%s: %v", id, err)
			}
		})
	}
	m.stop = sync.OnceFunc(func() {
		f.Close()
		end()
		m.listener.Close()
		running.Wait()
	})
	c.closing = append([]func(){m.stop}, c.closing...) // after the agents
	c.mu.Lock()
	c.nodes[id] = m
	c.mu.Unlock()
	announce(directory.NodeActive)
	return m
}

// linkMemory lets the forwarder be reached over sessions in memory.
func (c *cluster) linkMemory(m *member) (end func()) {
	listener := transport.ListenMemory()
	m.address = m.id
	var mu sync.Mutex
	links := map[string]transport.Session{}
	m.peers.open = func(ctx context.Context, to, _ string) (transport.Stream, error) {
		c.mu.Lock()
		peer := c.reach[to]
		c.mu.Unlock()
		if peer == nil {
			return nil, errors.New("no such node")
		}
		mu.Lock()
		defer mu.Unlock()
		if links[to] == nil || links[to].Err() != nil {
			link, err := peer.Dial(ctx)
			if err != nil {
				return nil, err
			}
			links[to] = link
			named, err := link.Open(ctx) // the first stream says who it is, as a certificate does
			if err != nil {
				return nil, err
			}
			if _, err := io.WriteString(named, m.id); err != nil {
				return nil, err
			}
		}
		return links[to].Open(ctx)
	}
	c.mu.Lock()
	c.reach[m.id] = listener
	c.mu.Unlock()
	var accepted []transport.Session // guarded by mu
	var running sync.WaitGroup
	running.Go(func() {
		for {
			link, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			mu.Lock()
			accepted = append(accepted, link)
			mu.Unlock()
			running.Go(func() {
				defer link.Close()
				from := make([]byte, len(m.id))
				if named, err := link.Accept(context.Background()); err == nil {
					_, _ = io.ReadFull(named, from)
				}
				for {
					stream, err := link.Accept(context.Background())
					if err != nil {
						return
					}
					running.Go(func() { m.Deliver(string(from), stream) })
				}
			})
		}
	})
	return func() {
		mu.Lock()
		for _, link := range links {
			link.Close()
		}
		mu.Unlock()
		listener.Close()
		mu.Lock()
		for _, link := range accepted {
			link.Close()
		}
		mu.Unlock()
		running.Wait()
	}
}

// linkBridge lets the forwarder be reached over the bridge.
func (c *cluster) linkBridge(m *member) (end func()) {
	issued, err := c.authority.IssueNode(m.id)
	if err != nil {
		c.t.Fatal(err)
	}
	trust := bridge.Trust{
		Certificate: func() (*tls.Certificate, error) { return &issued.Certificate, nil },
		Roots:       func() (*x509.CertPool, error) { return c.authority.Roots(), nil },
	}
	server, err := bridge.NewServer(bridge.ServerConfig{Trust: trust, Handle: func(_ context.Context, from bridge.Identity, s transport.Stream) {
		m.Deliver(from.Node, s)
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	if m.pool, err = bridge.NewPool(bridge.PoolConfig{Trust: trust}); err != nil {
		c.t.Fatal(err)
	}
	m.peers.open = func(ctx context.Context, node, address string) (transport.Stream, error) {
		return m.pool.Open(ctx, bridge.Peer{Node: node, Address: address})
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	m.address = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	return func() {
		m.pool.Close()
		server.Stop()
		if err := <-served; err != nil {
			c.t.Error(err)
		}
	}
}

// unused waits until no stream is at the forwarder or in its pool.
func (m *member) unused(t testing.TB) {
	t.Helper()
	eventually(t, "nothing is left at "+m.id, func() bool {
		if _, streams := m.Load(); streams != 0 {
			return false
		}
		if m.pool != nil {
			for _, s := range m.pool.Stats() {
				if s.Active != 0 || s.Waiting != 0 {
					return false
				}
			}
		}
		return true
	})
}

// at makes an agent use one forwarder only.
func (c *cluster) at(id string) func(*agent.Config) {
	return func(cfg *agent.Config) {
		cfg.Sessions = 1
		cfg.Dial = func(ctx context.Context, _ string) (transport.Session, error) { return c.dialNode(ctx, id) }
	}
}

// from makes an agent begin at a forwarder, and go where it is told.
func (c *cluster) from(id string) func(*agent.Config) {
	return func(cfg *agent.Config) {
		cfg.Servers = []string{c.member(id).agents}
		cfg.Dial = func(ctx context.Context, server string) (transport.Session, error) {
			c.mu.Lock()
			for node, m := range c.nodes {
				if m.agents == server {
					c.mu.Unlock()
					return c.dialNode(ctx, node)
				}
			}
			c.mu.Unlock()
			return nil, fmt.Errorf("nobody is at %s", server)
		}
	}
}

// dialNode is an agent's way to a node.
func (c *cluster) dialNode(ctx context.Context, id string) (link transport.Session, err error) {
	c.mu.Lock()
	m, gone := c.nodes[id], c.gone[id]
	c.mu.Unlock()
	if gone {
		return nil, errors.New("connection refused")
	}
	switch l := m.listener.(type) {
	case *transport.MemoryListener:
		link, err = l.Dial(ctx)
	default:
		link, err = transport.DialTLS(ctx, m.agents, transport.DialConfig{Pins: []transport.Pin{pin(c.t)}})
	}
	if err == nil {
		c.mu.Lock()
		c.links[id] = append(c.links[id], link)
		c.mu.Unlock()
	}
	return link, err
}

// cut ends all links of agents to a node at once, and lets nobody connect to it
// until it is mended.
func (c *cluster) cut(id string) {
	c.mu.Lock()
	c.gone[id] = true
	links := c.links[id]
	c.links[id] = nil
	c.mu.Unlock()
	for _, link := range links {
		link.Close()
	}
}

func (c *cluster) mend(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.gone, id)
}

// apart makes a source agent at the first forwarder and a target agent at the second.
func (c *cluster) apart(service string) (source, target client, m mapping) {
	c.t.Helper()
	source, target = c.client(c.user), c.client(c.user)
	c.agent(target, c.at("node-00b"))
	c.agent(source, c.at("node-00a"))
	m = c.mapping(source, target, service)
	c.listening(m)
	return source, target, m
}

// number reads a metric's value for a label, 0 when it is not there.
func number(t testing.TB, from prometheus.Collector, name, label string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(from); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.Metric {
			if family.GetName() == name && metric.Label[0].GetValue() == label {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestBytesCrossTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		_, _, m := c.apart(echo(t))
		conn := connect(t, m.address)
		for i := range 10 {
			if err := roundTrip(conn, fmt.Sprintf("line %d\n", i)); err != nil {
				t.Fatal(err)
			}
		}
		a, b := c.member("node-00a"), c.member("node-00b")
		if out, in := number(t, a.metrics, "tunnox_bridge_opens_total", "out"), number(t, b.metrics, "tunnox_bridge_opens_total", "in"); out != 1 || in != 1 {
			t.Errorf("%v streams went out and %v came in, want 1 and 1", out, in)
		}
		// Connection and bytes count at one node, the source's.
		traffic := func(m *member, id int64) forwarder.Traffic {
			for _, x := range m.Traffic() {
				if x.MappingID == id {
					return x
				}
			}
			t.Fatalf("%s does not know mapping %d", m.id, id)
			return forwarder.Traffic{}
		}
		eventually(t, "one stream and 70 bytes each way at the source's forwarder", func() bool {
			x := traffic(a, m.id) // bytes are counted right after they were handed on
			return x.Streams == 1 && x.ToTarget == 70 && x.ToSource == 70
		})
		if x := traffic(b, m.id); x.Streams != 0 || x.ToTarget != 0 || x.ToSource != 0 {
			t.Errorf("at the target's forwarder: %+v", x)
		}
		conn.Close()
	})
}

func TestHalfCloseCrossesTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		_, _, m := c.apart(serve(t, func(conn *net.TCPConn) {
			request, _ := io.ReadAll(conn)
			conn.Write(append(request, make([]byte, 200_000)...))
		}))
		conn := connect(t, m.address)
		io.WriteString(conn, "the request")
		conn.CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil || len(got) != 200_011 || string(got[:11]) != "the request" {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	})
}

func TestResetsCrossTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		seen := make(chan error, 1)
		_, _, m := c.apart(serve(t, func(conn *net.TCPConn) {
			kind := make([]byte, 1)
			conn.Read(kind)
			if kind[0] == 'r' {
				conn.SetLinger(0)
				return
			}
			conn.Write(kind)
			_, err := io.Copy(io.Discard, conn)
			seen <- err
		}))
		conn := connect(t, m.address)
		io.WriteString(conn, "r")
		if _, err := conn.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("a reset of the service is %v", err)
		}
		conn = connect(t, m.address)
		if err := roundTrip(conn, "w"); err != nil {
			t.Fatal(err)
		}
		conn.SetLinger(0)
		conn.Close()
		select {
		case err := <-seen:
			if !isReset(err) {
				t.Errorf("a reset of the client is %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the service was not told of a reset")
		}
		// A refusal of the target agent's comes back as it was said.
		refused := c.mapping(client{id: c.sourceOf(m)}, client{id: c.targetOf(m)}, freeAddress(t))
		c.listening(refused)
		if _, err := heard(refused.address); !isReset(err) {
			t.Errorf("a refused dial is %v", err)
		}
		if n := number(t, c.member("node-00a").metrics, "tunnox_opens_refused_total", "dial_refused"); n != 1 {
			t.Errorf("counted %v refused dials", n)
		}
	})
}

func (c *cluster) sourceOf(m mapping) int64 { return c.stateOf(m).SourceClientID }
func (c *cluster) targetOf(m mapping) int64 { return c.stateOf(m).TargetClientID }
func (c *cluster) stateOf(m mapping) *domain.Mapping {
	c.plane.mu.Lock()
	defer c.plane.mu.Unlock()
	return c.plane.state(domain.MappingStream(m.id)).(*domain.Mapping)
}

func TestSlowReaderBlocksNobodyAcrossTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		_, _, m := c.apart(serve(t, func(conn *net.TCPConn) {
			kind := make([]byte, 1)
			conn.Read(kind)
			if kind[0] == 'f' {
				io.Copy(conn, neverending{})
				return
			}
			io.Copy(conn, conn)
		}))
		var slow []net.Conn
		for range 4 {
			conn := connect(t, m.address)
			io.WriteString(conn, "f") // and never reads
			slow = append(slow, conn)
		}
		conn := connect(t, m.address)
		io.WriteString(conn, "e")
		for range 200 {
			began := time.Now()
			if err := roundTrip(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d > 2*time.Second {
				t.Fatalf("a round trip took %v beside readers that do not read", d)
			}
		}
		for _, s := range append(slow, conn) {
			s.Close()
		}
	})
}

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
			stream.SetDeadline(time.Now().Add(5 * time.Second))
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
			stream.SetDeadline(time.Now().Add(5 * time.Second))
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
			eventually(t, "it works before the "+what+" is disabled", func() bool { return works(m.address) })
			conn := connect(t, m.address)
			if err := roundTrip(conn, "alive"); err != nil {
				t.Fatal(err)
			}
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

// Eight streams at once, random bytes both ways: they arrive as they were sent.
func TestManyStreamsCrossTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		size := int64(16 << 20) // 64 MiB go through the real programs in test/flow
		if raceEnabled || c.mode == "memory" {
			size = 4 << 20
		}
		sums := make(chan [sha256.Size]byte, 32)
		_, _, m := c.apart(serve(t, func(conn *net.TCPConn) { exchange(t, conn, size, sums) }))
		var running sync.WaitGroup
		for range 8 {
			conn := connect(t, m.address)
			running.Go(func() { exchange(t, conn, size, sums) })
		}
		running.Wait()
		seen := map[[sha256.Size]byte]int{}
		for range 32 {
			seen[<-sums]++
		}
		if len(seen) != 16 {
			t.Errorf("%d different hashes, want 16: one for each stream and direction", len(seen))
		}
	})
}
