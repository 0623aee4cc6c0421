package bridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/credentials"

	"github.com/tunnox-net/tunnox/transport"
)

// maxRecord is the most that crypto/tls writes at a time.
const maxRecord = 16 << 10

// link is a TLS connection between two nodes.
type link struct {
	*tls.Conn
	raw      transport.Records // below the TLS connection
	peer     Identity
	received atomic.Uint64 // bytes; they tell a busy connection from a dead one
	closed   atomic.Bool   // set before the streams learn that the connection is lost
	down     sync.Once
	onClose  func()
}

func newLink(conn *tls.Conn, raw transport.Records) (*link, error) {
	state := conn.ConnectionState()
	if len(state.PeerCertificates) == 0 {
		return nil, fmt.Errorf("%w: the peer sent no certificate", ErrIdentity)
	}
	peer, err := identityOf(state.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	return &link{Conn: conn, raw: raw, peer: peer}, nil
}

// Read gives all received records for which b has space. gRPC wakes a stream with the
// first piece of a frame; the stream should not have to wait then until the other
// pieces are decrypted.
func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	for err == nil && n < len(b) && l.raw.Whole() {
		var more int
		more, err = l.Conn.Read(b[n:])
		n += more
	}
	l.received.Add(uint64(n))
	return n, err
}

// Write is called by one goroutine at a time.
func (l *link) Write(b []byte) (int, error) {
	if len(b) <= maxRecord {
		return l.Conn.Write(b)
	}
	l.raw.Gather()
	n, err := l.Conn.Write(b)
	if failed := l.raw.Flush(); err == nil {
		err = failed
	}
	return n, err
}

// cut closes the connection without a TLS goodbye, because the goodbye could block.
func (l *link) cut() {
	l.closed.Store(true)
	_ = l.raw.Conn.Close()
}

func (l *link) Close() error {
	l.closed.Store(true)
	l.down.Do(func() {
		if l.onClose != nil {
			l.onClose()
		}
	})
	return l.Conn.Close()
}

// linkInfo is what gRPC knows of a link, for the RPCs on it.
type linkInfo struct {
	credentials.CommonAuthInfo
	link *link
}

// AuthType names the protocol.
func (linkInfo) AuthType() string { return "tls" }

// handshake turns connections into links, for gRPC.
type handshake struct {
	client func(ctx context.Context, raw net.Conn) (*link, error)
	server func(raw net.Conn) (*link, error)
}

var errOneSided = errors.New("bridge: these credentials do not serve this side of a connection")

func (h handshake) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if h.client == nil {
		return nil, nil, errOneSided
	}
	l, err := h.client(ctx, raw)
	return linked(l, err)
}

func (h handshake) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if h.server == nil {
		return nil, nil, errOneSided
	}
	l, err := h.server(raw)
	return linked(l, err)
}

func linked(l *link, err error) (net.Conn, credentials.AuthInfo, error) {
	if err != nil {
		return nil, nil, err
	}
	return l, linkInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, l}, nil
}

// Info tells gRPC that headers may be sent on the connection.
func (handshake) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (h handshake) Clone() credentials.TransportCredentials { return h }

// OverrideServerName does nothing: a node is known by its id.
func (handshake) OverrideServerName(string) error { return nil }
