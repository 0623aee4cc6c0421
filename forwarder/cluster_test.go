package forwarder_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/bridge"
	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/transport"
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
	open  map[string]*forwarder.Ports          // public ports, by node
	hosts map[string]bool                      // nodes that serve public hosts
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
		n := directory.Node{ID: id, Bridge: m.address, Agents: m.agents, State: state}
		if ports := c.open[id]; ports != nil {
			n.Public, n.FirstPort, n.LastPort = "127.0.0.1", ports.First, ports.Last
		}
		if c.hosts[id] {
			n.BaseDomain = "t.example.org"
		}
		if err := c.presences.Announce(context.Background(), "", n); err != nil {
			c.t.Error(err)
		}
	}
	f, err := forwarder.New(forwarder.Config{Node: id, Lookup: c.plane, Feed: c.plane, Directory: c.presences, Nodes: c.presences, Portions: c.presences,
		Peers: m.peers, Logger: c.log.With("part", id), Metrics: metrics, Limits: c.limits, Ports: c.open[id],
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
			switch {
			case family.GetName() != name:
			case label == "" && metric.Gauge != nil:
				return metric.GetGauge().GetValue()
			case label != "" && metric.Label[0].GetValue() == label:
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func (c *cluster) sourceOf(m mapping) int64 { return c.stateOf(m).SourceClientID }
func (c *cluster) targetOf(m mapping) int64 { return c.stateOf(m).TargetClientID }
func (c *cluster) stateOf(m mapping) *domain.Mapping {
	c.plane.mu.Lock()
	defer c.plane.mu.Unlock()
	return c.plane.state(domain.MappingStream(m.id)).(*domain.Mapping)
}
