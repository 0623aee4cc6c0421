package ingress_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/ingress"
)

// secured serves the world's host over TLS too and gives the address, and what a visitor
// needs to trust it.
func (w *world) secured(patience time.Duration) (address string, config *tls.Config) {
	w.t.Helper()
	certificate, config := w.identity()
	server := ingress.New(ingress.Config{Finder: w, Logger: slog.New(slog.DiscardHandler), HeaderTimeout: patience})
	front := listen(w.t)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.ServeTLS(front, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil }); err != nil {
			w.t.Errorf("serve: %v", err)
		}
	})
	w.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			w.t.Errorf("close: %v", err)
		}
		serving.Wait()
	})
	return front.Addr().String(), config
}

// identity makes a certificate for the world's host, and what a visitor needs to trust it.
func (w *world) identity() (*tls.Certificate, *tls.Config) {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"app.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, &tls.Config{RootCAs: roots, ServerName: "app.example.org"}
}

// A visitor over TLS who has sent all gets the answer, however long the service thinks.
func TestEndOfRequestOverTLSIsNoAbort(t *testing.T) {
	w := newWorld(t, func(c *net.TCPConn) {
		if _, err := readHead(bufio.NewReader(c)); err != nil {
			return
		}
		time.Sleep(600 * time.Millisecond) // longer than the server looks away
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
	})
	address, config := w.secured(0)
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, get("/")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(got), "late") {
		t.Errorf("the answer is %q, %v", got, err)
	}
}

// Requests that can be read in two ways are refused over TLS as without it.
func TestFramingIsCheckedOverTLS(t *testing.T) {
	service := &raw{answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}
	w := newWorld(t, service.serve)
	address, config := w.secured(0)
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, request("POST", "/", "Content-Length: 5", "Transfer-Encoding: chunked")+"0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, _ := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("the answer begins %q", got)
	}
}

// A visitor who connects and says nothing is let go after the time for a request's head,
// and others are served meanwhile.
func TestSilentVisitorsOverTLS(t *testing.T) {
	service := &raw{answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"}
	w := newWorld(t, service.serve)
	address, config := w.secured(500 * time.Millisecond)
	var silent []net.Conn
	for range 50 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(limit))
		silent = append(silent, c)
	}
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, get("/")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(got), "ok") {
		t.Errorf("the answer is %q, %v", got, err)
	}
	for _, c := range silent {
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("a silent visitor sees %v", err)
		}
	}
}
