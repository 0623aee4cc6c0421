package forwarder_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/wire"
)

// published makes a mapping of a public host to a service of a client.
func (w *world) published(host, path string, target client, service string) int64 {
	w.t.Helper()
	id := domain.FirstMappingID + w.plane.ids.Add(1)
	address, port := split(w.t, service)
	w.plane.do(w.t, domain.CreateMapping{ID: id, Any: true, UserID: w.plane.clientOwner(target.id, w.user), TargetClientID: target.id,
		Protocol: domain.ProtocolHTTP, Parts: domain.Parts{Origin: domain.Origin{PublicHost: host, PublicPath: path},
			Service: domain.Service{TargetHost: address, TargetPort: port}}}.Offered(publicOffer))
	return id
}

const visitorAt = "192.0.2.7:1234"

// leads waits until a host leads to a mapping; 0 is none.
func (w *world) leads(host string, want int64) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%s leads to %d", host, want), func() bool {
		m, err := w.current().Host(w.t.Context(), host, "/", visitorAt)
		return m.State.ID == want && (want != 0 && err == nil || want == 0 && errors.Is(err, forwarder.ErrNoHost))
	})
}

// A host that nobody asked for is looked up, and from then on the feed says what it
// leads to, also when it was asked for before anybody had it. Connections to its
// service are counted and limited as others are, and end with the mapping.
func TestPublicHostIsLookedUpAndFollowed(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		user := w.newUser(domain.Limits{MaxConnectionsPerMapping: ptr(int64(1))})
		target := w.client(user)
		w.agent(target)
		w.leads("otter", 0)
		id := w.published("otter", "/", target, echo(t))
		w.leads("otter", id)
		before := w.plane.lookups.Load()
		w.leads("otter", id)
		if after := w.plane.lookups.Load(); after != before {
			t.Errorf("a known host is looked up %d times more", after-before)
		}
		if _, err := w.current().DialHost("heron", id, visitorAt); wire.CodeOf(err) != wire.NoSuchMapping {
			t.Errorf("a connection under another host's name: %v", err)
		}
		conn, err := w.current().DialHost("otter", id, visitorAt)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.current().DialHost("otter", id, visitorAt); wire.CodeOf(err) != wire.QuotaConnections {
			t.Errorf("a second connection: %v", err)
		}
		if _, err := io.WriteString(conn, "word"); err != nil {
			t.Fatal(err)
		}
		word := make([]byte, 4)
		if _, err := io.ReadFull(conn, word); err != nil || string(word) != "word" {
			t.Fatalf("the service sends back %q, %v", word, err)
		}
		for _, x := range w.current().Traffic() {
			if x.MappingID == id && (x.ToTarget != 4 || x.ToSource != 4 || x.Streams != 1) {
				t.Errorf("counted %+v", x)
			}
		}
		w.plane.do(t, domain.ChangeMapping{ID: id, Patch: domain.Patch{"name": []byte(`"other"`), "target_port": []byte("9")}})
		if _, err := io.WriteString(conn, "more"); err != nil {
			t.Errorf("another service ends the connection to the old one: %v", err)
		}
		w.plane.do(t, domain.SetMappingEnabled{ID: id})
		w.leads("otter", 0)
		if _, err := io.Copy(io.Discard, conn); err == nil {
			t.Error("a connection of a disabled mapping ends as if the service had ended it")
		}
		w.plane.do(t, domain.SetMappingEnabled{ID: id, Enabled: true})
		w.leads("otter", id)
		w.plane.do(t, domain.ChangeMapping{ID: id, Patch: domain.Patch{"public_host": []byte(`"heron"`)}}.Offered(publicOffer))
		w.leads("heron", id)
		w.leads("otter", 0)
		w.plane.do(t, domain.DeleteMapping{ID: id})
		w.leads("heron", 0)
	})
}

// A host is looked up in a read model that is behind, and the feed has already brought
// its mapping, which is known because of its client: the host leads there all the same.
func TestLookupOfAHostIsBehindTheFeed(t *testing.T) {
	w := newWorld(t, "memory")
	target := w.client(w.user)
	w.agent(target)
	id := w.published("otter", "/", target, echo(t))
	w.leads("otter", id)
	w.plane.mu.Lock()
	w.plane.hidden = domain.Position(len(w.plane.records))
	w.plane.mu.Unlock()
	w.plane.do(t, domain.ChangeMapping{ID: id, Patch: domain.Patch{"public_host": []byte(`"heron"`)}}.Offered(publicOffer))
	eventually(t, "the feed has brought the change", func() bool {
		_, err := w.current().Host(t.Context(), "otter", "/", visitorAt)
		return errors.Is(err, forwarder.ErrNoHost)
	})
	if m, err := w.current().Host(t.Context(), "heron", "/", visitorAt); err != nil || m.State.ID != id {
		t.Errorf("the host leads to %d, %v", m.State.ID, err)
	}
}

// A visitor of a tls mapping is joined with the service, what was read of them first. It
// is counted and limited as others are, and a refused connection stays the caller's.
func TestPassHost(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		user := w.newUser(domain.Limits{MaxConnectionsPerMapping: ptr(int64(1))})
		target := w.client(user)
		w.agent(target)
		id := domain.FirstMappingID + w.plane.ids.Add(1)
		address, port := split(t, echo(t))
		w.plane.do(t, domain.CreateMapping{ID: id, Any: true, UserID: user, TargetClientID: target.id, Protocol: domain.ProtocolTLS,
			Parts: domain.Parts{Origin: domain.Origin{PublicHost: "otter"}, Service: domain.Service{TargetHost: address, TargetPort: port}}}.Offered(publicOffer))
		w.leads("otter", id)
		here, visitor := tcpPair(t)
		defer visitor.Close()
		if err := w.current().PassHost("heron", id, here, here.RemoteAddr(), here.LocalAddr(), []byte("x")); wire.CodeOf(err) != wire.NoSuchMapping {
			t.Fatalf("under another host's name: %v", err)
		}
		if err := w.current().PassHost("otter", id, here, here.RemoteAddr(), here.LocalAddr(), []byte("first ")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(visitor, "word"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 10)
		if _, err := io.ReadFull(visitor, got); err != nil || string(got) != "first word" {
			t.Fatalf("the service sends back %q, %v", got, err)
		}
		counted := false
		for _, x := range w.current().Traffic() {
			counted = counted || x.MappingID == id && x.ToTarget == 10 && x.ToSource == 10 && x.Streams == 1
		}
		if !counted {
			t.Errorf("counted %+v", w.current().Traffic())
		}
		there, second := tcpPair(t)
		defer there.Close()
		defer second.Close()
		if err := w.current().PassHost("otter", id, there, there.RemoteAddr(), there.LocalAddr(), []byte("x")); wire.CodeOf(err) != wire.QuotaConnections {
			t.Errorf("a second connection: %v", err)
		}
		if _, err := io.WriteString(there, "sorry"); err != nil {
			t.Errorf("the connection of who was refused: %v", err)
		}
		w.plane.do(t, domain.SetMappingEnabled{ID: id})
		if _, err := io.Copy(io.Discard, visitor); err == nil {
			t.Error("a connection of a disabled mapping ends as if the service had ended it")
		}
	})
}

// tcpPair gives the two ends of a TCP connection.
func tcpPair(t *testing.T) (here, there *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return accepted.(*net.TCPConn), conn.(*net.TCPConn)
}

// Whoever invents names fills neither memory nor the control plane's day, and does not
// keep others from what they ask for.
func TestUnknownHosts(t *testing.T) {
	w := newWorld(t, "memory")
	target := w.client(w.user)
	w.agent(target)
	id := w.published("otter", "/", target, echo(t))
	w.leads("otter", id)
	before := w.plane.lookups.Load()
	ask := func(from string, names int) (busy int) {
		for i := range names {
			switch _, err := w.current().Host(t.Context(), fmt.Sprintf("n-%s-%d", from, i), "/", net.JoinHostPort(from, "1")); {
			case errors.Is(err, forwarder.ErrBusy):
				busy++
			case !errors.Is(err, forwarder.ErrNoHost):
				t.Fatal(err)
			}
		}
		return busy
	}
	if busy := ask("192.0.2.8", 10_000); busy < 9_000 {
		t.Errorf("of 10,000 names of one address %d were refused", busy)
	}
	if m, err := w.current().Host(t.Context(), "otter", "/", "192.0.2.8:1"); err != nil || m.State.ID != id {
		t.Errorf("a known host at the same time: %v", err)
	}
	if busy := ask("192.0.2.9", 5); busy != 0 {
		t.Errorf("of 5 names of another address %d were refused", busy)
	}
	var asking sync.WaitGroup
	for i := range 8 { // from everywhere
		asking.Go(func() {
			for j := range 1000 {
				_, _ = w.current().Host(t.Context(), fmt.Sprintf("m-%d-%d", i, j), "/", fmt.Sprintf("198.51.%d.%d:1", i, j%250))
			}
		})
	}
	asking.Wait()
	if known, unknown := w.current().HostCounts(); known != 1 || unknown > forwarder.MaxUnknownHosts {
		t.Errorf("%d hosts are held, and %d that nobody has", known, unknown)
	}
	if asked := w.plane.lookups.Load() - before; asked > 3000 {
		t.Errorf("18,005 names were looked up %d times", asked)
	}
	w.leads("otter", id)
}

// A name that is being looked up is looked up once, however many ask for it.
func TestOneLookupForAHost(t *testing.T) {
	w := newWorld(t, "memory")
	target := w.client(w.user)
	w.agent(target)
	id := w.published("otter", "/", target, echo(t))
	before := w.plane.lookups.Load()
	var asking sync.WaitGroup
	for i := range 40 {
		asking.Go(func() {
			if m, err := w.current().Host(t.Context(), "otter", "/", fmt.Sprintf("192.0.2.%d:1", i)); err != nil || m.State.ID != id {
				t.Errorf("it leads to %d, %v", m.State.ID, err)
			}
		})
	}
	asking.Wait()
	if asked := w.plane.lookups.Load() - before; asked > 3 {
		t.Errorf("40 visitors at once are %d lookups", asked)
	}
}

// A read model that is away does not end what is known; what was never known is said
// not to be known, and is looked up when it is back.
func TestHostsWhileNobodyCanBeAsked(t *testing.T) {
	w := newWorld(t, "memory")
	target := w.client(w.user)
	w.agent(target)
	known, other := w.published("otter", "/", target, echo(t)), w.published("heron", "/", target, echo(t))
	w.leads("otter", known)
	w.plane.away.Store(true)
	w.leads("otter", known)
	if _, err := w.current().Host(t.Context(), "heron", "/", visitorAt); err == nil || errors.Is(err, forwarder.ErrNoHost) {
		t.Errorf("a host that cannot be looked up: %v", err)
	}
	w.plane.away.Store(false)
	w.leads("heron", other)
}

// What happened during a gap of the feed is made up for.
func TestHostsAfterAGap(t *testing.T) {
	w := newWorld(t, "memory")
	target := w.client(w.user)
	w.agent(target)
	ended := w.published("otter", "/", target, echo(t))
	w.leads("otter", ended)
	w.leads("heron", 0)
	w.plane.halt()
	w.plane.do(t, domain.DeleteMapping{ID: ended})
	made := w.published("heron", "/", target, echo(t))
	w.plane.trim()
	w.leads("otter", 0)
	w.leads("heron", made)
}

// The agent is at another forwarder: one hop, from a node that serves public hosts, and
// from no other.
func TestHostCrossesTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.member("node-00a"), c.member("node-00b")
		target := c.client(c.user)
		c.agent(target, c.at(b.id))
		id := c.published("otter", "/", target, echo(t))
		eventually(t, "the host is known", func() bool {
			m, err := a.Host(t.Context(), "otter", "/", visitorAt)
			return err == nil && m.State.ID == id
		})
		if _, err := a.DialHost("otter", id, visitorAt); wire.CodeOf(err) != wire.NoSuchMapping {
			t.Errorf("a node that serves no hosts delivers: %v", err)
		}
		c.hosts = map[string]bool{a.id: true}
		a.stop()
		a = c.prepare(a.id)
		a.run()
		eventually(t, "it delivers", func() bool {
			if _, err := a.Host(t.Context(), "otter", "/", visitorAt); err != nil {
				return false
			}
			conn, err := a.DialHost("otter", id, visitorAt)
			if err != nil {
				return false
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "x"); err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadFull(conn, make([]byte, 1))
			return err == nil
		})
	})
}

// Whether a host has a mapping of a protocol is known whatever its path, and a host that
// nobody has, or whose mapping is disabled, has none.
func TestHasHost(t *testing.T) {
	w := newWorld(t, "memory")
	target := w.client(w.user)
	w.agent(target)
	has := func(name string, protocol domain.Protocol) bool {
		t.Helper()
		ok, err := w.current().HasHost(t.Context(), name, protocol, visitorAt)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if has("otter", domain.ProtocolHTTP) {
		t.Error("a host that nobody has has a mapping")
	}
	id := w.published("otter", "/app", target, echo(t))
	eventually(t, "the host has a mapping", func() bool { return has("otter", domain.ProtocolHTTP) })
	if has("otter", domain.ProtocolTLS) {
		t.Error("the host has a mapping of another protocol")
	}
	w.plane.do(t, domain.SetMappingEnabled{ID: id})
	eventually(t, "a disabled mapping counts no more", func() bool { return !has("otter", domain.ProtocolHTTP) })
	for i := range 200 {
		if _, err := w.current().HasHost(t.Context(), fmt.Sprintf("unknown-%d", i), domain.ProtocolHTTP, "192.0.2.99:1"); errors.Is(err, forwarder.ErrBusy) {
			return
		}
	}
	t.Error("one address may ask for 200 unknown names at once")
}
