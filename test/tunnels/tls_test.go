package tunnels

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestTLS: one command gives a TLS service a public host, with the certificate of the
// service, and the host stays when the program or the server is killed.
func TestTLS(t *testing.T) {
	t.Parallel()
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := newWorld(t, "--tls", at, "--base-domain", "t.example.org")
	laptop := w.machine("laptop")
	site := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("web")) }))
	t.Cleanup(site.Close)
	_, port, err := net.SplitHostPort(site.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tunnel := laptop.tunnel("tls", port)
	u, err := url.Parse(tunnel.ready.URL)
	if err != nil || u.Scheme != "https" || !strings.HasSuffix(u.Hostname(), ".t.example.org") || u.Port() != strings.Split(at, ":")[1] {
		t.Fatalf("the URL is %q, %v", tunnel.ready.URL, err)
	}
	answered := func(host string) {
		t.Helper()
		programs.Eventually(t, limit, func() error {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", at, &tls.Config{InsecureSkipVerify: true, ServerName: host})
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			if shown := conn.ConnectionState().PeerCertificates[0]; !shown.Equal(site.Certificate()) {
				return fmt.Errorf("%s shows the certificate of %v", host, shown.DNSNames)
			}
			return nil
		})
	}
	answered(u.Hostname())

	tunnel.Kill()
	tunnel = laptop.tunnel("tls", port)
	if tunnel.ready.URL != u.String() {
		t.Errorf("the URL is %s now, and was %s", tunnel.ready.URL, u)
	}
	answered(u.Hostname())
	w.Kill()
	w.Restart(t)
	answered(u.Hostname())

	named := laptop.tunnel("tls", port, "--host", "Shop")
	answered("shop.t.example.org")
	if said := laptop.refused(4, "tls", "8443", "--host", "shop"); !strings.Contains(said, "public host shop is the mapping") {
		t.Errorf("a name that is taken: %s", said)
	}
	named.end(t)
	tunnel.end(t)
	w.left(0)
}
