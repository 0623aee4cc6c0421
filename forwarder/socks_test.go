package forwarder_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
)

// socksMapping makes a socks5 mapping.
func (w *world) socksMapping(source, target client) mapping {
	w.t.Helper()
	m := mapping{id: domain.FirstMappingID + w.plane.ids.Add(1), address: freeAddress(w.t)}
	localHost, localPort := split(w.t, m.address)
	w.plane.do(w.t, domain.CreateMapping{ID: m.id, UserID: w.user, SourceClientID: source.id, TargetClientID: target.id,
		Protocol: domain.ProtocolSOCKS5, Parts: domain.Parts{Origin: domain.Origin{LocalHost: localHost, LocalPort: localPort}}})
	return m
}

// asks connects to a SOCKS listener, asks by name for a destination, and gives the
// connection with the reply.
func asks(t testing.TB, address, host string, port int) (*net.TCPConn, byte) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(pace.Guard))
	request := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))}, host...)
	if _, err := conn.Write(append(request, byte(port>>8), byte(port))); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 12) // the method, then the reply with an IPv4 address
	if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 5 || answer[1] != 0 || answer[2] != 5 {
		t.Fatalf("answered %x, %v", answer, err)
	}
	return conn.(*net.TCPConn), answer[3]
}

// A client of SOCKS reaches what it asks for, by name and by address, as far as the
// target agent allows, and hears why not in the words of SOCKS.
func TestSOCKSConnect(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		policy, err := agent.ParsePolicy([]string{"*"})
		if err != nil {
			t.Fatal(err)
		}
		source, target := w.client(w.user), w.client(w.user)
		there := w.agent(target, func(c *agent.Config) { c.Policy = policy })
		w.agent(source)
		m := w.socksMapping(source, target)
		w.listening(m)
		service := greeter(t, "welcome ")
		host, port := split(t, service)
		_, closed := split(t, freeAddress(t))
		for name, tt := range map[string]struct {
			host  string
			port  int
			reply byte
		}{
			"an address":              {host, port, 0},
			"a name":                  {"localhost", port, 0},
			"nobody listens":          {host, closed, 5},
			"metadata":                {"169.254.169.254", 80, 2},
			"metadata as IPv6":        {"::ffff:169.254.169.254", 80, 2},
			"a name that is none":     {"no.such.name.invalid", 80, 4},
			"port 0":                  {host, 0, 1},
			"this host, another name": {"0.0.0.0", port, 2},
		} {
			conn, reply := asks(t, m.address, tt.host, tt.port)
			if reply != tt.reply {
				t.Errorf("%s: reply %d, want %d", name, reply, tt.reply)
			}
			if reply != 0 {
				if n, err := conn.Read(make([]byte, 1)); err == nil {
					t.Errorf("%s: %d bytes follow a refusal", name, n)
				}
				continue
			}
			said := make([]byte, len("welcome "))
			if _, err := io.ReadFull(conn, said); err != nil || string(said) != "welcome " {
				t.Errorf("%s: the service says %q, %v", name, said, err)
			}
		}
		if err := there.stop(); err != nil {
			t.Fatal(err)
		}
		if _, reply := asks(t, m.address, host, port); reply != 3 {
			t.Errorf("without the target agent the reply is %d, want 3", reply)
		}
	})
}

// What a target agent is not told to allow is loopback only, whoever asks.
func TestSOCKSAsksThePolicy(t *testing.T) {
	w := newWorld(t, "memory")
	source, target := w.client(w.user), w.client(w.user)
	w.agent(target, func(c *agent.Config) {
		c.DialService = func(_ context.Context, network, address string) (net.Conn, error) { return nil, io.EOF }
	})
	w.agent(source)
	m := w.socksMapping(source, target)
	w.listening(m)
	for host, want := range map[string]byte{"10.0.0.1": 2, "127.0.0.1": 4, "::1": 4, "192.0.2.1": 2} {
		if _, reply := asks(t, m.address, host, 80); reply != want {
			t.Errorf("%s: reply %d, want %d", host, reply, want)
		}
	}
}

// 200 clients at once hear a service that speaks first (frp#1251).
func TestSOCKSServiceSpeaksFirst(t *testing.T) {
	w := newWorld(t, "tls")
	source, target := w.client(w.user), w.client(w.user)
	w.agent(target)
	w.agent(source)
	m := w.socksMapping(source, target)
	w.listening(m)
	host, port := split(t, greeter(t, "welcome "))
	watch := pace.Measure(t)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			conn, reply := asks(t, m.address, host, port)
			answered := time.Now()
			if _, err := io.ReadFull(conn, make([]byte, len("welcome "))); err != nil || reply != 0 {
				t.Errorf("reply %d, %v", reply, err)
			}
			if took := time.Since(answered); took > watch.Allow(200*time.Millisecond) {
				t.Errorf("the banner came %v after the reply", took)
			}
		})
	}
	all.Wait()
}

// BIND, and what is no SOCKS, are refused; a client that says nothing is cut off.
func TestSOCKSRefusesWhatItDoesNotTake(t *testing.T) {
	w := newWorld(t, "memory")
	source, target := w.client(w.user), w.client(w.user)
	here := w.agent(source)
	w.agent(target)
	m := w.socksMapping(source, target)
	w.listening(m)
	for client, want := range map[string]string{
		"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50": "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00", // BIND
		"\x05\x01\x02":             "\x05\xff", // only with a password
		"GET / HTTP/1.1\r\n\r\n":   "",
		"\x04\x01\x00\x50\x7f\x00": "",
	} {
		conn, err := net.Dial("tcp", m.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(pace.Guard))
		if _, err := io.WriteString(conn, client); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(conn); string(got) != want {
			t.Errorf("%q is answered %q, want %q", client, got, want)
		}
		conn.Close()
	}
	if n := here.Status().SOCKSRefused; n != 4 {
		t.Errorf("%d refusals are counted, want 4", n)
	}
}
