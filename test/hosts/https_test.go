package hosts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// writeCertificate makes a certificate for the public hosts and gives the roots that
// trust it.
func writeCertificate(t testing.TB, certificate, key string) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: baseDomain}, DNSNames: []string{baseDomain, "*." + baseDomain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)
	return roots
}

// secureVisitors gives a client that reaches every host at one address over TLS. It
// follows no redirect.
func secureVisitors(t testing.TB, address string, roots *x509.CertPool, http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: limit, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestPublicHostOverTLS(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key")
	roots := writeCertificate(t, certificate, key)
	secure := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := embedded(t, "--https", secure, "--certificate", certificate, "--certificate-key", key)
	m := w.publish(web(t, func(rw http.ResponseWriter, in *http.Request) {
		fmt.Fprintf(rw, "%s %s %s", in.Host, in.RequestURI, in.Header.Get("X-Forwarded-Proto"))
	}), map[string]any{"public_host": "shop"})
	if want := "https://shop." + baseDomain + ":" + strings.Split(secure, ":")[1] + "/"; m.URL != want {
		t.Errorf("public_url is %s, want %s", m.URL, want)
	}
	if got := w.addresses()["https"]; got != secure {
		t.Errorf("addresses.json has https %q, want %s", got, secure)
	}

	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			client := secureVisitors(t, secure, roots, http2)
			var res *http.Response
			programs.Eventually(t, limit, func() (err error) {
				if res, err = client.Get(m.URL + "a?b"); err == nil && res.StatusCode != http.StatusOK {
					res.Body.Close()
					err = fmt.Errorf("status %s", res.Status)
				}
				return err
			})
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			host := strings.TrimSuffix(strings.TrimPrefix(m.URL, "https://"), "/")
			if want := host + " /a?b https"; err != nil || string(body) != want || res.ProtoMajor == 2 != http2 {
				t.Errorf("%s answers %q, %v, want %q", res.Proto, body, err, want)
			}
		})
	}

	t.Run("HTTP/3", func(t *testing.T) { w.http3(t, secure, roots, m) })

	t.Run("another host than that of the handshake", func(t *testing.T) {
		conn, err := tls.Dial("tcp", secure, &tls.Config{RootCAs: roots, ServerName: "other." + baseDomain})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(limit))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: shop.%s\r\nConnection: close\r\n\r\n", baseDomain)
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 421 ") {
			t.Errorf("it answers %.100q, %v", answer, err)
		}
	})

	t.Run("visitors without TLS are redirected", func(t *testing.T) {
		w.visitors.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		res, err := w.visitors.Post("http://shop."+baseDomain+"/form?x=%zz", "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if want := m.URL + "form?x=%zz"; res.StatusCode != http.StatusPermanentRedirect || res.Header.Get("Location") != want {
			t.Errorf("it answers %s to %q, want 308 to %q", res.Status, res.Header.Get("Location"), want)
		}
		unknown, err := w.visitors.Get("http://nobody." + baseDomain + "/")
		if err != nil {
			t.Fatal(err)
		}
		unknown.Body.Close()
		if unknown.StatusCode != http.StatusNotFound {
			t.Errorf("an unknown host answers %s", unknown.Status)
		}
	})

	t.Run("a new certificate is used without a restart", func(t *testing.T) {
		next := writeCertificate(t, certificate, key)
		client := secureVisitors(t, secure, next, false)
		programs.Eventually(t, limit, func() error {
			res, err := client.Get(m.URL)
			if err == nil {
				res.Body.Close()
			}
			return err
		})
	})
}
