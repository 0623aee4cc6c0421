package forwarder_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// udpMapping makes a mapping of datagrams to a service.
func (w *world) udpMapping(source, target client, service string, options domain.Options) mapping {
	w.t.Helper()
	m := mapping{id: domain.FirstMappingID + w.plane.ids.Add(1), address: freeAddress(w.t)}
	host, port := split(w.t, service)
	localHost, localPort := split(w.t, m.address)
	w.plane.do(w.t, domain.CreateMapping{ID: m.id, UserID: w.user, SourceClientID: source.id, TargetClientID: target.id,
		Protocol: domain.ProtocolUDP, Parts: domain.Parts{Origin: domain.Origin{LocalHost: localHost, LocalPort: localPort},
			Service: domain.Service{TargetHost: host, TargetPort: port}, Options: options}})
	return m
}

// flow is a socket that asks, once it is answered.
func (w *world) flow(address string) *net.UDPConn {
	w.t.Helper()
	conn, err := net.Dial("udp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	eventually(w.t, "a datagram comes back from "+address, func() bool { return askOnce(conn, []byte("hello"), 50*time.Millisecond) == nil })
	return conn.(*net.UDPConn)
}

// askOnce sends a datagram and wants it back; what else comes is of before.
func askOnce(conn net.Conn, payload []byte, within time.Duration) error {
	if _, err := conn.Write(payload); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 65536)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if bytes.Equal(buf[:n], payload) {
			return nil
		}
	}
}

// Datagrams go both ways as they are, whatever their size, in the order in which they
// came, from many ports at once.
func TestDatagrams(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		source, target := w.client(w.user), w.client(w.user)
		there := w.agent(target)
		here := w.agent(source)
		m := w.udpMapping(source, target, programs.EchoUDP(t, "127.0.0.1:0").LocalAddr().String(), domain.Options{})
		conn := w.flow(m.address)
		for _, size := range []int{0, 1, 1472, 9000, 16374, 16375, 65507} {
			payload := make([]byte, size)
			for i := range payload {
				payload[i] = byte(rand.Uint32())
			}
			if err := askOnce(conn, payload, pace.Guard); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		var all sync.WaitGroup
		for p := range 20 {
			conn := w.flow(m.address)
			all.Go(func() {
				for i := range 100 {
					payload := append(fmt.Appendf(nil, "%d/%d:", p, i), bytes.Repeat([]byte{byte(p)}, i*7)...)
					if err := askOnce(conn, payload, pace.Guard); err != nil {
						t.Errorf("port %d, datagram %d: %v", p, i, err)
						return
					}
				}
			})
		}
		all.Wait()
		for who, a := range map[string]*running{"source": here, "target": there} {
			if d := a.Status().Datagrams; d.Flows != 21 || d.Carried < 2*(20*100+7) {
				t.Errorf("the %s says of its datagrams: %+v", who, d)
			}
		}
		if streams := w.current().Traffic()[0].Streams; streams != 21 {
			t.Errorf("%d streams for 21 flows", streams)
		}
	})
}

// A flow is a connection where connections are limited: one more source than the limit
// gets nothing, and does when another's flow has been silent for its time.
func TestFlowsCountAsConnections(t *testing.T) {
	w := newWorld(t, "tls")
	one := int64(1)
	w.user = w.newUser(domain.Limits{MaxConnectionsPerMapping: &one})
	source, target := w.client(w.user), w.client(w.user)
	w.agent(target)
	w.agent(source)
	m := w.udpMapping(source, target, programs.EchoUDP(t, "127.0.0.1:0").LocalAddr().String(), domain.Options{IdleSeconds: 1})
	first := w.flow(m.address)
	second, err := net.Dial("udp", m.address)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := askOnce(second, []byte("too many"), 200*time.Millisecond); err == nil {
		t.Error("a second flow is answered, and the limit is one connection")
	}
	if err := askOnce(first, []byte("still"), pace.Guard); err != nil {
		t.Errorf("the first flow: %v", err)
	}
	eventually(t, "the second flow is answered when the first has been silent for a second", func() bool {
		return askOnce(second, []byte("now"), 50*time.Millisecond) == nil
	})
}

// What ends a mapping ends its flows, and a flow goes on at another session or agent
// when its own has ended.
func TestFlowsEndWithTheirMapping(t *testing.T) {
	w := newWorld(t, "tls")
	source, target := w.client(w.user), w.client(w.user)
	there := w.agent(target)
	w.agent(source)
	m := w.udpMapping(source, target, programs.EchoUDP(t, "127.0.0.1:0").LocalAddr().String(), domain.Options{})
	conn := w.flow(m.address)
	_ = there.stop()
	if err := askOnce(conn, []byte("nobody"), 200*time.Millisecond); err == nil {
		t.Error("a datagram is answered while the target agent is away")
	}
	w.agent(target)
	eventually(t, "the flow goes on with the next agent", func() bool { return askOnce(conn, []byte("again"), 50*time.Millisecond) == nil })
	w.plane.do(t, domain.SetMappingEnabled{ID: m.id})
	eventually(t, "the mapping has no flow", func() bool {
		_ = askOnce(conn, []byte("gone?"), 20*time.Millisecond)
		traffic := w.current().Traffic()
		return len(traffic) == 1 && traffic[0].Streams == 0
	})
	w.plane.do(t, domain.SetMappingEnabled{ID: m.id, Enabled: true})
	eventually(t, "the flow goes on when the mapping is enabled again", func() bool { return askOnce(conn, []byte("back"), 50*time.Millisecond) == nil })
}

// A change of idle_seconds holds for the flows that there are.
func TestIdleSecondsChange(t *testing.T) {
	w := newWorld(t, "memory")
	source, target := w.client(w.user), w.client(w.user)
	w.agent(target)
	w.agent(source)
	m := w.udpMapping(source, target, programs.EchoUDP(t, "127.0.0.1:0").LocalAddr().String(), domain.Options{IdleSeconds: 3600})
	w.flow(m.address)
	w.plane.do(t, domain.ChangeMapping{ID: m.id, Patch: domain.Patch{"idle_seconds": []byte("1")}})
	eventually(t, "the flow ends", func() bool { return w.current().Traffic()[0].Streams == 0 })
}

// publicFlow makes a public mapping of datagrams to a service.
func (w *world) publicFlow(target client, n int, service string) mapping {
	w.t.Helper()
	id := domain.FirstMappingID + w.plane.ids.Add(1)
	host, port := split(w.t, service)
	w.plane.do(w.t, domain.CreateMapping{ID: id, UserID: w.user, TargetClientID: target.id, Protocol: domain.ProtocolUDP,
		Parts: domain.Parts{Origin: domain.Origin{PublicPort: domain.OnePort(w.ports.First + n)}, Service: domain.Service{TargetHost: host, TargetPort: port}}}.Offered(offered(w.ports)))
	return mapping{id, net.JoinHostPort("127.0.0.1", fmt.Sprint(w.ports.First+n))}
}

// A number can be one mapping's for tcp and another's for udp; datagrams of visitors
// are counted and end as the connections of visitors do.
func TestPublicUDP(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		w.withPorts(portsFrom(t))
		target := w.client(w.user)
		w.agent(target)
		tcp := w.public(w.ports, 1, target, echo(t))
		udp := w.publicFlow(target, 1, programs.EchoUDP(t, "127.0.0.1:0").LocalAddr().String())
		if tcp.address != udp.address {
			t.Fatalf("tcp is at %s and udp at %s", tcp.address, udp.address)
		}
		conn := w.flow(udp.address)
		for _, size := range []int{0, 1200, 65507} {
			if err := askOnce(conn, make([]byte, size), pace.Guard); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		w.plane.do(t, domain.SetMappingEnabled{ID: udp.id})
		eventually(t, "the port is closed", func() bool { return askOnce(conn, []byte("gone?"), 20*time.Millisecond) != nil })
		w.plane.do(t, domain.SetMappingEnabled{ID: udp.id, Enabled: true})
		eventually(t, "the port is open again", func() bool { return askOnce(conn, []byte("back"), 50*time.Millisecond) == nil })
	})
}

// A flow of a visitor goes on while the forwarder drains, and new ones find no way.
func TestDrainLetsFlowsEnd(t *testing.T) {
	w := newWorld(t, "tls")
	w.withPorts(portsFrom(t))
	target := w.client(w.user)
	w.agent(target)
	m := w.publicFlow(target, 1, programs.EchoUDP(t, "127.0.0.1:0").LocalAddr().String())
	conn := w.flow(m.address)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); w.current().Drain(ctx) }()
	eventually(t, "a new flow finds no way", func() bool {
		other, err := net.Dial("udp", m.address)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		return askOnce(other, []byte("new"), 50*time.Millisecond) != nil
	})
	if err := askOnce(conn, []byte("old"), pace.Guard); err != nil {
		t.Errorf("the flow that was there: %v", err)
	}
	<-done
}
