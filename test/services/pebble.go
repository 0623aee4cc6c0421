package services

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pebbleStart bounds the start of an authority.
const pebbleStart = 30 * time.Second

// PebbleOptions say what an authority does. DNS is required.
type PebbleOptions struct {
	HTTPPort int           // where HTTP-01 looks; 0 = at a port where nobody listens
	TLSPort  int           // where TLS-ALPN-01 looks; 0 = the same
	DNS      string        // host:port of the name server that it asks
	Validity time.Duration // of certificates; 0 = 90 days
}

// Pebble is a certificate authority that speaks ACME.
type Pebble struct {
	Directory string // URL
	Root      string // file with the certificate of its server

	t       testing.TB
	log     string
	manage  string
	client  *http.Client
	process *process
}

var builtPebble struct {
	once sync.Once
	file string
	err  error
}

// StartPebble starts an authority of its own for a test.
func StartPebble(t testing.TB, options PebbleOptions) *Pebble {
	t.Helper()
	builtPebble.once.Do(func() { builtPebble.file, builtPebble.err = buildPebble() })
	if builtPebble.err != nil {
		t.Fatal(builtPebble.err)
	}
	dir, err := privateDir("tunnox-pebble-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ports := []int{options.HTTPPort, options.TLSPort, 0, 0}
	for i := range ports {
		if ports[i] == 0 {
			if ports[i], err = freePort(); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := &Pebble{t: t, Directory: fmt.Sprintf("https://127.0.0.1:%d/dir", ports[2]), Root: filepath.Join(dir, "server.pem"),
		log: filepath.Join(dir, "log"), manage: fmt.Sprintf("https://127.0.0.1:%d", ports[3])}
	key := filepath.Join(dir, "server.key")
	roots, err := serverCertificate(p.Root, key)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	p.client = &http.Client{Transport: transport, Timeout: pebbleStart}
	validity := options.Validity
	if validity == 0 {
		validity = 90 * 24 * time.Hour
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", ports[2]), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", ports[3]),
		"certificate": p.Root, "privateKey": key, "httpPort": ports[0], "tlsPort": ports[1], "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": map[string]any{"description": "for tests", "validityPeriod": int(validity.Seconds())}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		t.Fatal(err)
	}
	p.start(file, options.DNS)
	return p
}

// buildPebble builds the program of the module tools/pebble.
func buildPebble() (string, error) {
	if file := os.Getenv("TUNNOX_TEST_PEBBLE"); file != "" {
		return file, nil
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	dir, err := privateDir("tunnox-pebble-")
	if err != nil {
		return "", err
	}
	atExit(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "pebble")
	build := exec.Command("go", "build", "-C", filepath.Join(strings.TrimSpace(string(root)), "tools", "pebble"), "-o", file, "github.com/letsencrypt/pebble/v2/cmd/pebble")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build pebble: %w: %s", err, out)
	}
	return file, nil
}

func (p *Pebble) start(config, dns string) {
	p.t.Helper()
	log, err := os.Create(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(builtPebble.file, "-config", config, "-dnsserver", dns)
	// It waits for no reason, refuses nonces and forgets what was proved, unless told
	// not to.
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	cmd.Stdout, cmd.Stderr = log, log
	if p.process, err = startProcess(cmd); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		p.process.end(syscall.SIGKILL)
		if p.t.Failed() {
			p.t.Logf("pebble said:\n%s", tail(p.Said(), 6<<10))
		}
	})
	deadline := time.Now().Add(pebbleStart)
	for {
		res, err := p.client.Get(p.Directory)
		if err == nil {
			_ = res.Body.Close()
			return
		}
		if p.process.exited() || time.Now().After(deadline) {
			p.t.Fatalf("pebble does not start: %v\n%s", err, p.Said())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// Said gives all that it has written.
func (p *Pebble) Said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Issued gives how many certificates it has given.
func (p *Pebble) Issued() int { return strings.Count(p.Said(), "Issued certificate serial") }

// Orders gives how many orders it was sent.
func (p *Pebble) Orders() int { return strings.Count(p.Said(), "Added order ") }

// Accounts gives how many accounts it has.
func (p *Pebble) Accounts() int { return strings.Count(p.Said(), "accounts in memory") }

// Roots gives who trusts its certificates.
func (p *Pebble) Roots() *x509.CertPool {
	p.t.Helper()
	res, err := p.client.Get(p.manage + "/roots/0")
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(text) {
		p.t.Fatalf("pebble's root: %v, %.100s", err, text)
	}
	return roots
}

// Stop ends it.
func (p *Pebble) Stop() { p.process.end(syscall.SIGKILL) }

// serverCertificate makes the certificate of a server on this machine.
func serverCertificate(certificate, key string) (*x509.CertPool, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "pebble's server"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	certificatePEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificatePEM)
	// The server runs as nobody.
	return roots, errors.Join(os.WriteFile(certificate, certificatePEM, 0o644),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o644))
}
