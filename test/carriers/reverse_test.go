package carriers

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// Agents reach a server at one port over every transport, or at the port for WebSocket.
func TestEveryTransport(t *testing.T) {
	p := newPlace(t, "--ws", "127.0.0.1:0")
	if p.server.WS == "" || p.server.WS == p.server.Agents {
		t.Fatalf("addresses.json has ws %q and agents %q", p.server.WS, p.server.Agents)
	}
	for name, args := range map[string][]string{
		"auto":                  {"--server", p.server.Agents},
		"quic":                  {"--server", p.server.Agents, "--transport", "quic"},
		"quic in the address":   {"--server", "quic://" + p.server.QUIC},
		"tls":                   {"--server", p.server.Agents, "--transport", "tls"},
		"wss":                   {"--server", p.server.Agents, "--transport", "wss"},
		"wss in the address":    {"--server", "wss://" + p.server.Agents, "--transport", "tls"},
		"ws":                    {"--server", "ws://" + p.server.WS},
		"ws at the common port": {"--server", "ws://" + p.server.Agents},
	} {
		t.Run(name, func(t *testing.T) {
			source, target := p.join(t, nil, append(args, "--pin", p.server.Pin)...)
			port := p.mapping(t)
			carries(t, port)
			var client struct{ Transport string }
			p.server.API.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/clients/%d", p.source.ID), nil, &client)
			if want := strings.Fields(name)[0]; client.Transport != want && (want != "auto" || client.Transport == "") {
				t.Errorf("the API says that the client came over %q, want %q", client.Transport, want)
			}
			for _, agent := range []*programs.Process{source, target} {
				if err := agent.Stop(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Behind nginx, which ends TLS and passes WebSockets on, an idle session outlasts the
// proxy's time-outs: each side sends something every 9 to 11 seconds, and nginx is told
// to give up after 12 where its default is 60.
func TestBehindNginx(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "--ws", "127.0.0.1:0")
	ca, cert, key := certificate(t)
	port := programs.FreePort(t)
	dir := t.TempDir()
	daemon(t, port, "nginx", "-e", dir+"/error.log", "-c", configure(t, fmt.Sprintf(`
daemon off;
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server {
    listen 127.0.0.1:%[2]d ssl http2;
    ssl_certificate %[3]s;
    ssl_certificate_key %[4]s;
    location /tunnox {
      proxy_pass http://%[5]s;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_read_timeout 12s;
      proxy_send_timeout 12s;
    }
  }
}`, dir, port, cert, key, p.server.WS)))
	idleBehind(t, p, "--server", wssTo(port), "--pin", p.server.Pin, "--ca", ca)
}

// Behind haproxy, which ends TLS and opens TLS anew to the common port.
func TestBehindHaproxy(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	ca, cert, _ := certificate(t)
	port := programs.FreePort(t)
	daemon(t, port, "haproxy", "-db", "-f", configure(t, fmt.Sprintf(`
defaults
  mode http
  timeout connect 5s
  timeout client 12s
  timeout server 12s
  timeout tunnel 12s
frontend front
  bind 127.0.0.1:%d ssl crt %s alpn h2,http/1.1
  default_backend tunnox
backend tunnox
  server one %s ssl verify none alpn http/1.1
`, port, cert, p.server.Agents)))
	idleBehind(t, p, "--server", wssTo(port), "--pin", p.server.Pin, "--ca", ca)
}

// idleBehind lets agents be idle for longer than the time-outs of what is before their
// server, with a stream that is idle too.
func idleBehind(t *testing.T, p *place, args ...string) {
	t.Helper()
	source, target := p.join(t, nil, args...)
	carries(t, p.mapping(t))
	echo := programs.Listen(t, programs.Echo)
	m := p.CreateMapping(t, programs.Mapping{UserID: p.user.ID, Protocol: "tcp", Source: p.source.ID, Target: p.target.ID,
		LocalPort: programs.FreePort(t), TargetHost: "127.0.0.1", TargetPort: echo.Port})
	idle := programs.Dial(t, m.LocalPort)
	time.Sleep(30 * time.Second) // what is tested is the passing of this time
	_ = idle.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := idle.Write([]byte("still there?")); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	for _, agent := range []*programs.Process{source, target} {
		if said := agent.Said(64 << 10); strings.Count(said, "msg=connected") != 1 || strings.Contains(said, "disconnected") {
			t.Errorf("%s did not keep its session:\n%s", agent.Name, said)
		}
	}
}

// The common port answers a probe or a browser like any web server, and the server's
// pin is what an agent believes, not the certificate of whoever stands before it.
func TestTheCommonPortSpeaksHTTP(t *testing.T) {
	p := newPlace(t)
	c, err := net.Dial("tcp", p.server.Agents)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", p.server.Agents); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusNotFound {
		t.Errorf("the answer is %s", answer.Status)
	}
	for _, transport := range []string{"tls", "wss", "auto"} {
		agent := p.start(t, p.source, nil, "--server", p.server.Agents, "--transport", transport, "--pin", "sha256:"+strings.Repeat("0", 64))
		agent.Says("the server is not the one that --pin", 20*time.Second)
	}
}
