package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
)

// Schemes of WebSocket.
const (
	// SchemeWSS is WebSocket in TLS.
	SchemeWSS = "wss"
	// SchemeWS is WebSocket without TLS around it. The session has TLS inside of it.
	SchemeWS = "ws"
)

// DialWSS begins a session with the server at address, over WebSocket in TLS. The server
// may stand behind a reverse proxy, and the agent behind a proxy that breaks TLS. Then the
// session has TLS of its own inside of the WebSocket, and config verifies the server there.
func DialWSS(ctx context.Context, address string, config DialConfig) (Session, error) {
	return dialWebSocket(ctx, address, config, true)
}

// DialWS begins a session with the server at address, over WebSocket without TLS around
// it, for servers behind a reverse proxy. The session has TLS inside of the WebSocket.
func DialWS(ctx context.Context, address string, config DialConfig) (Session, error) {
	return dialWebSocket(ctx, address, config, false)
}

func dialWebSocket(ctx context.Context, address string, config DialConfig, outer bool) (Session, error) {
	inner, err := config.ClientTLS(address)
	if err != nil {
		return nil, err
	}
	raw, ctx, cancel, err := config.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	defer cancel()
	session, err := beginWebSocket(ctx, raw, inner, config, outer)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return session, nil
}

// beginWebSocket makes a session on a new connection. If it fails, the caller must close
// raw.
func beginWebSocket(ctx context.Context, raw net.Conn, inner *tls.Config, config DialConfig, outer bool) (Session, error) {
	conn, direct := raw, false
	var beneath *carrier
	if outer {
		around, who := config.aroundWebSocket(inner)
		over, under, err := shake(ctx, raw, func(c net.Conn) *tls.Conn { return tls.Client(c, around) })
		if err != nil {
			return nil, err
		}
		conn, beneath, direct = over, under, who.isServer
	}
	ws, direct, err := askWebSocket(ctx, conn, hostOf(inner.ServerName), direct)
	if err != nil {
		return nil, err
	}
	if direct {
		return sessionOver(ws, beneath, conn.(*tls.Conn), true, config.Session)
	}
	session, err := beginTLS(ctx, ws, func(c net.Conn) *tls.Conn { return tls.Client(c, inner) }, true, config.Session)
	if err != nil {
		return nil, fmt.Errorf("inside of the websocket: %w", err)
	}
	return session, nil
}

// hostOf writes a name as the Host of a request.
func hostOf(name string) string {
	if ip := net.ParseIP(name); ip != nil && ip.To4() == nil {
		return "[" + name + "]"
	}
	return name
}

// endOfTLS says who answered the handshake around the WebSocket.
type endOfTLS struct{ isServer bool } // it is who config verifies, as far as the certificate tells

// aroundWebSocket is how TLS around the WebSocket is verified. With pins, the end may also
// be somebody for whom the roots vouch, such as a reverse proxy; the pins then hold
// inside.
func (c DialConfig) aroundWebSocket(inner *tls.Config) (*tls.Config, *endOfTLS) {
	around, end := inner.Clone(), &endOfTLS{isServer: true}
	around.NextProtos = []string{httpProtocol}
	around.MinVersion = tls.VersionTLS12 // of a proxy, which cannot read what is inside
	if len(c.Pins) == 0 {
		around.VerifyConnection = func(state tls.ConnectionState) error {
			end.isServer = state.Version >= tls.VersionTLS13
			return nil
		}
		return around, end
	}
	around.VerifyConnection = func(state tls.ConnectionState) error {
		pinned := verifyPins(state, inner.ServerName, c.Pins)
		if pinned == nil && state.Version >= tls.VersionTLS13 {
			return nil
		}
		end.isServer = false
		if err := verifyFront(state, inner.ServerName, c.Front); err != nil {
			return fmt.Errorf("%w, and it is no proxy that the roots vouch for: %w", cmpErr(pinned), err)
		}
		return nil
	}
	return around, end
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("transport: the pinned server speaks TLS 1.2")
	}
	return err
}

// verifyFront verifies a chain by roots; nil are the system's.
func verifyFront(state tls.ConnectionState, name string, roots *x509.CertPool) error {
	chain := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		chain.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: chain})
	return err
}
