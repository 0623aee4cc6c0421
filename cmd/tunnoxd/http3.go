package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"syscall"

	"github.com/tunnox-net/tunnox/ingress"
)

// errHTTP3InUse says that another program has the UDP port that HTTP/3 would have had if
// nothing was said.
var errHTTP3InUse = errors.New("the UDP port of --https is in use by another program")

// http3 gives the address for HTTP/3. Behind a proxy that announces visitors there is none
// unless somebody chose it: nobody announces visitors over UDP, so that all of them would
// have the proxy's address.
func (c *config) http3() string {
	if c.HTTP3 == "" && c.Heralds != "" {
		return quicOff
	}
	return c.HTTP3
}

// listenHTTP3 opens the socket for HTTP/3, if HTTP/3 is not off. Without an address the
// socket has the address of --https, which is open already.
func (ls *listeners) listenHTTP3(on binding) (net.PacketConn, error) {
	address := on.http3
	if ls.https == nil || address == quicOff {
		return nil, nil //nolint:nilnil // a role or a setting without HTTP/3
	}
	if address == "" {
		host, _, err := net.SplitHostPort(on.https)
		if err != nil {
			return nil, fmt.Errorf("--https %s: %w", on.https, err)
		}
		_, port, err := net.SplitHostPort(ls.https.Addr().String())
		if err != nil {
			return nil, fmt.Errorf("--https %s: %w", on.https, err)
		}
		address = net.JoinHostPort(host, port)
	}
	if ls.quic != nil && taken(address, ls.quic.LocalAddr()) {
		return nil, usageError{fmt.Errorf("visitors over HTTP/3 and agents over QUIC would have the same UDP port, %s: give another port with --http3 or --quic, or turn one of them off, for example --http3 off", address)}
	}
	network := "udp"
	if ipv4Only(address) {
		network = "udp4"
	}
	socket, err := new(net.ListenConfig).ListenPacket(context.Background(), network, address)
	if on.http3 == "" && errors.Is(err, syscall.EADDRINUSE) {
		ls.http3Fault = errHTTP3InUse
		return nil, nil //nolint:nilnil // nobody has asked for it
	}
	if err != nil {
		return nil, fmt.Errorf("--http3 %s, which may be off: %w", address, err)
	}
	return socket, nil
}

// taken reports whether a socket has an address: the same port at the same host, or at
// every host of this machine.
func taken(address string, by net.Addr) bool {
	host, port, err := net.SplitHostPort(address)
	other, otherPort, err2 := net.SplitHostPort(by.String())
	return err == nil && err2 == nil && port == otherPort && (host == "" || host == other || unspecified(host) || unspecified(other))
}

// altSvc gives what tells visitors of HTTP/3, "" when there is none.
func (p *process) altSvc() string {
	if p.sockets.http3 == nil {
		return ""
	}
	_, text, err := net.SplitHostPort(p.sockets.http3.LocalAddr().String())
	if u, parseErr := url.Parse(p.cfg.AdvertiseHTTP); parseErr == nil && u.Scheme == "https" && p.cfg.HTTP3 == "" { // another port leads here
		if text = u.Port(); text == "" {
			text = "443"
		}
	}
	port, convErr := strconv.Atoi(text)
	if errors.Join(err, convErr) != nil {
		return ""
	}
	return ingress.AltSvc(port)
}

// serveHTTP3 begins to serve visitors over HTTP/3.
func (p *process) serveHTTP3(server *ingress.Server, certificates *visitorCertificates) error {
	if p.sockets.http3Fault != nil {
		p.log.Warn("there is no HTTP/3 for visitors; --http3 ADDRESS chooses another port, --http3 off says that there should be none", "error", p.sockets.http3Fault)
	}
	if p.sockets.http3 == nil {
		return nil
	}
	if err := quietQUIC(); err != nil {
		return err
	}
	p.serveVisitors("public hosts over HTTP/3", func() error { return server.ServeHTTP3(p.sockets.http3, certificates.Certificate) })
	return nil
}

// quietQUIC keeps quic-go from writing a warning about the size of the socket's buffer to
// standard error, and not to our log.
func quietQUIC() error { return os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") }
