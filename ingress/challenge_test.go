package ingress_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/ingress"
)

// challenge is one of the host app.example.org.
type challenge struct{ certificate *tls.Certificate }

func (c challenge) Content(_ context.Context, host, token, visitor string) (string, bool) {
	return "token.print", host == "app.example.org" && token == "token" && strings.HasPrefix(visitor, "127.0.0.1:")
}

func (c challenge) Certificate(_ context.Context, host, visitor string) (*tls.Certificate, error) {
	if host != "app.example.org" || !strings.HasPrefix(visitor, "127.0.0.1:") {
		return nil, errors.New("another host")
	}
	return c.certificate, nil
}

// The answer to a challenge is shown over HTTP before anything else is done: nobody is
// redirected, and the service sees nothing of it. Challenges that are not ours are its
// business.
func TestChallengeOverHTTP(t *testing.T) {
	w := newWorldWith(t, func(c *net.TCPConn) {
		if _, err := readHead(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nservice")
		}
	}, func(c *ingress.Config) {
		c.Challenges = challenge{}
		c.Secure = func(host string, u *url.URL) string { return "https://" + host + u.RequestURI() }
	})
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.address)
		}}}
	for _, x := range []struct {
		method, path string
		status       int
		body         string
	}{
		{http.MethodGet, "/.well-known/acme-challenge/token", http.StatusOK, "token.print"},
		{http.MethodPost, "/.well-known/acme-challenge/token", http.StatusPermanentRedirect, ""},
		{http.MethodGet, "/.well-known/acme-challenge/other", http.StatusPermanentRedirect, ""},
		{http.MethodGet, "/.well-known/acme-challenge/", http.StatusPermanentRedirect, ""},
		{http.MethodGet, "/.well-known/acme-challenge/token/more", http.StatusPermanentRedirect, ""},
		{http.MethodGet, "/.well-known/acme-challenge/" + strings.Repeat("t", 300), http.StatusPermanentRedirect, ""},
	} {
		req, err := http.NewRequest(x.method, "http://app.example.org"+x.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != x.status || x.body != "" && string(body) != x.body {
			t.Errorf("%s %.60s is answered %s %.100q, %v, want %d and %q", x.method, x.path, res.Status, body, err, x.status, x.body)
		}
	}
}

// Who asks for nothing but the protocol of challenges gets the certificate of the
// challenge, and no HTTP. Others do not get it.
func TestChallengeOverTLS(t *testing.T) {
	w := newWorld(t, func(*net.TCPConn) {})
	usual, shown := signedByItself(t, "app.example.org"), signedByItself(t, "challenge.example.org")
	server := ingress.New(ingress.Config{Finder: w, Logger: slog.New(slog.DiscardHandler), Challenges: challenge{shown}})
	front := listen(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.ServeTLS(front, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return usual, nil }); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	for _, x := range []struct {
		host   string
		protos []string
		want   string // "" = no handshake
	}{
		{"app.example.org", []string{"acme-tls/1"}, "challenge.example.org"},
		{"app.example.org", []string{"acme-tls/1", "http/1.1"}, "app.example.org"},
		{"app.example.org", []string{"http/1.1"}, "app.example.org"},
		{"other.example.org", []string{"acme-tls/1"}, ""},
		{"", []string{"acme-tls/1"}, ""},
	} {
		c, err := tls.Dial("tcp", front.Addr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: x.host, NextProtos: x.protos}) //nolint:gosec // a challenge's certificate is signed by nobody
		if err != nil {
			if x.want != "" {
				t.Errorf("%q with %q: %v", x.host, x.protos, err)
			}
			continue
		}
		_ = c.SetDeadline(time.Now().Add(limit))
		if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != x.want {
			t.Errorf("%q with %q gets the certificate of %q, want %q", x.host, x.protos, got, x.want)
		}
		if len(x.protos) == 1 && x.protos[0] == "acme-tls/1" {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("after the handshake of a challenge: %v", err)
			}
		}
		_ = c.Close()
	}
}

// signedByItself makes a certificate for a host.
func signedByItself(t *testing.T, host string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
