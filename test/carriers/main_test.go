// Package carriers tests how real agents reach a real server: over every transport,
// behind reverse proxies, and through the proxies of the networks that people are on.
//
// Its duty is what a user sees working. It has no code of its own beside its tests:
// nginx, haproxy and tinyproxy are Debian's, which test/setup.sh installs.
package carriers

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

func TestMain(m *testing.M) { programs.Main(m) }

// place is a server with two clients and a service behind the second.
type place struct {
	*programs.API
	server         *programs.Server
	user           programs.User
	source, target programs.Client
}

func newPlace(t *testing.T, args ...string) *place {
	t.Helper()
	s := programs.Serve(t, args...)
	p := &place{API: s.API, server: s, user: s.API.CreateUser(t, "ann")}
	p.source, p.target = s.API.CreateClient(t, p.user.ID, "source"), s.API.CreateClient(t, p.user.ID, "target")
	return p
}

// start starts the agent of a client with nothing but the given arguments to reach its
// server, and does not wait.
func (p *place) start(t *testing.T, c programs.Client, env []string, args ...string) *programs.Process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "auth-code")
	if err := os.WriteFile(file, []byte(c.AuthCode+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := []string{"agent", "--state", t.TempDir(), "--client-id", fmt.Sprint(c.ID), "--auth-code-file", file, "--log-level", "debug"}
	return programs.Start(t, "tunnox", env, append(base, args...)...)
}

// join starts both agents and waits until they are online.
func (p *place) join(t *testing.T, env []string, args ...string) (source, target *programs.Process) {
	t.Helper()
	source, target = p.start(t, p.source, env, args...), p.start(t, p.target, env, args...)
	p.WaitOnline(t, p.source.ID)
	p.WaitOnline(t, p.target.ID)
	return source, target
}

// mapping makes a mapping to a service that answers only when its question has ended: a
// tunnel that does not carry a half-close gets no answer.
func (p *place) mapping(t *testing.T) int {
	t.Helper()
	service := programs.Listen(t, func(c *net.TCPConn) {
		question, err := io.ReadAll(c)
		if err == nil {
			_, _ = c.Write(append(question, sum(question)...))
			_ = c.CloseWrite()
		}
	})
	m := p.CreateMapping(t, programs.Mapping{UserID: p.user.ID, Protocol: "tcp", Source: p.source.ID, Target: p.target.ID,
		LocalPort: programs.FreePort(t), TargetHost: "127.0.0.1", TargetPort: service.Port})
	return m.LocalPort
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// carries asks through a mapping, little and much.
func carries(t *testing.T, port int) {
	t.Helper()
	for _, size := range []int{1, 3 << 20} {
		question := bytes.Repeat([]byte("tunnox"), size/6+1)
		programs.Eventually(t, 20*time.Second, func() error {
			got, err := programs.Ask(port, question)
			if err == nil && !bytes.Equal(got, append(bytes.Clone(question), sum(question)...)) {
				err = fmt.Errorf("asked %d bytes, got %d others", len(question), len(got))
			}
			return err
		})
	}
}

// wssTo is an address for a port on this machine.
func wssTo(port int) string { return fmt.Sprintf("wss://127.0.0.1:%d", port) }

// certificate makes an authority and a certificate of it for 127.0.0.1 and names, as
// files: what a proxy presents, and what --ca takes.
func certificate(t *testing.T, names ...string) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, blocks ...*pem.Block) string {
		var b bytes.Buffer
		for _, block := range blocks {
			if err := pem.Encode(&b, block); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	make1 := func(template, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if by == nil {
			by = k
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, k.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return der, k
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of " + t.Name()}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	rootDER, rootKey := make1(root, root, nil)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "proxy"}, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	leafDER, leafKey := make1(leaf, root, rootKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	keyBlock := &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}
	certBlock := &pem.Block{Type: "CERTIFICATE", Bytes: leafDER}
	return file("ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), file("cert.pem", certBlock, keyBlock), file("key.pem", keyBlock)
}

// daemon runs a program of Debian's until the test ends, and waits until its port is open.
func daemon(t *testing.T, port int, name string, args ...string) {
	t.Helper()
	path := name
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin"} {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			path = found
		}
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v (test/setup.sh installs it)", name, err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with its children
		_ = cmd.Wait()                                      // it was killed
		_ = said.Close()
	})
	err = programs.Poll(20*time.Second, func() error {
		c, err := programs.DialPort(port)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	if err != nil {
		b, _ := os.ReadFile(said.Name())
		t.Fatalf("%s: %v\n%s", name, err, b)
	}
}

// configure writes a program's configuration.
func configure(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(strings.TrimSpace(text)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
