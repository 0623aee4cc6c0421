package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
)

// startTLS gives a listener with a fresh identity, and its pin.
func startTLS(t testing.TB, change func(*ListenConfig)) (*TLSListener, Pin) {
	t.Helper()
	dir := t.TempDir()
	cert, err := LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := ListenConfig{Certificate: cert}
	if change != nil {
		change(&config)
	}
	l, err := ListenTLS(ln, config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, PinOf(cert.Leaf)
}

// within bounds a test by work, so that it passes on a busy machine.
func within(t testing.TB, d time.Duration) context.Context { return pace.Within(t, d) }

func TestTLSCarriesBytesAndBindsBothEnds(t *testing.T) {
	l, pin := startTLS(t, nil)
	ctx := within(t, 10*time.Second)
	agent, err := DialTLS(ctx, l.Addr().String(), DialConfig{Pins: []Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	server, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if len(agent.Binding()) != 32 || string(agent.Binding()) != string(server.Binding()) {
		t.Fatalf("bindings %x and %x", agent.Binding(), server.Binding())
	}
	if l.Strangers() != 1 {
		t.Fatalf("%d strangers", l.Strangers())
	}
	server.Admit()
	if l.Strangers() != 0 {
		t.Fatalf("%d strangers after Admit", l.Strangers())
	}
	out, err := server.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	in, err := agent.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if got, err := io.ReadAll(in); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestTheServerIsVerified(t *testing.T) {
	l, pin := startTLS(t, nil)
	roots := x509.NewCertPool()
	roots.AddCert(l.config.Certificate.Leaf)
	wrong := pin
	wrong[0] ^= 1
	for name, c := range map[string]struct {
		config DialConfig
		ok     bool
	}{
		"system roots":            {DialConfig{}, false},
		"its own root":            {DialConfig{Roots: roots}, true},
		"its root, another name":  {DialConfig{Roots: roots, ServerName: "example.org"}, false},
		"no roots":                {DialConfig{Roots: x509.NewCertPool()}, false},
		"pin":                     {DialConfig{Pins: []Pin{wrong, pin}}, true},
		"pin, another name":       {DialConfig{Pins: []Pin{pin}, ServerName: "example.org"}, true},
		"another pin":             {DialConfig{Pins: []Pin{wrong}}, false},
		"pin and roots are a mix": {DialConfig{Pins: []Pin{pin}, Roots: roots}, false},
	} {
		s, err := DialTLS(within(t, 10*time.Second), l.Addr().String(), c.config)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if name == "another pin" && !errors.Is(err, ErrPin) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			_ = s.Close()
		}
	}
}

// A cluster presents its authority's certificate behind its own: who pinned the
// authority finds every node, as long as the name is right, and a certificate
// that is renewed meanwhile disturbs no session.
func TestPinnedAuthorityHoldsForEveryServerAndRenewal(t *testing.T) {
	until := time.Now().Add(time.Hour)
	ca, caKey := issue(t, "authority", true, until, nil, nil)
	other, otherKey := issue(t, "other authority", true, until, nil, nil)
	serving := func(name string, authority *x509.Certificate, key *ecdsa.PrivateKey, presented *x509.Certificate) *tls.Certificate {
		leaf, leafKey := issue(t, name, false, until, authority, key)
		return &tls.Certificate{Certificate: [][]byte{leaf.Raw, presented.Raw}, PrivateKey: leafKey, Leaf: leaf}
	}
	var current atomic.Pointer[tls.Certificate]
	current.Store(serving("one.example.org", ca, caKey, ca))
	l, _ := startTLS(t, func(c *ListenConfig) {
		c.GetCertificate, c.Certificate = func() (*tls.Certificate, error) { return current.Load(), nil }, tls.Certificate{}
	})
	dial := func(name string, pin Pin) (Session, error) {
		return DialTLS(within(t, 10*time.Second), l.Addr().String(), DialConfig{Pins: []Pin{pin}, ServerName: name})
	}
	first, err := dial("one.example.org", PinOf(ca))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	current.Store(serving("two.example.org", ca, caKey, ca))
	second, err := dial("two.example.org", PinOf(ca))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	select {
	case <-first.Done():
		t.Error("a renewed certificate ended a session")
	default:
	}
	if _, err := dial("one.example.org", PinOf(ca)); err == nil {
		t.Error("the authority's pin vouches for another server's name")
	}
	// The authority's certificate put behind one that it did not sign.
	current.Store(serving("one.example.org", other, otherKey, ca))
	if _, err := dial("one.example.org", PinOf(ca)); !errors.Is(err, ErrPin) {
		t.Errorf("a borrowed authority: %v", err)
	}
}
