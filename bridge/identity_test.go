package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// A client that is not a node gets nothing from the port: no HTTP/2 settings, no byte
// at all after the handshake.
func TestStrangersGetNoAnswer(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	var streams atomic.Int64
	n := startNode(t, ca, "node-002", func(context.Context, Identity, transport.Stream) { streams.Add(1) }, nil)
	roots := ca.roots()
	client := func(cert *tls.Certificate) *tls.Config {
		c := &tls.Config{RootCAs: roots, InsecureSkipVerify: true, NextProtos: protocols}
		if cert != nil {
			// Send the certificate whatever authorities the server names.
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
		return c
	}
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Minute)
	}
	uris := func(texts ...string) func(c *x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, text := range texts {
				u, err := url.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = append(c.URIs, u)
			}
		}
	}
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for name, config := range map[string]*tls.Config{
		"plain TCP":               nil,
		"no certificate":          client(nil),
		"another authority":       client(other.issue(t, "node-001", nil)),
		"expired":                 client(ca.issue(t, "node-001", expired)),
		"not for clients":         client(ca.issue(t, "node-001", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })),
		"no URI":                  client(ca.issue(t, "", uris())),
		"an agent":                client(ca.issue(t, "", uris("tunnox://agent/node-001"))),
		"another scheme":          client(ca.issue(t, "", uris("https://node/node-001"))),
		"two URIs":                client(ca.issue(t, "", uris("tunnox://node/node-001", "tunnox://node/node-003"))),
		"no node":                 client(ca.issue(t, "", uris("tunnox://node/"))),
		"a path":                  client(ca.issue(t, "", uris("tunnox://node/a/b"))),
		"a query":                 client(ca.issue(t, "", uris("tunnox://node/node-001?x=1"))),
		"a name beside":           client(ca.issue(t, "", uris("tunnox://me@node/node-001"))),
		"a name that is no label": client(ca.issue(t, "", uris("tunnox://node/NODE%0A1"))),
		"no HTTP/2":               func() *tls.Config { c := client(ca.issue(t, "node-001", nil)); c.NextProtos = nil; return c }(),
		"TLS 1.2": func() *tls.Config {
			c := client(ca.issue(t, "node-001", nil))
			c.MaxVersion = tls.VersionTLS12
			return c
		}(),
	} {
		conn, err := net.Dial("tcp", n.Address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(pace.Guard))
		if config != nil {
			conn = tls.Client(conn, config)
		}
		_, _ = io.WriteString(conn, preface)
		got, err := io.ReadAll(conn)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			t.Errorf("%s: the connection stays open", name)
		}
		if config == nil && len(got) > 0 && got[0] == 21 { // a TLS alert is not an answer
			got = nil
		}
		if len(got) != 0 {
			t.Errorf("%s: answered with %x", name, got)
		}
		_ = conn.Close()
	}
	if streams.Load() != 0 || len(n.server.Stats()) != 0 {
		t.Errorf("%d streams, %+v", streams.Load(), n.server.Stats())
	}
	// A node's certificate gets an answer, so the test above can fail.
	conn := tls.Client(func() net.Conn { c, _ := net.Dial("tcp", n.Address); return c }(), client(ca.issue(t, "node-001", nil)))
	defer conn.Close()
	_, _ = io.WriteString(conn, preface)
	if _, err := io.ReadFull(conn, make([]byte, 9)); err != nil {
		t.Error(err)
	}
}

func TestAServerIsTheNodeThatWasMeant(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	from := startNode(t, ca, "node-001", nil, nil)
	for name, c := range map[string]struct {
		ca   *authority
		cert *tls.Certificate
		want error
	}{
		"another node":      {ca, ca.issue(t, "node-003", nil), ErrIdentity},
		"another authority": {other, other.issue(t, "node-002", nil), nil},
		"not for servers":   {ca, ca.issue(t, "node-002", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), nil},
		"expired":           {ca, ca.issue(t, "node-002", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), nil},
	} {
		to := startNode(t, c.ca, "node-002", echo, func(_ *PoolConfig, s *ServerConfig) { s.Trust = c.ca.fixed(c.cert) })
		_, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
		if !errors.Is(err, ErrUnreachable) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		from.pool.Forget("node-002")
	}
}

// The handler is told the proved identity, not a claimed one.
func TestTheHandlerKnowsThePeer(t *testing.T) {
	ca := newAuthority(t)
	seen := make(chan Identity, 1)
	to := startNode(t, ca, "node-002", func(_ context.Context, from Identity, _ transport.Stream) { seen <- from }, nil)
	from := startNode(t, ca, "node-1000", nil, nil)
	s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := <-seen; got.Node != "node-1000" || time.Until(got.Expires) > time.Hour {
		t.Errorf("%+v", got)
	}
}

// renewed is a Trust whose certificate can be replaced.
type renewed struct {
	ca   *authority
	cert atomic.Pointer[tls.Certificate]
}

func (r *renewed) trust() Trust {
	t := r.ca.fixed(nil)
	t.Certificate = func() (*tls.Certificate, error) { return r.cert.Load(), nil }
	return t
}

// Certificates live for an hour and are renewed every half hour, for a day. Streams
// continue, connections are replaced before their certificates expire, and nobody
// restarts. Without renewal connections end when their certificates expire.
func TestCertificatesAreRenewedWithoutRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		ours, theirs := &renewed{ca: ca}, &renewed{ca: ca}
		renew := func() {
			ours.cert.Store(ca.issue(t, "node-001", nil))
			theirs.cert.Store(ca.issue(t, "node-002", nil))
		}
		renew()
		ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		var accepted, refused atomic.Int64
		server, err := NewServer(ServerConfig{Trust: theirs.trust(), Handle: func(ctx context.Context, id Identity, s transport.Stream) {
			if time.Now().After(id.Expires) {
				refused.Add(1)
			}
			echo(ctx, id, s)
		}})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error)
		go func() { served <- server.Serve(ln) }()
		pool, err := NewPool(PoolConfig{Trust: ours.trust(), Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
			accepted.Add(1)
			return ln.dial(ctx, n, a)
		}})
		if err != nil {
			t.Fatal(err)
		}
		to := Peer{"node-002", "pipe"}
		long, err := pool.Open(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 * 2 { // the authority lives a day
			time.Sleep(30 * time.Minute)
			renew()
			s, err := pool.Open(t.Context(), to)
			if err != nil {
				t.Fatal(err)
			}
			if err := roundTrip(s, "new"); err != nil {
				t.Error(err)
			}
			_ = s.Close()
		}
		if err := roundTrip(long, "old"); err != nil {
			t.Error(err)
		}
		if n := accepted.Load(); n < 15 || n > 25 {
			t.Errorf("%d connections in 20 hours", n)
		}
		if refused.Load() != 0 {
			t.Errorf("%d streams of an expired peer", refused.Load())
		}
		_ = long.Close()
		time.Sleep(61 * time.Minute)
		if s, err := pool.Open(t.Context(), to); err == nil {
			if err := roundTrip(s, "too late"); err == nil {
				t.Error("a stream works though both certificates have expired")
			}
			_ = s.Close()
		}
		_ = pool.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// A connection that lives longer than its certificate carries no new streams.
func TestAnExpiredPeerOpensNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		server, err := NewServer(ServerConfig{Trust: ca.trust(t, "node-002"), Handle: echo})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error)
		go func() { served <- server.Serve(ln) }()
		config := PoolConfig{Trust: ca.trust(t, "node-001"), Dial: ln.dial}.withDefaults()
		c, err := dial(t.Context(), config, "node-002", "pipe") // a pool would retire this connection
		if err != nil {
			t.Fatal(err)
		}
		for _, expired := range []bool{false, true} {
			ended := make(chan struct{})
			s, err := c.open(t.Context(), new(traffic), func() { close(ended) })
			if err != nil {
				t.Fatal(err)
			}
			if err := roundTrip(s, "x"); (err != nil) != expired || expired && !errors.Is(err, transport.ErrSessionClosed) {
				t.Errorf("expired %v: %v", expired, err)
			}
			_ = s.Close()
			<-ended
			time.Sleep(61 * time.Minute)
		}
		_ = c.cc.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
