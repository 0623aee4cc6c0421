package reach

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

// DialFunc opens a connection.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Proxies opens connections through the proxy that the environment names.
type Proxies struct {
	find   func(*url.URL) (*url.URL, error)
	direct DialFunc
	roots  *x509.CertPool
}

// ProxiesFrom reads HTTPS_PROXY, ALL_PROXY and NO_PROXY, in capitals or not, as curl does.
// A proxy is http://, https:// or socks5://HOST:PORT, with USER:PASSWORD@ before the host
// if it wants that. As everywhere, addresses of this machine itself need no proxy. direct
// opens connections without a proxy and to it; roots verify an https proxy, nil are the
// system's.
func ProxiesFrom(variable func(string) string, direct DialFunc, roots *x509.CertPool) (*Proxies, error) {
	first := func(names ...string) (name, value string) {
		for _, name := range names {
			if value := variable(name); value != "" {
				return name, value
			}
		}
		return "", ""
	}
	name, through := first("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
	if through != "" {
		if !strings.Contains(through, "://") {
			through = "http://" + through
		}
		// Package httpproxy takes what it cannot read for no proxy at all.
		if u, err := url.Parse(through); err != nil || u.Hostname() == "" || portOf(u) == "" {
			return nil, fmt.Errorf("%s: want http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT", name) // the value may hold a password
		}
	}
	_, without := first("NO_PROXY", "no_proxy")
	c := httpproxy.Config{HTTPSProxy: through, NoProxy: without}
	return &Proxies{find: c.ProxyFunc(), direct: direct, roots: roots}, nil
}

// portOf is the port of a proxy, "" for one of a kind that there is not.
func portOf(u *url.URL) string {
	usual := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	if usual != "" && u.Port() != "" {
		return u.Port()
	}
	return usual
}

// For is the proxy for an address, host:port; nil for none.
func (p *Proxies) For(address string) (*url.URL, error) {
	return p.find(&url.URL{Scheme: "https", Host: address})
}

// Dial opens a TCP connection to an address, through the proxy for it if there is one. The
// proxy resolves the name.
func (p *Proxies) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	through, err := p.For(address)
	if err != nil {
		return nil, fmt.Errorf("find the proxy for %s: %w", address, err)
	}
	if through == nil {
		return p.direct(ctx, network, address)
	}
	at := net.JoinHostPort(through.Hostname(), portOf(through))
	conn, err := p.direct(ctx, "tcp", at)
	if err != nil {
		return nil, fmt.Errorf("dial proxy: %w", err)
	}
	// What follows does not know ctx.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	opened, err := p.ask(ctx, conn, through, at, address)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("proxy %s: %w", at, err)
	}
	return opened, nil
}

// ask asks the proxy at the other end of conn for a connection to address.
func (p *Proxies) ask(ctx context.Context, conn net.Conn, through *url.URL, at, address string) (net.Conn, error) {
	switch through.Scheme {
	case "socks5", "socks5h":
		return conn, askSOCKS(ctx, conn, through, address)
	case "https":
		over := tls.Client(conn, &tls.Config{ServerName: through.Hostname(), RootCAs: p.roots, MinVersion: tls.VersionTLS12})
		if err := over.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = over
	}
	return connect(conn, through, at, address)
}

// askSOCKS asks a SOCKS5 proxy (RFC 1928, RFC 1929).
func askSOCKS(ctx context.Context, conn net.Conn, through *url.URL, address string) error {
	var auth *proxy.Auth
	if through.User != nil {
		password, _ := through.User.Password()
		auth = &proxy.Auth{User: through.User.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", "", auth, nil)
	if err != nil {
		return err
	}
	over, ok := d.(interface {
		DialWithConn(ctx context.Context, c net.Conn, network, address string) (net.Addr, error)
	})
	if !ok {
		return errors.New("SOCKS5 needs a connection of its own") // the library has changed
	}
	_, err = over.DialWithConn(ctx, conn, "tcp", address)
	return err
}

// RefusedError is the answer of a proxy that opened no connection.
type RefusedError struct {
	Status   string
	Code     int
	Password bool // a name and a password were given
}

// Error says what to do about a missing or wrong password. It shows neither.
func (e *RefusedError) Error() string {
	switch {
	case e.Code == http.StatusProxyAuthRequired && e.Password:
		return fmt.Sprintf("it does not accept the name and password in HTTPS_PROXY (%s)", e.Status)
	case e.Code == http.StatusProxyAuthRequired:
		return fmt.Sprintf("it wants a name and password (%s): give them in HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT", e.Status)
	}
	return fmt.Sprintf("it opens no connection to the server (%s)", e.Status)
}

// answerMost is how many bytes a proxy's answer may have.
const answerMost = 16 << 10

// connect asks an HTTP proxy (RFC 9110, section 9.3.6).
func connect(conn net.Conn, through *url.URL, at, address string) (net.Conn, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tunnox\r\n", address, address)
	if through.User != nil {
		password, _ := through.User.Password()
		fmt.Fprintf(&b, "Proxy-Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(through.User.Username()+":"+password)))
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return nil, err
	}
	r := bufio.NewReader(io.LimitReader(conn, answerMost))
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // what follows is the connection
	if err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, &RefusedError{Status: answer.Status, Code: answer.StatusCode, Password: through.User != nil}
	}
	if r.Buffered() > 0 { // an agent speaks first, so nobody but the proxy can have sent this
		return nil, fmt.Errorf("%s sent more than its answer", at)
	}
	return conn, nil
}
