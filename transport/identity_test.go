package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestIdentityIsMadeOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first, err := LoadOrCreateIdentity(cert, key, "tunnel.example.org", "192.0.2.1", "localhost", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "tunnel.example.org", "192.0.2.1", "::1"} {
		if err := first.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	for _, file := range []string{cert, key} {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	again, err := LoadOrCreateIdentity(cert, key)
	if err != nil || !again.Leaf.Equal(first.Leaf) {
		t.Fatalf("another identity: %v", err)
	}
	// A crash between the two files: the key, and so the pin, stays.
	_ = os.Remove(cert)
	healed, err := LoadOrCreateIdentity(cert, key)
	if err != nil || PinOf(healed.Leaf) != PinOf(first.Leaf) {
		t.Fatalf("the pin changed: %v", err)
	}
	_ = os.Remove(key)
	if _, err := LoadOrCreateIdentity(cert, key); err == nil {
		t.Error("a certificate without key became an identity")
	}
	for text, why := range map[string]string{"": "empty", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n": "broken"} {
		_ = os.Remove(cert)
		_ = os.WriteFile(key, []byte(text), 0o600)
		if _, err := LoadOrCreateIdentity(cert, key); err == nil {
			t.Errorf("a key file that is %s was overwritten", why)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.pem.*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := LoadOrCreateIdentity(filepath.Join(dir, "no", "cert.pem"), filepath.Join(dir, "no", "key.pem")); err == nil {
		t.Error("an identity in a directory that is not there")
	}
}

func TestPinText(t *testing.T) {
	var pin Pin
	_, _ = rand.Read(pin[:])
	pin[0], pin[1] = 0xfb, 0xff // "+/" in base64
	for _, text := range []string{
		pin.String(),
		" " + pin.String() + "\n",
		"sha256:" + strings.ToUpper(hex.EncodeToString(pin[:])),
		"sha256:" + base64.StdEncoding.EncodeToString(pin[:]),
		"sha256:" + base64.RawURLEncoding.EncodeToString(pin[:]),
	} {
		if got, err := ParsePin(text); err != nil || got != pin {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "sha256:", "sha256:abcd", pin.String()[7:], "sha1:" + pin.String()[7:], pin.String() + "0",
		"sha256:" + strings.Repeat("g", 64), "sha256:" + strings.Repeat("!", 43)} {
		if _, err := ParsePin(text); err == nil {
			t.Errorf("%q is no pin", text)
		}
	}
}

func FuzzParsePin(f *testing.F) {
	f.Add(Pin{}.String())
	f.Add("sha256:" + base64.StdEncoding.EncodeToString(make([]byte, 32)))
	f.Fuzz(func(t *testing.T, text string) {
		pin, err := ParsePin(text)
		if err != nil {
			return
		}
		if again, err := ParsePin(pin.String()); err != nil || again != pin {
			t.Fatalf("%q became %v, %v", text, again, err)
		}
	})
}

// issue makes a certificate; without issuer it signs itself.
func issue(t *testing.T, name string, authority bool, until time.Time, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: until.Add(-48 * time.Hour), NotAfter: until, BasicConstraintsValid: true, IsCA: authority,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if authority {
		template.KeyUsage |= x509.KeyUsageCertSign
	}
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// A pin matches a leaf, or an authority that really signed the leaf for the name. An
// appended certificate proves nothing.
func TestPinsAndChains(t *testing.T) {
	later, past := time.Now().Add(24*time.Hour), time.Now().Add(-24*time.Hour)
	root, rootKey := issue(t, "root", true, past, nil, nil)
	middle, middleKey := issue(t, "middle", true, later, root, rootKey)
	leaf, leafKey := issue(t, "server.example", false, past, middle, middleKey)
	own, _ := issue(t, "server.example", false, later, nil, nil)
	byLeaf, _ := issue(t, "server.example", false, later, leaf, leafKey)
	stranger, _ := issue(t, "stranger", true, later, nil, nil)
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		host  string
		pin   *x509.Certificate
		ok    bool
	}{
		"leaf":                           {[]*x509.Certificate{leaf, middle}, "server.example", leaf, true},
		"leaf, any name, expired":        {[]*x509.Certificate{leaf}, "192.0.2.1", leaf, true},
		"middle":                         {[]*x509.Certificate{leaf, middle}, "server.example", middle, true},
		"root, expired":                  {[]*x509.Certificate{leaf, middle, root}, "server.example", root, true},
		"authority, another name":        {[]*x509.Certificate{leaf, middle, root}, "other.example", root, false},
		"appended authority":             {[]*x509.Certificate{own, middle}, "server.example", middle, false},
		"appended leaf of somebody":      {[]*x509.Certificate{own, leaf}, "server.example", leaf, false},
		"signed by what is no authority": {[]*x509.Certificate{byLeaf, leaf}, "server.example", leaf, false},
		"broken chain":                   {[]*x509.Certificate{leaf, stranger, root}, "server.example", root, false},
		"not in the chain":               {[]*x509.Certificate{leaf, middle}, "server.example", stranger, false},
		"no certificate":                 {nil, "server.example", leaf, false},
	} {
		err := verifyPins(tls.ConnectionState{PeerCertificates: c.chain}, c.host, []Pin{PinOf(c.pin)})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && name != "authority, another name" && !errors.Is(err, ErrPin) {
			t.Errorf("%s: %v is no ErrPin", name, err)
		}
	}
}

func TestLoadRoots(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := LoadOrCreateIdentity(cert, key); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRoots(cert); err != nil {
		t.Error(err)
	}
	for _, file := range []string{key, filepath.Join(dir, "none")} {
		if _, err := LoadRoots(file); err == nil {
			t.Errorf("%s holds roots", file)
		}
	}
}
