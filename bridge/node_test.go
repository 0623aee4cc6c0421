package bridge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// authority signs node certificates for tests. In production package control does.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// issue signs a certificate; change may make it invalid first.
func (a *authority) issue(t testing.TB, node string, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{IdentityURI(node)},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) trust(t testing.TB, node string) Trust { return a.fixed(a.issue(t, node, nil)) }

func (a *authority) fixed(cert *tls.Certificate) Trust {
	return Trust{
		Certificate: func() (*tls.Certificate, error) { return cert, nil },
		Roots:       func() (*x509.CertPool, error) { return a.roots(), nil },
	}
}

// countingListener counts the connections of a listener, and can cut them.
type countingListener struct {
	net.Listener
	opened, open atomic.Int64
	mu           sync.Mutex
	conns        map[*countedConn]struct{}
}

type countedConn struct {
	net.Conn
	ln   *countingListener
	once sync.Once
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &countedConn{Conn: conn, ln: l}
	l.opened.Add(1)
	l.open.Add(1)
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	return c, nil
}

func (c *countedConn) Close() error {
	c.once.Do(func() {
		c.ln.open.Add(-1)
		c.ln.mu.Lock()
		delete(c.ln.conns, c)
		c.ln.mu.Unlock()
	})
	return c.Conn.Close()
}

// cut breaks all connections at once, as the death of the process would.
func (l *countingListener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
		_ = c.Conn.Close()
	}
}

// node is a forwarder's bridge: a server and a pool.
type node struct {
	Peer
	server *Server
	pool   *Pool
	ln     *countingListener
	served chan error
}

type handler = func(context.Context, Identity, transport.Stream)

// startNode starts a node and stops it at the end of the test. Nobody may use its pool
// then.
func startNode(t testing.TB, a *authority, id string, handle handler, change func(*PoolConfig, *ServerConfig)) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startNodeAt(t, a, id, ln, handle, change)
}

func startNodeAt(t testing.TB, a *authority, id string, ln net.Listener, handle handler, change func(*PoolConfig, *ServerConfig)) *node {
	t.Helper()
	trust := a.trust(t, id)
	pool, server := PoolConfig{Trust: trust}, ServerConfig{Trust: trust, Handle: handle}
	if handle == nil {
		server.Handle = func(context.Context, Identity, transport.Stream) {}
	}
	if change != nil {
		change(&pool, &server)
	}
	n := &node{served: make(chan error, 1)}
	n.ln = &countingListener{Listener: ln, conns: make(map[*countedConn]struct{})}
	n.Peer = Peer{Node: id, Address: ln.Addr().String()}
	var err error
	if n.server, err = NewServer(server); err != nil {
		t.Fatal(err)
	}
	if n.pool, err = NewPool(pool); err != nil {
		t.Fatal(err)
	}
	go func() { n.served <- n.server.Serve(n.ln) }()
	t.Cleanup(func() {
		n.unused(t)
		_ = n.pool.Close()
		if left := n.pool.Stats(); len(left) != 0 {
			t.Errorf("after Close the pool of %s has %+v", id, left)
		}
		n.server.Stop()
		if err := <-n.served; err != nil {
			t.Error(err)
		}
		eventually(t, "the server forgets its peers", func() bool { return len(n.server.Stats()) == 0 })
	})
	return n
}

// unused waits until nothing of the pool is in use.
func (n *node) unused(t testing.TB) {
	t.Helper()
	eventually(t, "no stream is in use at "+n.Node, func() bool {
		for _, s := range n.pool.Stats() {
			if s.Active != 0 || s.Waiting != 0 || s.Dialling != 0 {
				return false
			}
		}
		return true
	})
}

// stats gives the pool's numbers for one peer.
func (n *node) stats(to string) PeerStats {
	for _, s := range n.pool.Stats() {
		if s.Node == to {
			return s
		}
	}
	return PeerStats{}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !pace.Until(10*time.Second, 2*time.Millisecond, ok) {
		t.Errorf("waited in vain: %s", what)
	}
}

// within bounds a test by work, so that it passes on a busy machine.
func within(t testing.TB, d time.Duration) context.Context { return pace.Within(t, d) }

// timeout bounds the time that passes for the code under test.
func timeout(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pair holds both ends of a stream.
type pair struct{ opener, acceptor transport.Stream }

// twoNodes are two nodes: the first opens streams, the second hands out the streams it
// has accepted.
type twoNodes struct {
	a, b  *node
	taken chan transport.Stream
}

func startTwo(t testing.TB, change func(*PoolConfig, *ServerConfig)) *twoNodes {
	t.Helper()
	ca := newAuthority(t)
	two := &twoNodes{taken: make(chan transport.Stream)}
	two.b = startNode(t, ca, "node-002", func(ctx context.Context, _ Identity, s transport.Stream) {
		h := &held{Stream: s, over: make(chan struct{})}
		select {
		case two.taken <- h:
		case <-ctx.Done():
			return
		}
		<-h.over
	}, change)
	two.a = startNode(t, ca, "node-001", nil, change)
	return two
}

// held is an accepted stream whose handler returns when the stream is closed.
type held struct {
	transport.Stream
	once sync.Once
	over chan struct{}
}

func (h *held) Close() error {
	err := h.Stream.Close()
	h.once.Do(func() { close(h.over) })
	return err
}

func (two *twoNodes) open(t testing.TB) pair {
	t.Helper()
	ctx := within(t, 10*time.Second)
	opener, err := two.a.pool.Open(ctx, two.b.Peer)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case acceptor := <-two.taken:
		t.Cleanup(func() { _ = opener.Close(); _ = acceptor.Close() })
		return pair{opener, acceptor}
	case <-ctx.Done():
		t.Fatal("the stream did not arrive")
		return pair{}
	}
}
