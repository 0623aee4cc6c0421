package control

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
)

func openAuthority(t testing.TB, vault Vault) *Authority {
	t.Helper()
	a, err := OpenAuthority(t.Context(), vault, AuthorityOptions{})
	must(t, err)
	return a
}

func TestControlPlanesThatStartAtOnceShareOneAuthority(t *testing.T) {
	dir := t.TempDir()
	const n = 8
	pins := make([][32]byte, n)
	tokens := make([]JoinToken, n)
	var starting sync.WaitGroup
	for i := range n {
		starting.Go(func() {
			vault := NewFileVault(dir)
			a, err := OpenAuthority(t.Context(), vault, AuthorityOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			pins[i] = a.Pin()
			j, err := OpenJoinTokens(t.Context(), vault, a)
			if err != nil {
				t.Error(err)
				return
			}
			if tokens[i], err = j.Current(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	for i := range n {
		if pins[i] != pins[0] || tokens[i] != tokens[0] {
			t.Fatalf("control plane %d has another authority or join token", i)
		}
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	if len(files) != 2 {
		t.Errorf("%d files are left, want the authority and the join secret", len(files))
	}
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
}

func TestAuthorityRefusesABrokenSecret(t *testing.T) {
	a := openAuthority(t, NewFileVault(t.TempDir()))
	good, err := a.create()
	must(t, err)
	leaf, err := a.IssueState()
	must(t, err)
	file := t.TempDir() + "/leaf"
	must(t, leaf.save(file))
	ofLeaf, err := os.ReadFile(file)
	must(t, err)
	for name, text := range map[string][]byte{
		"empty": {}, "no PEM": []byte("hello"), "cut": good[:len(good)-100], "something behind": append(append([]byte{}, good...), "x"...), "not an authority": ofLeaf,
	} {
		vault := NewFileVault(t.TempDir())
		must(t, vault.Create(t.Context(), secretAuthority, text))
		if _, err := OpenAuthority(t.Context(), vault, AuthorityOptions{}); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestFileVaultComparesAndCreates(t *testing.T) {
	v := NewFileVault(t.TempDir())
	ctx := t.Context()
	if _, err := v.Load(ctx, "x"); !errors.Is(err, ErrAbsent) {
		t.Errorf("got the error %v, want %v", err, ErrAbsent)
	}
	must(t, v.Create(ctx, "x", []byte("1")))
	if err := v.Create(ctx, "x", []byte("2")); !errors.Is(err, ErrPresent) {
		t.Errorf("got the error %v, want %v", err, ErrPresent)
	}
	if err := v.Replace(ctx, "x", []byte("2"), []byte("3")); !errors.Is(err, ErrChanged) {
		t.Errorf("got the error %v, want %v", err, ErrChanged)
	}
	must(t, v.Replace(ctx, "x", []byte("1"), []byte("3")))
	if b, err := v.Load(ctx, "x"); err != nil || string(b) != "3" {
		t.Errorf("%q, %v", b, err)
	}
	if err := v.Replace(ctx, "y", nil, []byte("3")); !errors.Is(err, ErrAbsent) {
		t.Errorf("got the error %v, want %v", err, ErrAbsent)
	}
	gone := NewFileVault(t.TempDir() + "/gone")
	if err := gone.Create(ctx, "x", nil); err == nil {
		t.Error("created in a folder that is not there")
	}
}

func TestCertificatesSayWhatTheyAreFor(t *testing.T) {
	a := openAuthority(t, NewFileVault(t.TempDir()))
	verify := func(c *x509.Certificate, usage x509.ExtKeyUsage) error {
		_, err := c.Verify(x509.VerifyOptions{Roots: a.Roots(), KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	node, err := a.IssueNode("node-007")
	must(t, err)
	state, err := a.IssueState()
	must(t, err)
	agents, err := a.IssueAgents("edge.example.org", "127.0.0.1")
	must(t, err)
	for name, c := range map[string]struct {
		issued         Issued
		uri            string
		client, server bool
	}{
		"node":   {node, "tunnox://node/node-007", true, true},
		"state":  {state, "tunnox://control/state", false, true},
		"agents": {agents, "", false, true},
	} {
		leaf := c.issued.Certificate.Leaf
		uri := ""
		if len(leaf.URIs) == 1 {
			uri = leaf.URIs[0].String()
		}
		if uri != c.uri {
			t.Errorf("%s: URI %q", name, uri)
		}
		if got := verify(leaf, x509.ExtKeyUsageClientAuth) == nil; got != c.client {
			t.Errorf("%s: good for clients: %v", name, got)
		}
		if got := verify(leaf, x509.ExtKeyUsageServerAuth) == nil; got != c.server {
			t.Errorf("%s: good for servers: %v", name, got)
		}
		if leaf.IsCA || leaf.SerialNumber.Sign() <= 0 || leaf.SerialNumber.BitLen() < 64 {
			t.Errorf("%s: authority %v, serial number %v", name, leaf.IsCA, leaf.SerialNumber)
		}
		if d := time.Until(leaf.NotAfter); d < 23*time.Hour || d > 25*time.Hour {
			t.Errorf("%s: good for %v", name, d)
		}
		if time.Since(leaf.NotBefore) < 4*time.Minute {
			t.Errorf("%s: a node whose clock is 4 minutes behind does not take it", name)
		}
		if len(c.issued.Certificate.Certificate) != 2 {
			t.Errorf("%s: the chain has %d certificates; the authority must be there to be pinned", name, len(c.issued.Certificate.Certificate))
		}
	}
	if node.Certificate.Leaf.SerialNumber.Cmp(state.Certificate.Leaf.SerialNumber) == 0 {
		t.Error("two certificates have one serial number")
	}
	if agents.Certificate.Leaf.VerifyHostname("edge.example.org") != nil || agents.Certificate.Leaf.VerifyHostname("127.0.0.1") != nil {
		t.Error("the agents' certificate is not for its names")
	}
	if node.Certificate.Leaf.VerifyHostname("127.0.0.1") == nil {
		t.Error("a node's certificate passes for a forwarder's to agents")
	}
}

func TestAuthorityRefusesWhatItMustNotSign(t *testing.T) {
	a := openAuthority(t, NewFileVault(t.TempDir()))
	request := func(key any, template x509.CertificateRequest) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
		must(t, err)
		return der
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	forged := request(key, x509.CertificateRequest{})
	forged[len(forged)-1] ^= 1
	for name, der := range map[string][]byte{"empty": nil, "RSA": request(weak, x509.CertificateRequest{}),
		"P-224": request(small, x509.CertificateRequest{}), "not signed by its key": forged} {
		_, err := a.SignNode(der, "node-001")
		if domain.CodeOf(err) != domain.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, node := range []string{"", "Node", "node/001", "node 1", "../state"} {
		_, err := a.SignNode(request(key, x509.CertificateRequest{}), node)
		wantCode(t, err, domain.CodeInvalid)
	}
	// What a request says beside its key is not believed.
	cert, err := a.SignNode(request(edwards, x509.CertificateRequest{DNSNames: []string{"bank.example"},
		URIs: []*url.URL{nodeURI("node-001"), stateURI()}, IPAddresses: []net.IP{net.IPv4(1, 2, 3, 4)}}), "node-002")
	must(t, err)
	if node, err := nodeOf(cert); node != "node-002" || err != nil || len(cert.DNSNames)+len(cert.IPAddresses) != 0 {
		t.Errorf("signed for %q (%v), names %v", node, err, cert.DNSNames)
	}
	if _, err := a.SignAgents(request(key, x509.CertificateRequest{})); domain.CodeOf(err) != domain.CodeInvalid {
		t.Errorf("an agents' certificate without names: %v", err)
	}
	cert, err = a.SignAgents(request(key, x509.CertificateRequest{DNSNames: []string{"a.example"}, URIs: []*url.URL{nodeURI("node-001")}}))
	must(t, err)
	if _, err := nodeOf(cert); err == nil {
		t.Error("an agents' certificate passes for a node's")
	}
}

// One join line holds for every forwarder of a cluster: agents pin the authority.
func TestAgentsPinTheAuthority(t *testing.T) {
	a := openAuthority(t, NewFileVault(t.TempDir()))
	other := openAuthority(t, NewFileVault(t.TempDir()))
	for name, test := range map[string]struct {
		by   *Authority
		host string
		ok   bool
	}{
		"any forwarder":          {a, "127.0.0.1", true},
		"another name":           {a, "10.0.0.1", false},
		"another authority":      {other, "127.0.0.1", false},
		"a forwarder after that": {a, "127.0.0.1", true},
	} {
		i, err := test.by.IssueAgents(test.host)
		must(t, err)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		agents, err := transport.ListenTLS(ln, transport.ListenConfig{Certificate: i.Certificate}, slog.New(slog.DiscardHandler))
		must(t, err)
		s, err := transport.DialTLS(t.Context(), ln.Addr().String(), transport.DialConfig{Pins: []transport.Pin{transport.Pin(a.Pin())}})
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			must(t, s.Close())
		}
		must(t, agents.Close())
	}
}
