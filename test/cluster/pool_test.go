package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// opened connects, sees one byte come back and leaves the connection open.
func opened(port int) (*net.TCPConn, error) {
	conn, err := programs.DialPort(port)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err = conn.Write([]byte("x")); err == nil {
		_, err = io.ReadFull(conn, make([]byte, 1))
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// connected compares the bridge connections, as /metrics and the kernel list them, with
// the expected ones.
func connected(c *programs.Cluster, want int) error {
	sum := 0
	for _, f := range c.Forwarders {
		n, err := f.Sum("tunnox_bridge_pool_connections")
		if err != nil {
			return err
		}
		sum += int(n)
	}
	kernel, err := programs.ConnectionsTo(c.Bridges()...)
	if err == nil && (sum != want || kernel != want) {
		err = fmt.Errorf("bridge connections: %d in /metrics, %d in the kernel's table, want %d", sum, kernel, want)
	}
	return err
}

// TestEveryPairSharesAConnection: from each of three forwarders to each other a hundred
// connections at once, over one bridge connection for each direction of a pair. One
// more opens a second bridge connection, which is closed after it was idle.
func TestEveryPairSharesAConnection(t *testing.T) {
	const nodes, each = 3, 100
	c := programs.StartCluster(t, nodes, services.Postgres(t), services.Redis(t), "--bridge-idle", "2s")
	service := programs.Listen(t, programs.Echo).Port
	user := c.Control.API.CreateUser(t, "ann")
	var at [nodes]*ends
	for i, f := range c.Forwarders {
		at[i] = joinAs(t, c.Control.API, user, f, f)
	}
	ports := map[[2]int]int{}
	for i := range nodes {
		for j := range nodes {
			if i != j {
				between := *at[i]
				between.target = at[j].target
				ports[[2]int{i, j}] = between.mapping(t, service)
			}
		}
	}
	programs.Eventually(t, 10*time.Second, c.Unused)

	var mu sync.Mutex
	var conns []*net.TCPConn
	var g errgroup.Group
	for pair, port := range ports {
		for range each {
			g.Go(func() error {
				conn, err := opened(port)
				if err != nil {
					return fmt.Errorf("from %d to %d: %w", pair[0], pair[1], err)
				}
				mu.Lock()
				defer mu.Unlock()
				conns = append(conns, conn)
				return nil
			})
		}
	}
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	active := 0.0
	for _, f := range c.Forwarders {
		n, err := f.Sum("tunnox_bridge_pool_active_streams")
		if err != nil {
			t.Fatal(err)
		}
		active += n
	}
	if want := float64(len(ports) * each); active != want {
		t.Errorf("%v streams are open, want %v", active, want)
	}
	if err := connected(c, len(ports)); err != nil {
		t.Error(err)
	}
	t.Logf("%v streams over %d connections", active, len(ports))

	more, err := opened(ports[[2]int{0, 1}])
	if err != nil {
		t.Fatal(err)
	}
	conns = append(conns, more)
	if err := connected(c, len(ports)+1); err != nil {
		t.Errorf("with one stream more: %v", err)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	conns = nil
	programs.Eventually(t, 10*time.Second, c.Unused)
	programs.Eventually(t, 15*time.Second, func() error { return connected(c, len(ports)) })
}

// TestNothingStaysInUse: however a connection fails or ends, its place in the pool
// becomes free.
func TestNothingStaysInUse(t *testing.T) {
	t.Parallel()
	c := start(t, 2)
	e := join(t, c.Control.API, c.Forwarders[0], c.Forwarders[1])
	silent := e.mapping(t, programs.Listen(t, programs.Echo).Port)
	resets := e.CreateMapping(t, e.wanted(t, programs.Listen(t, func(conn *net.TCPConn) {
		_, _ = conn.Read(make([]byte, 1)) // until there is something that a reset destroys
		_ = conn.SetLinger(0)
	}).Port)).LocalPort
	nobody := e.CreateMapping(t, e.wanted(t, programs.FreePort(t))).LocalPort
	away := e.mapping(t, programs.Listen(t, programs.Echo).Port)

	const many = 40
	storm := func(port int, end func(*net.TCPConn)) {
		t.Helper()
		var g errgroup.Group
		for range many {
			g.Go(func() error {
				conn, err := programs.DialPort(port)
				if errors.Is(err, syscall.ECONNRESET) {
					return nil // refused before it was quite there
				}
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				_, _ = conn.Write([]byte("x")) // it may be reset already
				end(conn)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
	toEnd := func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }
	reset := func(conn *net.TCPConn) { _ = conn.SetLinger(0) }
	unused := func(after string) {
		t.Helper()
		if err := programs.Poll(10*time.Second, c.Unused); err != nil {
			t.Errorf("after %s: %v", after, err)
		}
	}
	waitListens(t, e.sourceAgent, nobody, resets)

	storm(nobody, toEnd)
	unused("services that nobody serves")
	storm(resets, toEnd)
	unused("resets of the service")
	storm(silent, func(conn *net.TCPConn) { _, _ = conn.Read(make([]byte, 1)); reset(conn) })
	unused("resets of the client")
	storm(silent, reset)
	unused("connections given up while they are made")

	// The target agent does not answer: opens are under way when their clients leave,
	// when the mapping ends, and when the agent ends.
	signal(t, e.targetAgent, syscall.SIGSTOP)
	storm(silent, reset)
	storm(away, reset)
	for _, m := range programs.All[programs.Mapping](t, e.API, fmt.Sprintf("/api/v1/users/%d/mappings", e.user.ID)) {
		if m.LocalPort == away {
			e.Do(t, http.MethodDelete, fmt.Sprintf("/api/v1/mappings/%d", m.ID), nil, nil)
		}
	}
	signal(t, e.targetAgent, syscall.SIGCONT)
	unused("cancels while the target agent slept")
	works(t, silent)
	signal(t, e.targetAgent, syscall.SIGSTOP)
	storm(silent, reset)
	e.targetAgent.Kill()
	unused("the death of the target agent")

	// Streams are under way when a node dies.
	e.targetAgent = c.Forwarders[1].Join(t, e.API, e.target)
	works(t, silent)
	var held []*net.TCPConn
	for range many {
		conn, err := opened(silent)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	c.Forwarders[1].Kill()
	for _, conn := range held {
		toEnd(conn)
		_ = conn.Close()
	}
	unused("the death of the target's forwarder")
}
