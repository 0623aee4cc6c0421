package forwarder_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/datagram"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// portsFrom are public ports on loopback, a few from a free one on.
func portsFrom(t testing.TB) *forwarder.Ports {
	_, first := split(t, freeAddress(t))
	return &forwarder.Ports{First: first, Last: first + 9, Listen: func(port int) (net.Listener, error) {
		return net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}, ListenPacket: func(port int) (*datagram.Socket, error) {
		return datagram.Listen("udp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}}
}

// withPorts starts the world's forwarder anew with public ports.
func (w *world) withPorts(ports *forwarder.Ports) {
	w.t.Helper()
	w.current().stop()
	w.ports = ports
	w.start()
}

func offered(ports *forwarder.Ports) domain.PublicOffer {
	return domain.PublicOffer{Known: true, Ports: []domain.PortRange{{First: ports.First, Last: ports.Last}}, Now: time.Now()}
}

// public makes a mapping of the nth port to a service of a client.
func (w *world) public(ports *forwarder.Ports, n int, target client, service string) mapping {
	w.t.Helper()
	port := ports.First + n
	m := mapping{id: domain.FirstMappingID + w.plane.ids.Add(1), address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	host, at := split(w.t, service)
	w.plane.do(w.t, domain.CreateMapping{ID: m.id, Any: true, UserID: w.plane.clientOwner(target.id, w.user), TargetClientID: target.id,
		Protocol: domain.ProtocolTCP, Parts: domain.Parts{Origin: domain.Origin{PublicPort: domain.OnePort(port)},
			Service: domain.Service{TargetHost: host, TargetPort: at}}}.Offered(offered(ports)))
	return m
}

// greeter says a word at once, and then sends back what it gets.
func greeter(t testing.TB, word string) string {
	return serve(t, func(c *net.TCPConn) {
		io.WriteString(c, word)
		io.Copy(c, c)
		c.CloseWrite()
	})
}

// A visitor who says nothing hears the service; bytes pass both ways, a half-close
// stays one, and what is counted is what was carried.
func TestVisitorAtAPublicPort(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		w.withPorts(portsFrom(t))
		target := w.client(w.user)
		w.agent(target)
		m := w.public(w.ports, 0, target, greeter(t, "welcome"))
		w.listening(m)
		conn := connect(t, m.address)
		word := make([]byte, 7)
		if _, err := io.ReadFull(conn, word); err != nil || string(word) != "welcome" {
			t.Fatalf("the visitor hears %q, %v", word, err)
		}
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		go func() {
			conn.Write(sent)
			conn.CloseWrite()
		}()
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
		eventually(t, "the bytes are counted", func() bool {
			for _, x := range w.current().Traffic() {
				if x.MappingID == m.id {
					return x.ToTarget == int64(len(sent)) && x.ToSource == int64(len(sent)+7) && x.Streams == 0
				}
			}
			return false
		})
		if n := w.metric("tunnox_public_ports", "state", "open"); n != 1 {
			t.Errorf("%v ports are open", n)
		}
	})
}

// What ends a public mapping ends its listener and its live connections; a port that
// is changed ends the listener only.
func TestPublicPortFollowsItsMapping(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		w.withPorts(portsFrom(t))
		user := w.newUser(domain.Limits{})
		target := w.client(user)
		w.agent(target)
		m := w.public(w.ports, 0, target, echo(t))
		w.listening(m)
		live := connect(t, m.address)
		if err := roundTrip(live, "a"); err != nil {
			t.Fatal(err)
		}
		for what, change := range map[string][2]domain.Command{
			"the mapping is disabled": {domain.SetMappingEnabled{ID: m.id}, domain.SetMappingEnabled{ID: m.id, Enabled: true}},
			"the user is disabled":    {domain.SetUserEnabled{ID: user}, domain.SetUserEnabled{ID: user, Enabled: true}},
		} {
			w.plane.do(t, change[0])
			if _, err := live.Read(make([]byte, 1)); !isReset(err) {
				t.Errorf("%s: the live connection ends with %v", what, err)
			}
			w.closed(m)
			w.plane.do(t, change[1])
			w.listening(m)
			eventually(t, what+" no more", func() bool { return works(m.address) })
			live = connect(t, m.address)
			if err := roundTrip(live, "b"); err != nil {
				t.Fatal(err)
			}
		}
		moved := mapping{m.id, net.JoinHostPort("127.0.0.1", strconv.Itoa(w.ports.First+5))}
		w.plane.do(t, domain.ChangeMapping{ID: m.id, Patch: domain.Patch{"public_port": fmt.Append(nil, w.ports.First+5)}}.Offered(offered(w.ports)))
		w.listening(moved)
		w.closed(m)
		if err := roundTrip(live, "c"); err != nil {
			t.Errorf("the live connection: %v", err)
		}
		if !works(moved.address) {
			t.Error("the new port does not work")
		}
		w.plane.do(t, domain.DeleteMapping{ID: m.id})
		w.closed(moved)
		if _, err := live.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("deleted: the live connection ends with %v", err)
		}
	})
}

// A forwarder that starts anew opens the ports that there are, also while nobody is
// connected; a visitor is refused then, and served when the agent is back.
func TestPublicPortsAfterARestart(t *testing.T) {
	w := newWorld(t, "tls")
	w.withPorts(portsFrom(t))
	target := w.client(w.user)
	m := w.public(w.ports, 3, target, echo(t))
	w.listening(m)
	if _, err := heard(m.address); !isReset(err) {
		t.Errorf("a visitor without an agent: %v", err)
	}
	w.current().stop()
	w.closed(m)
	w.start()
	w.listening(m)
	w.agent(target)
	if !works(m.address) {
		t.Error("the port does not work after the restart")
	}
}

// A lost feed does not close ports, and what happened meanwhile is made up for.
func TestPublicPortsAfterAGap(t *testing.T) {
	w := newWorld(t, "memory")
	w.withPorts(portsFrom(t))
	target := w.client(w.user)
	w.agent(target)
	kept, ended := w.public(w.ports, 0, target, echo(t)), w.public(w.ports, 1, target, echo(t))
	w.listening(kept)
	w.listening(ended)
	live := connect(t, kept.address)
	if err := roundTrip(live, "a"); err != nil {
		t.Fatal(err)
	}
	w.plane.halt()
	w.plane.do(t, domain.DeleteMapping{ID: ended.id})
	made := w.public(w.ports, 2, target, echo(t))
	w.plane.trim()
	w.listening(made)
	w.closed(ended)
	if err := roundTrip(live, "b"); err != nil {
		t.Error(err)
	}
	if !works(made.address) {
		t.Error("what was made during the gap does not work")
	}
}

// A port that cannot be opened is named, the others work, and it opens when it can.
func TestBusyPublicPortIsNamedAndRetried(t *testing.T) {
	w := newWorld(t, "memory")
	ports := portsFrom(t)
	busy, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports.First)))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	w.withPorts(ports)
	target := w.client(w.user)
	w.agent(target)
	first, second := w.public(ports, 0, target, echo(t)), w.public(ports, 1, target, echo(t))
	w.listening(second)
	if !works(second.address) {
		t.Error("the other port does not work")
	}
	eventually(t, "the port is named", func() bool { return w.current().ClosedPorts()[ports.First] != nil })
	if n := w.metric("tunnox_public_ports", "state", "failed"); n != 1 {
		t.Errorf("%v ports are said to fail", n)
	}
	busy.Close()
	eventually(t, "the port opens", func() bool { return works(first.address) })
	if closed := w.current().ClosedPorts(); len(closed) > 0 {
		t.Errorf("still named: %v", closed)
	}
}

// short fails every other time, as when there are no descriptors left.
type short struct {
	net.Listener
	n atomic.Int64
}

func (s *short) Accept() (net.Conn, error) {
	if s.n.Add(1)%2 == 1 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return s.Listener.Accept()
}

func TestPublicPortOutlivesAFailedAccept(t *testing.T) {
	w := newWorld(t, "memory")
	ports := portsFrom(t)
	listen := ports.Listen
	ports.Listen = func(port int) (net.Listener, error) {
		l, err := listen(port)
		return &short{Listener: l}, err
	}
	w.withPorts(ports)
	target := w.client(w.user)
	w.agent(target)
	m := w.public(ports, 0, target, echo(t))
	w.listening(m)
	for range 5 {
		if !works(m.address) {
			t.Fatal("the listener did not outlive a failed accept")
		}
	}
}

// Limits hold for visitors as for others.
func TestLimitsOfVisitors(t *testing.T) {
	w := newWorld(t, "memory")
	w.withPorts(portsFrom(t))
	user := w.newUser(domain.Limits{MaxConnectionsPerMapping: ptr(int64(2))})
	target := w.client(user)
	w.agent(target)
	m := w.public(w.ports, 0, target, echo(t))
	w.listening(m)
	var live []*net.TCPConn
	for range 2 {
		conn := connect(t, m.address)
		if err := roundTrip(conn, "a"); err != nil {
			t.Fatal(err)
		}
		live = append(live, conn)
	}
	if works(m.address) {
		t.Error("a third connection is let in")
	}
	if n := w.metric("tunnox_opens_refused_total", "code", string(wire.QuotaConnections)); n != 1 {
		t.Errorf("%v refusals are counted", n)
	}
	live[0].Close()
	eventually(t, "there is room again", func() bool { return works(m.address) })
}

// A drain closes the ports at once and lets what is open end.
func TestDrainClosesPublicPorts(t *testing.T) {
	w := newWorld(t, "memory")
	w.withPorts(portsFrom(t))
	target := w.client(w.user)
	w.agent(target)
	m := w.public(w.ports, 0, target, echo(t))
	w.listening(m)
	live := connect(t, m.address)
	if err := roundTrip(live, "a"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.current().Drain(t.Context()) }()
	w.closed(m)
	if err := roundTrip(live, "b"); err != nil {
		t.Errorf("the live connection: %v", err)
	}
	live.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A visitor comes in at one forwarder and the agent is at another: one hop, counted
// where the visitor is. What ends the mapping ends the connection at both.
func TestVisitorCrossesTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		a := c.withPorts("node-00a")
		b := c.member("node-00b")
		target := c.client(c.user)
		c.agent(target, c.at(b.id))
		m := c.public(c.open[a.id], 0, target, greeter(t, "welcome"))
		c.listening(m)
		conn := connect(t, m.address)
		word := make([]byte, 7)
		if _, err := io.ReadFull(conn, word); err != nil || string(word) != "welcome" {
			t.Fatalf("the visitor hears %q, %v", word, err)
		}
		if err := roundTrip(conn, "there and back"); err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]int64{a.id: 14, b.id: 0} {
			for _, x := range c.member(id).Traffic() {
				if x.MappingID == m.id && x.ToTarget != want {
					t.Errorf("%s counts %d bytes, want %d", id, x.ToTarget, want)
				}
			}
		}
		c.plane.do(t, domain.SetMappingEnabled{ID: m.id})
		if _, err := conn.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("the connection ends with %v", err)
		}
	})
}

// A node delivers visitors of its own public ports, and of no others.
func TestNodesDeliverForTheirOwnPorts(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		a := c.withPorts("node-00a")
		b, third := c.member("node-00b"), c.member("node-00c")
		target := c.client(c.user)
		c.agent(target, c.at(b.id))
		m := c.public(c.open[a.id], 0, target, echo(t))
		c.listening(m)
		ask := func(from *member) error {
			stream, err := from.peers.open(t.Context(), b.id, b.address)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Reset()
			stream.SetDeadline(time.Now().Add(5 * time.Second))
			if err := wire.WriteOpen(stream, &wirepb.Open{MappingId: m.id, TargetClient: target.id, Hop: 1}); err != nil {
				t.Fatal(err)
			}
			return wire.ReadOpened(stream)
		}
		if err := ask(third); !errors.Is(err, wire.NoSuchMapping) {
			t.Errorf("a node without the port: %v", err)
		}
		if err := ask(a); err != nil {
			t.Errorf("the node with the port: %v", err)
		}
	})
}

// withPorts starts a forwarder of the cluster anew with public ports.
func (c *cluster) withPorts(id string) *member {
	c.t.Helper()
	if c.open == nil {
		c.open = map[string]*forwarder.Ports{}
	}
	c.open[id] = portsFrom(c.t)
	c.member(id).stop()
	m := c.prepare(id)
	m.run()
	return m
}
