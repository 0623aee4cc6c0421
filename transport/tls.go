package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

// protocolName is what both ends name in the TLS handshake (ALPN).
const protocolName = "tunnox/1"

// exporterLabel asks TLS for its channel binding (RFC 9266).
const exporterLabel = "EXPORTER-Channel-Binding"

// DialConfig says how to reach a server and how to know that it is the right
// one. The zero value verifies with the system's roots.
type DialConfig struct {
	// ServerName is verified and sent; the host of the address when empty.
	ServerName string
	// Roots replaces the system's roots. Not together with Pins.
	Roots *x509.CertPool
	// Pins replaces roots, names and dates: the server's key, or that of an
	// authority that signed for its name, must be one of them.
	Pins []Pin
	// Dial opens the connection; a net.Dialer when nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Session tunes the session.
	Session SessionConfig
}

// DialTLS begins a session with the server at address, over TLS 1.3 on TCP.
func DialTLS(ctx context.Context, address string, config DialConfig) (Session, error) {
	client, err := config.clientTLS(address)
	if err != nil {
		return nil, err
	}
	dial := config.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialLimit+handshakeLimit)
		defer cancel()
	}
	dialling, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	raw, err := dial(dialling, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dial server: %w", err)
	}
	session, err := beginTLS(ctx, raw, func(c net.Conn) *tls.Conn { return tls.Client(c, client) }, true, config.Session)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return session, nil
}

func (c DialConfig) clientTLS(address string) (*tls.Config, error) {
	name := c.ServerName
	if name == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("server address: %w", err)
		}
		name = host
	}
	client := &tls.Config{
		ServerName: name,
		RootCAs:    c.Roots,
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocolName},
		// Records of full size from the first byte: tunnels are throughput, and
		// 64-byte messages are short records anyway.
		DynamicRecordSizingDisabled: true,
	}
	if len(c.Pins) > 0 {
		if c.Roots != nil {
			return nil, errors.New("verify the server by pins or by roots, not both")
		}
		// Not skipped but replaced: verifyPins decides, on every handshake.
		client.InsecureSkipVerify = true
		client.VerifyConnection = func(state tls.ConnectionState) error { return verifyPins(state, name, c.Pins) }
	}
	return client, nil
}

const (
	// dialLimit is how long a connection may take to be there: a server that is busy
	// has its system take it, and only then does it wait in line.
	dialLimit = 10 * time.Second
	// handshakeLimit is how long a handshake may take when ctx sets no limit.
	handshakeLimit = 10 * time.Second
)

// beginTLS makes the handshake on a fresh connection, until ctx ends, and puts the
// multiplexer on it. The caller closes raw when it fails.
func beginTLS(ctx context.Context, raw net.Conn, wrap func(net.Conn) *tls.Conn, client bool, config SessionConfig) (Session, error) {
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true) // Go's default; a tunnel depends on it
	}
	beneath := newCarrier(raw)
	conn := wrap(beneath)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls handshake: %w", err)
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != protocolName {
		return nil, fmt.Errorf("tls handshake: the peer does not speak %s", protocolName)
	}
	binding, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("tls channel binding: %w", err)
	}
	config.beneath = beneath
	return newMux(conn, client, binding, config), nil
}

// ListenConfig says how a TLSListener treats strangers, which every peer is
// until Admit. The zero value of each field but the certificate is its default.
type ListenConfig struct {
	// Certificate proves the server's identity. Required, or GetCertificate.
	Certificate tls.Certificate
	// GetCertificate replaces Certificate: it is asked at every handshake, so that a
	// renewed certificate is presented from then on. Sessions that are there do not
	// notice.
	GetCertificate func() (*tls.Certificate, error)
	// FirstByte is how long a connection may stay silent. Default 5 s.
	FirstByte time.Duration
	// Handshake bounds the TLS handshake from the first moment, without the time for
	// which a peer that has said hello waits for this side. Default 10 s.
	Handshake time.Duration
	// Authenticate bounds the time to Admit likewise. Default 15 s.
	Authenticate time.Duration
	// MaxStrangers bounds strangers, and MaxPerAddress those of one address. When
	// one more comes the oldest that is silent goes, and if all are speaking the
	// one that came waits for its turn, with which the times above begin. Defaults
	// 2048, or a quarter of the descriptors, and 256.
	MaxStrangers, MaxPerAddress int
	// MaxWaiting bounds those who wait, and half of it those of one address. Each
	// takes a descriptor and nothing else. Default 16,384, or half of the descriptors.
	MaxWaiting int
	// Wait is how long one of them waits at most: longer than agents do, because who
	// is sent away comes again and begins at the end. The same bounds the wait of who
	// has said hello. Default 75 s.
	Wait time.Duration
	// Session tunes the sessions.
	Session SessionConfig

	// hearing is how long a stranger may take to say something before it counts as
	// silent, and can be pushed out; a hundredth of it where more of its address wait
	// than are served. The first message of an agent is right behind the connection,
	// unless its machine, or this one, has many thousand things to do. Default 1 s.
	hearing time.Duration
}

func (c ListenConfig) withDefaults() ListenConfig {
	c.FirstByte = cmp.Or(c.FirstByte, 5*time.Second)
	c.Handshake = cmp.Or(c.Handshake, handshakeLimit)
	c.Authenticate = cmp.Or(c.Authenticate, 15*time.Second)
	strangers, waiting := roomFor(descriptors())
	c.MaxStrangers = cmp.Or(c.MaxStrangers, strangers)
	c.MaxPerAddress = cmp.Or(c.MaxPerAddress, 256)
	c.MaxWaiting = cmp.Or(c.MaxWaiting, waiting)
	c.Wait = cmp.Or(c.Wait, 75*time.Second)
	c.hearing = cmp.Or(c.hearing, time.Second)
	c.Session = c.Session.withDefaults()
	return c
}

// roomFor gives the defaults of MaxStrangers and MaxWaiting. They leave a quarter of
// the descriptors, when those are few, to everything else there is: who waits needs
// no more than to connect.
func roomFor(descriptors int) (strangers, waiting int) {
	strangers, waiting = 2048, 16384
	if descriptors > 0 {
		strangers, waiting = min(strangers, descriptors/4), min(waiting, descriptors/2)
	}
	return strangers, waiting
}

func (c ListenConfig) serverTLS() *tls.Config {
	certificate := c.GetCertificate
	if certificate == nil {
		certificate = func() (*tls.Certificate, error) { return &c.Certificate, nil }
	}
	return &tls.Config{
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{protocolName},
		DynamicRecordSizingDisabled: true,
		// A ticket is a kilobyte of writes for a resumption nobody makes: an agent
		// keeps its session for days.
		SessionTicketsDisabled: true,
	}
}
