package carriers

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

const (
	proxyUser     = "ann"
	proxyPassword = "s3cret:of%ann"
)

// away is the name of a server that only the proxy can reach: nobody else resolves it.
const away = "server.tunnox.invalid"

// company is a proxy of the test's own, HTTP and SOCKS5 on one port. It takes one name for
// the server, and counts.
type company struct {
	address string
	server  string // where away is
	auth    bool

	mu      sync.Mutex
	opened  map[string]int // guarded by mu: connections by kind and name
	refused int            // guarded by mu: requests with no password, or a wrong one
}

func newCompany(t *testing.T, server string, auth bool) *company {
	t.Helper()
	p := &company{server: server, auth: auth, opened: map[string]int{}}
	p.address = programs.Listen(t, p.serve).String()
	return p
}

func (p *company) count(kind, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened[kind+" "+name]++
}

func (p *company) serve(c *net.TCPConn) {
	r := bufio.NewReader(c)
	first, err := r.Peek(1)
	if err != nil {
		return
	}
	if first[0] == 5 {
		p.serveSOCKS(c, r)
		return
	}
	request, err := http.ReadRequest(r)
	if err != nil || request.Method != http.MethodConnect {
		_, _ = io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\n\r\n")
		return
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(proxyUser+":"+proxyPassword))
	if p.auth && request.Header.Get("Proxy-Authorization") != want {
		p.mu.Lock()
		p.refused++
		p.mu.Unlock()
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"company\"\r\nContent-Length: 0\r\n\r\n")
		return
	}
	p.relay(c, r, "connect", request.Host, func() { _, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n") })
}

func (p *company) serveSOCKS(c *net.TCPConn, r *bufio.Reader) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return
	}
	if _, err := r.Discard(int(head[1])); err != nil {
		return
	}
	if p.auth {
		_, _ = c.Write([]byte{5, 2})
		user, password := make([]byte, 255), make([]byte, 255)
		if _, err := io.ReadFull(r, head); err != nil {
			return
		}
		user = user[:head[1]]
		_, _ = io.ReadFull(r, user)
		n, err := r.ReadByte()
		if err != nil {
			return
		}
		password = password[:n]
		_, _ = io.ReadFull(r, password)
		if string(user) != proxyUser || string(password) != proxyPassword {
			_, _ = c.Write([]byte{1, 1})
			return
		}
		_, _ = c.Write([]byte{1, 0})
	} else {
		_, _ = c.Write([]byte{5, 0})
	}
	request := make([]byte, 5)
	if _, err := io.ReadFull(r, request); err != nil || request[3] != 3 { // a name
		return
	}
	name := make([]byte, int(request[4])+2)
	if _, err := io.ReadFull(r, name); err != nil {
		return
	}
	host := fmt.Sprintf("%s:%d", name[:request[4]], binary.BigEndian.Uint16(name[request[4]:]))
	p.relay(c, r, "socks", host, func() { _, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}) })
}

func (p *company) relay(c *net.TCPConn, r io.Reader, kind, host string, opened func()) {
	name, _, _ := net.SplitHostPort(host)
	if name != away {
		return
	}
	back, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer back.Close()
	p.count(kind, host)
	opened()
	go func() { _, _ = io.Copy(back, r); _ = back.(*net.TCPConn).CloseWrite() }()
	_, _ = io.Copy(c, back)
}

// Everything goes through the proxy that the environment names, whatever the case of the
// variable, and nothing else is dialled: nobody but the proxy knows the server's name.
func TestThroughAProxy(t *testing.T) {
	p := newPlace(t)
	port := strings.TrimPrefix(p.server.Agents, "127.0.0.1:")
	userinfo := proxyUser + ":" + strings.ReplaceAll(strings.ReplaceAll(proxyPassword, "%", "%25"), ":", "%3A") + "@"
	for name, c := range map[string]struct {
		variable, scheme, kind string
		auth                   bool
	}{
		"HTTPS_PROXY":              {"HTTPS_PROXY", "http://", "connect", false},
		"https_proxy":              {"https_proxy", "http://", "connect", false},
		"a proxy without a scheme": {"HTTPS_PROXY", "", "connect", false},
		"ALL_PROXY":                {"ALL_PROXY", "http://", "connect", false},
		"ALL_PROXY over SOCKS5":    {"ALL_PROXY", "socks5://", "socks", false},
		"all_proxy, socks5h":       {"all_proxy", "socks5h://", "socks", false},
		"a password":               {"HTTPS_PROXY", "http://", "connect", true},
		"a password for SOCKS5":    {"ALL_PROXY", "socks5://", "socks", true},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := newCompany(t, p.server.Agents, c.auth)
			through := c.scheme + proxy.address
			if c.auth {
				through = c.scheme + userinfo + proxy.address
			}
			env := []string{c.variable + "=" + through}
			source, target := p.join(t, env, "--server", away+":"+port, "--pin", p.server.Pin)
			carries(t, p.mapping(t))
			proxy.mu.Lock()
			if n := proxy.opened[c.kind+" "+away+":"+port]; n < 2 || len(proxy.opened) != 1 {
				t.Errorf("the proxy opened %v", proxy.opened)
			}
			proxy.mu.Unlock()
			for _, agent := range []*programs.Process{source, target} {
				if strings.Contains(agent.Said(1<<20), "s3cret") {
					t.Error("the log has the proxy's password")
				}
				if err := agent.Stop(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A proxy that wants a password says so, and the agent says it within seconds, with what
// to do about it and without the password.
func TestAProxyThatWantsAPassword(t *testing.T) {
	p := newPlace(t)
	proxy := newCompany(t, p.server.Agents, true)
	for env, want := range map[string]string{
		"HTTPS_PROXY=http://" + proxy.address:           `it wants a name and password \(407 Proxy Authentication Required\)`,
		"HTTPS_PROXY=http://ann:wr0ng@" + proxy.address: `it does not accept the name and password in HTTPS_PROXY \(407`,
		"ALL_PROXY=socks5://ann:wr0ng@" + proxy.address: `username/password authentication failed`,
		"HTTPS_PROXY=http://ann:wr0ng@127.0.0.1:1":      `dial proxy: `,
	} {
		agent := p.start(t, p.source, []string{env}, "--server", away+":8080", "--pin", p.server.Pin)
		start := time.Now()
		agent.Says(want, 5*time.Second)
		t.Logf("said after %v", time.Since(start).Round(time.Millisecond))
		if said := agent.Said(1 << 20); strings.Contains(said, "wr0ng") {
			t.Errorf("the log has the password:\n%s", said)
		}
		agent.Kill()
	}
	broken := p.start(t, p.source, []string{"HTTPS_PROXY=ftp://ann:wr0ng@proxy.invalid"}, "--server", away+":8080", "--pin", p.server.Pin)
	if code := broken.Fails(20 * time.Second); code != 2 {
		t.Errorf("a proxy of a kind that there is not: exit code %d", code)
	}
	if said := broken.Said(1 << 20); !strings.Contains(said, "HTTPS_PROXY: want http://") || strings.Contains(said, "wr0ng") {
		t.Errorf("said: %s", said)
	}
}

// NO_PROXY names servers that are reached without the proxy, in either case.
func TestNoProxy(t *testing.T) {
	host := outward(t)
	s := newPlace(t, "--listen", host+":0")
	proxy := newCompany(t, s.server.Agents, false)
	for _, variable := range []string{"NO_PROXY", "no_proxy"} {
		agent := s.start(t, s.source, []string{"HTTPS_PROXY=http://" + proxy.address, variable + "=example.org," + host}, "--server", s.server.Agents, "--pin", s.server.Pin)
		s.WaitOnline(t, s.source.ID)
		if err := agent.Stop(); err != nil {
			t.Error(err)
		}
	}
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	if len(proxy.opened) != 0 {
		t.Errorf("the proxy opened %v", proxy.opened)
	}
}

// Debian's tinyproxy, with a password.
func TestThroughTinyproxy(t *testing.T) {
	host := outward(t)
	p := newPlace(t, "--listen", host+":0")
	port := programs.FreePort(t)
	_, agents, err := net.SplitHostPort(p.server.Agents)
	if err != nil {
		t.Fatal(err)
	}
	daemon(t, port, "tinyproxy", "-d", "-c", configure(t, fmt.Sprintf(`
Port %d
Listen 127.0.0.1
Timeout 600
MaxClients 20
BasicAuth ann s3cret
ConnectPort %s
`, port, agents)))
	refused := p.start(t, p.source, []string{fmt.Sprintf("HTTPS_PROXY=http://127.0.0.1:%d", port)}, "--server", p.server.Agents, "--pin", p.server.Pin)
	refused.Says(`\(407 `, 5*time.Second)
	refused.Kill()
	env := []string{fmt.Sprintf("HTTPS_PROXY=http://ann:s3cret@127.0.0.1:%d", port)}
	for _, transport := range []string{"tls", "wss"} {
		source, target := p.join(t, env, "--server", p.server.Agents, "--pin", p.server.Pin, "--transport", transport)
		carries(t, p.mapping(t))
		for _, agent := range []*programs.Process{source, target} {
			if err := agent.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
}

// outward is an address of this machine that is not loopback: those are never reached
// through a proxy, by convention.
func outward(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Fatal("this machine has no address beyond loopback")
	return ""
}
