package certificates

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { programs.Main(m) }

const baseDomain = "t.example.org"

// limit bounds what a test waits for; it decides nothing.
const limit = 60 * time.Second

// visited is an address of --https, and who trusts what is shown there.
type visited struct {
	address string
	roots   *x509.CertPool
}

// certificate makes a handshake for a host.
func (v visited) certificate(host string) (*x509.Certificate, error) {
	dialer := &net.Dialer{Timeout: limit}
	conn, err := tls.DialWithDialer(dialer, "tcp", v.address, &tls.Config{RootCAs: v.roots, ServerName: host})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// shows waits until a host has a certificate.
func (v visited) shows(t testing.TB, host string) *x509.Certificate {
	t.Helper()
	var shown *x509.Certificate
	programs.Eventually(t, limit, func() (err error) {
		shown, err = v.certificate(host)
		return err
	})
	return shown
}

// refuses makes a handshake that must be refused because of the name.
func (v visited) refuses(t testing.TB, host string) {
	t.Helper()
	if _, err := v.certificate(host); err == nil || !strings.HasSuffix(err.Error(), "tls: unrecognized name") {
		t.Errorf("%s is answered with %v, want the alert unrecognized name", host, err)
	}
}

// get asks for a page.
func (v visited) get(host, path string) (status int, body string, err error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: v.roots}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", v.address)
		}}
	client := &http.Client{Transport: transport, Timeout: limit}
	res, err := client.Get("https://" + host + path)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// web is a service.
func web(t testing.TB) int {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, in *http.Request) { fmt.Fprintf(rw, "hello %s", in.Host) }))
	t.Cleanup(s.Close)
	_, text, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// publisher makes mappings of a user whose agent is connected.
type publisher struct {
	api    *programs.API
	user   programs.User
	target programs.Client
	port   int
}

// publishing makes a user and connects an agent.
func publishing(t testing.TB, api *programs.API, exit *programs.Server) publisher {
	t.Helper()
	p := publisher{api: api, user: api.CreateUser(t, "ann"), port: web(t)}
	p.target = api.CreateClient(t, p.user.ID, "target")
	exit.Join(t, api, p.target)
	return p
}

// publish makes a mapping of a host, as soon as a forwarder has announced that it
// serves hosts, and gives its id.
func (p publisher) publish(t testing.TB, host string, more ...string) int64 {
	t.Helper()
	body := map[string]any{"user_id": p.user.ID, "target_client_id": p.target.ID, "protocol": "http", "target_host": "127.0.0.1",
		"target_port": p.port, "public_host": host}
	for i := 0; i+1 < len(more); i += 2 {
		body[more[i]] = more[i+1]
	}
	var made struct {
		ID int64 `json:"mapping_id"`
	}
	programs.Eventually(t, limit, func() error {
		answer, err := p.api.Call(http.MethodPost, "/api/v1/mappings", body)
		if err == nil && answer.Status != http.StatusCreated {
			err = fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		if err == nil {
			answer.Read(t, &made)
		}
		return err
	})
	return made.ID
}

// kinds of challenges, and the authority that uses each of them alone.
var kinds = map[string]func(http, https int, dns string) services.PebbleOptions{
	"HTTP-01": func(http, _ int, dns string) services.PebbleOptions {
		return services.PebbleOptions{HTTPPort: http, DNS: dns}
	},
	"TLS-ALPN-01": func(_, https int, dns string) services.PebbleOptions {
		return services.PebbleOptions{TLSPort: https, DNS: dns}
	},
}

// metric gives a value of a process, 0 for one that is not there.
func metric(t testing.TB, s *programs.Server, name string) float64 {
	t.Helper()
	res, err := http.Get("http://" + s.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return 0
}
