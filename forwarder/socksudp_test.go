package forwarder_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// associate asks a SOCKS listener for a UDP association, saying from which port the
// datagrams will come, and gives the connection that holds it, the reply, and where the
// datagrams go to.
func associate(t testing.TB, address string, from uint16) (held *net.TCPConn, reply byte, relay netip.AddrPort) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(pace.Guard))
	if _, err := conn.Write(binary.BigEndian.AppendUint16([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0}, from)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 12)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[2] != 5 || answer[5] != 1 {
		t.Fatalf("answered %x, %v", answer, err)
	}
	return conn.(*net.TCPConn), answer[3], netip.AddrPortFrom(netip.AddrFrom4([4]byte(answer[6:10])), binary.BigEndian.Uint16(answer[10:]))
}

// asked is a datagram of a client of SOCKS.
func asked(host string, port int, payload string) []byte {
	b := []byte{0, 0, 0}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		b = append(append(b, 1), ip.AsSlice()...)
	} else if err == nil {
		b = append(append(b, 4), ip.AsSlice()...)
	} else {
		b = append(append(b, 3, byte(len(host))), host...)
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(port)), payload...)
}

// udpClient is a socket at an address of this machine.
func udpClient(t testing.TB, at string) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(at)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// said sends a datagram to the relay, and gives what comes back within a time: the
// source that the relay names, and the payload.
func said(conn *net.UDPConn, relay netip.AddrPort, packet []byte, within time.Duration) (from netip.AddrPort, payload string, err error) {
	if _, err := conn.WriteToUDPAddrPort(packet, relay); err != nil {
		return from, "", err
	}
	_ = conn.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 65536)
	n, by, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return from, "", err
	}
	if by != relay {
		return from, "", fmt.Errorf("%v answers, asked was %v", by, relay)
	}
	if n < 10 || !bytes.HasPrefix(buf, []byte{0, 0, 0, 1}) {
		return from, "", fmt.Errorf("the datagram is %x", buf[:n])
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(buf[4:8])), binary.BigEndian.Uint16(buf[8:10])), string(buf[10:n]), nil
}

// speaks waits until a datagram comes back from a destination.
func speaks(t testing.TB, conn *net.UDPConn, relay netip.AddrPort, host string, service *net.UDPConn, payload string) {
	t.Helper()
	at := service.LocalAddr().(*net.UDPAddr).AddrPort()
	eventually(t, "a datagram comes back from "+host, func() bool {
		from, got, err := said(conn, relay, asked(host, int(at.Port()), payload), 100*time.Millisecond)
		return err == nil && from.Port() == at.Port() && from.Addr() == netip.MustParseAddr("127.0.0.1") && got == payload
	})
}

const unheard = 300 * time.Millisecond // a datagram that was dropped is not waited for longer

// All datagrams of a SOCKS association go through one UDP port here and one socket there,
// to any destination that the policy of the target agent allows, asked for each of them.
func TestSOCKSAssociation(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		policy, err := agent.ParsePolicy([]string{"127.0.0.1:*", "localhost:*"})
		if err != nil {
			t.Fatal(err)
		}
		source, target := w.client(w.user), w.client(w.user)
		there := w.agent(target, func(c *agent.Config) { c.Policy = policy.WithoutLoopback() })
		w.agent(source)
		m := w.socksMapping(source, target)
		w.listening(m)
		held, reply, relay := associate(t, m.address, 0)
		if reply != 0 || relay != netip.MustParseAddrPort(m.address) {
			t.Fatalf("reply %d, the relay is %v, want %s", reply, relay, m.address)
		}
		client := udpClient(t, "127.0.0.1")
		one, two := programs.EchoUDP(t, "127.0.0.1:0"), programs.EchoUDP(t, "127.0.0.1:0")
		speaks(t, client, relay, "127.0.0.1", one, "by address")
		speaks(t, client, relay, "localhost", two, "by name")
		speaks(t, client, relay, "127.0.0.1", one, "")
		speaks(t, client, relay, "::ffff:127.0.0.1", two, string(bytes.Repeat([]byte("x"), 60_000)))

		// Both services see one source, and only who was asked is heard.
		third := programs.EchoUDP(t, "127.0.0.1:0")
		port := one.LocalAddr().(*net.UDPAddr).Port
		seen := make(chan netip.AddrPort, 1)
		teller, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer teller.Close()
		eventually(t, "a service sees the association's socket", func() bool {
			_, _ = client.WriteToUDPAddrPort(asked("127.0.0.1", teller.LocalAddr().(*net.UDPAddr).Port, "who"), relay)
			_ = teller.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, from, err := teller.ReadFromUDPAddrPort(make([]byte, 10))
			if err == nil {
				seen <- from
			}
			return err == nil
		})
		if _, err := third.WriteToUDPAddrPort([]byte("nobody asked"), <-seen); err != nil {
			t.Fatal(err)
		}
		for name, packet := range map[string][]byte{
			"a fragment":            append([]byte{0, 0, 1}, asked("127.0.0.1", port, "x")[3:]...),
			"nothing":               {},
			"half an address":       asked("127.0.0.1", port, "")[:7],
			"port 0":                asked("127.0.0.1", 0, "x"),
			"an address not given":  asked("127.0.0.2", port, "x"),
			"metadata":              asked("169.254.169.254", 53, "x"),
			"a name that is none":   asked("no.such.name.invalid", port, "x"),
			"an address of no kind": {0, 0, 0, 9, 1, 2, 3, 4, 5, 6},
		} {
			if _, got, err := said(client, relay, packet, unheard); err == nil {
				t.Errorf("%s: %q comes back", name, got)
			}
		}
		stranger := udpClient(t, "127.0.0.2")
		if _, got, err := said(stranger, relay, asked("127.0.0.1", port, "x"), unheard); err == nil {
			t.Errorf("another host gets %q", got)
		}
		speaks(t, client, relay, "127.0.0.1", one, "still there")

		// The association ends with its connection, and at the target with it.
		if got := there.Status().Datagrams.Flows; got != 1 {
			t.Errorf("the target agent has %d flows, want 1", got)
		}
		held.Close()
		eventually(t, "the association is over", func() bool { return there.Status().Datagrams.Flows == 0 })
		if _, got, err := said(client, relay, asked("127.0.0.1", port, "x"), unheard); err == nil {
			t.Errorf("without its connection %q comes back", got)
		}
	})
}

// Clients of one host have an association each, whether or not they say from which port
// they send, and one that ends does not end the other.
func TestSOCKSAssociationsOfOneHost(t *testing.T) {
	w := newWorld(t, "memory")
	source, target := w.client(w.user), w.client(w.user)
	w.agent(source)
	w.agent(target)
	m := w.socksMapping(source, target)
	w.listening(m)
	service := programs.EchoUDP(t, "127.0.0.1:0")
	first, _, relay := associate(t, m.address, 0)
	associate(t, m.address, 0)
	one, two, three := udpClient(t, "127.0.0.1"), udpClient(t, "127.0.0.1"), udpClient(t, "127.0.0.1")
	associate(t, m.address, uint16(three.LocalAddr().(*net.UDPAddr).Port))
	speaks(t, three, relay, "127.0.0.1", service, "three")
	speaks(t, one, relay, "127.0.0.1", service, "one")
	speaks(t, two, relay, "127.0.0.1", service, "two")
	fourth := udpClient(t, "127.0.0.1")
	if _, got, err := said(fourth, relay, asked("127.0.0.1", 9, "x"), unheard); err == nil {
		t.Errorf("who has no association gets %q", got)
	}
	first.Close()
	speaks(t, two, relay, "127.0.0.1", service, "two is there")
	speaks(t, three, relay, "127.0.0.1", service, "three is there")
	again, reply, _ := associate(t, m.address, 0)
	if reply != 0 {
		t.Fatalf("reply %d", reply)
	}
	speaks(t, fourth, relay, "127.0.0.1", service, "four")
	again.Close()
}

// A mapping that ends takes its associations with it, and an agent that carries none is
// told to the client.
func TestSOCKSAssociationEndsWithItsMapping(t *testing.T) {
	w := newWorld(t, "memory")
	source, target := w.client(w.user), w.client(w.user)
	w.agent(source)
	there := w.agent(target)
	m := w.socksMapping(source, target)
	w.listening(m)
	held, _, relay := associate(t, m.address, 0)
	client, service := udpClient(t, "127.0.0.1"), programs.EchoUDP(t, "127.0.0.1:0")
	speaks(t, client, relay, "127.0.0.1", service, "x")
	if err := there.stop(); err != nil {
		t.Fatal(err)
	}
	if n, err := held.Read(make([]byte, 1)); err == nil {
		t.Errorf("without the target agent %d bytes come", n)
	}
	if _, reply, _ := associate(t, m.address, 0); reply != 3 {
		t.Errorf("without the target agent the reply is %d, want 3", reply)
	}
}
