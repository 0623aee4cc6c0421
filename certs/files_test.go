package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes a certificate for the names in a pair of files.
func write(t *testing.T, pair Pair, names ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{pair.Certificate: {Type: "CERTIFICATE", Bytes: der}, pair.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// pairIn names a pair of files in a folder.
func pairIn(folder, name string) Pair {
	return Pair{filepath.Join(folder, name+".pem"), filepath.Join(folder, name+".key")}
}

// asked gives the names of the certificate for a host, "" for none.
func asked(t *testing.T, f *Files, host string) string {
	t.Helper()
	c, err := f.Certificate(&tls.ClientHelloInfo{ServerName: host, SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}})
	if errors.Is(err, ErrNoCertificate) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(c.Leaf.DNSNames, " ")
}

func TestFilesGiveTheCertificateOfTheName(t *testing.T) {
	folder := t.TempDir()
	wild, other := pairIn(folder, "wild"), pairIn(folder, "other")
	write(t, wild, "t.example.org", "*.t.example.org")
	write(t, other, "shop.example.net")
	f, err := OpenFiles([]Pair{wild, other}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"brave-otter.t.example.org": "t.example.org *.t.example.org",
		"T.EXAMPLE.ORG":             "t.example.org *.t.example.org",
		"shop.example.net":          "shop.example.net",
		"a.b.t.example.org":         "",
		"example.net":               "",
	} {
		if got := asked(t, f, host); got != want {
			t.Errorf("%s gets the certificate of %q, want %q", host, got, want)
		}
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	pair := pairIn(t.TempDir(), "one")
	write(t, pair, "old.example.org")
	f, err := OpenFiles([]Pair{pair}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	// The certificate alone is new: it does not fit the key, and the old pair stays.
	next := pairIn(t.TempDir(), "next")
	write(t, next, "new.example.org")
	content, err := os.ReadFile(next.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, pair.Certificate, content, time.Now().Add(time.Second))
	f.look()
	if got := asked(t, f, "old.example.org"); got != "old.example.org" {
		t.Fatalf("with half of a new pair the old name gets %q", got)
	}

	content, err = os.ReadFile(next.Key)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, pair.Key, content, time.Now().Add(2*time.Second))
	f.look()
	if got := asked(t, f, "new.example.org"); got != "new.example.org" {
		t.Fatalf("after the change the new name gets %q", got)
	}
	if got := asked(t, f, "old.example.org"); got != "" {
		t.Fatalf("after the change the old name gets %q", got)
	}
}

// replace writes a file with a time of its own, because the clock of a file system may
// be coarse.
func replace(t *testing.T, name string, content []byte, at time.Time) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestFilesNameTheFileThatIsWrong(t *testing.T) {
	folder := t.TempDir()
	good, bad := pairIn(folder, "good"), pairIn(folder, "bad")
	write(t, good, "good.example.org")
	if _, err := OpenFiles([]Pair{good, bad}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), bad.Certificate) {
		t.Fatalf("a missing file gives %v", err)
	}
}
