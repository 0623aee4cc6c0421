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

// protocolName is the name that both ends offer in the TLS handshake (ALPN).
const protocolName = "tunnox/1"

// exporterLabel asks TLS for its channel binding (RFC 9266).
const exporterLabel = "EXPORTER-Channel-Binding"

// DialConfig says how to reach a server and how to verify it. The zero value verifies
// with the system's roots.
type DialConfig struct {
	// ServerName is sent to the server and verified. Empty means the host of the
	// address.
	ServerName string
	// Roots replaces the system's roots. It cannot be combined with Pins.
	Roots *x509.CertPool
	// Pins replaces the checks of roots, names and dates. The server's key must be one
	// of the pins, or the key of an authority that signed a certificate for its name.
	Pins []Pin
	// Front verifies who ends TLS before the server, where that is not the server itself:
	// a reverse proxy, or a proxy that breaks TLS. Over WebSocket only, and with Pins,
	// which then hold inside of the WebSocket. Nil means the system's roots.
	Front *x509.CertPool
	// Dial opens the connection. Nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Session tunes the session.
	Session SessionConfig
}

// DialTLS begins a session with the server at address, over TLS 1.3 on TCP.
func DialTLS(ctx context.Context, address string, config DialConfig) (Session, error) {
	client, err := config.ClientTLS(address)
	if err != nil {
		return nil, err
	}
	raw, ctx, cancel, err := config.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	defer cancel()
	session, err := beginTLS(ctx, raw, func(c net.Conn) *tls.Conn { return tls.Client(c, client) }, true, config.Session)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	if m, ok := session.(*muxSession); ok && lanesHere {
		m.dialLane = func(ctx context.Context) (*LaneCall, error) { return dialLane(ctx, address, config, client) }
	}
	return session, nil
}

// dial opens the connection. The context that it returns bounds the handshakes.
func (c DialConfig) dial(ctx context.Context, address string) (net.Conn, context.Context, context.CancelFunc, error) {
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	cancel := context.CancelFunc(func() {})
	if _, limited := ctx.Deadline(); !limited {
		ctx, cancel = context.WithTimeout(ctx, dialLimit+handshakeLimit)
	}
	dialling, dialled := context.WithTimeout(ctx, dialLimit)
	defer dialled()
	raw, err := dial(dialling, "tcp", address)
	if err != nil {
		cancel()
		return nil, nil, nil, fmt.Errorf("dial server: %w", err)
	}
	return raw, ctx, cancel, nil
}

// ClientTLS is how a carrier that begins with TLS verifies the server at address.
func (c DialConfig) ClientTLS(address string) (*tls.Config, error) {
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
		// Records have their full size from the first byte: a tunnel needs throughput,
		// and a message of 64 bytes is a short record anyway.
		DynamicRecordSizingDisabled: true,
	}
	if len(c.Pins) > 0 {
		if c.Roots != nil {
			return nil, errors.New("verify the server by pins or by roots, not both")
		}
		// Verification is replaced, not skipped: verifyPins decides at every handshake.
		client.InsecureSkipVerify = true
		client.VerifyConnection = func(state tls.ConnectionState) error { return verifyPins(state, name, c.Pins) }
	}
	return client, nil
}

const (
	// dialLimit is how long the TCP connection may take. A busy server does not make it
	// longer: the server's system accepts the connection, which waits only after that.
	dialLimit = 10 * time.Second
	// handshakeLimit is how long a handshake may take when ctx sets no limit.
	handshakeLimit = 10 * time.Second
)

// beginTLS makes the handshake on a new connection, until ctx ends, and puts the
// multiplexer on it. If beginTLS fails, the caller must close raw.
func beginTLS(ctx context.Context, raw net.Conn, wrap func(net.Conn) *tls.Conn, client bool, config SessionConfig) (Session, error) {
	conn, beneath, err := shake(ctx, raw, wrap)
	if err != nil {
		return nil, err
	}
	if conn.ConnectionState().NegotiatedProtocol != protocolName {
		return nil, fmt.Errorf("tls handshake: the peer does not speak %s", protocolName)
	}
	return sessionOver(conn, beneath, conn, client, config)
}

// shake makes the handshake on a new connection, until ctx ends.
func shake(ctx context.Context, raw net.Conn, wrap func(net.Conn) *tls.Conn) (*tls.Conn, *carrier, error) {
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true) // Go's default; a tunnel depends on it
	}
	beneath := newCarrier(raw)
	conn := wrap(beneath)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, fmt.Errorf("tls handshake: %w", err)
	}
	return conn, beneath, nil
}

// BindingOf is the binding of a session in this TLS connection.
func BindingOf(state tls.ConnectionState) ([]byte, error) {
	binding, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("tls channel binding: %w", err)
	}
	return binding, nil
}

// sessionOver puts the multiplexer on conn, which is over or is carried by it.
func sessionOver(conn net.Conn, beneath *carrier, over *tls.Conn, client bool, config SessionConfig) (Session, error) {
	binding, err := BindingOf(over.ConnectionState())
	if err != nil {
		return nil, err
	}
	config.beneath = beneath
	return newMux(conn, client, binding, config), nil
}

// ListenConfig says how a TLSListener treats strangers. Every peer is a stranger until
// Admit. The zero value of each field means its default, except for the certificate.
type ListenConfig struct {
	// Certificate proves the server's identity. Certificate or GetCertificate is
	// required.
	Certificate tls.Certificate
	// GetCertificate replaces Certificate. It is called at every handshake, so that new
	// sessions get a renewed certificate. Live sessions do not notice.
	GetCertificate func() (*tls.Certificate, error)
	// FirstByte is how long a connection may stay silent. Default 5 s.
	FirstByte time.Duration
	// Handshake bounds the TLS handshake, from the first moment. The time that a peer
	// waits for this side after its hello does not count. Default 10 s.
	Handshake time.Duration
	// Authenticate bounds the time to Admit, counted in the same way. Default 15 s.
	Authenticate time.Duration
	// MaxStrangers bounds all strangers, and MaxPerAddress the strangers of one
	// address. When one more stranger comes, the listener closes the oldest silent one.
	// If none is silent, the new stranger waits for its turn; the times above then begin
	// with the turn. Defaults: 2048 or a quarter of the descriptors, and 256.
	MaxStrangers, MaxPerAddress int
	// MaxWaiting bounds the connections that wait for their turn. One address may have
	// half of them. Each costs a descriptor and nothing else. Default 16,384, or half
	// of the descriptors.
	MaxWaiting int
	// Wait is the longest wait for a turn. It is longer than agents wait, because a
	// connection that is closed comes again and goes to the end of its line. Wait also
	// bounds the wait of a peer after its hello. Default 75 s.
	Wait time.Duration
	// Session tunes the sessions.
	Session SessionConfig

	// hearing is how long a stranger may say nothing before it counts as silent and may
	// be closed for another. If more connections of its address wait than are served,
	// the time is a hundredth of that. The first message of an agent comes right after
	// the connection, unless the agent's machine or this one is very busy. Default 1 s.
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

// roomFor returns the defaults of MaxStrangers and MaxWaiting. When descriptors are few,
// the defaults leave a quarter of them to the rest of the program. A connection that
// waits needs one descriptor and no more.
func roomFor(descriptors int) (strangers, waiting int) {
	strangers, waiting = 2048, 16384
	if descriptors > 0 {
		strangers, waiting = min(strangers, descriptors/4), min(waiting, descriptors/2)
	}
	return strangers, waiting
}

// Complete returns the config with every default set, for a carrier of another package.
func (c ListenConfig) Complete() (ListenConfig, error) {
	if c.GetCertificate == nil && (len(c.Certificate.Certificate) == 0 || c.Certificate.PrivateKey == nil) {
		return c, errors.New("listen: a server needs a certificate")
	}
	return c.withDefaults(), nil
}

// Gate makes the gate that a listener with this config has for strangers. The config must
// be complete.
func (c ListenConfig) Gate() *Gate {
	return NewGate(GateConfig{Authenticate: c.Authenticate, Wait: c.Wait, MaxStrangers: c.MaxStrangers,
		MaxPerAddress: c.MaxPerAddress, MaxWaiting: c.MaxWaiting, Hearing: c.hearing})
}

// ServerTLS is how a carrier that begins with TLS proves the server's identity.
func (c ListenConfig) ServerTLS() *tls.Config {
	certificate := c.GetCertificate
	if certificate == nil {
		certificate = func() (*tls.Certificate, error) { return &c.Certificate, nil }
	}
	return &tls.Config{
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{protocolName},
		DynamicRecordSizingDisabled: true,
		// A ticket costs a kilobyte of writes, for a resumption that no agent makes: an
		// agent keeps its session for days.
		SessionTicketsDisabled: true,
	}
}
