package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/tunnox-net/tunnox/netaddr"
	"github.com/tunnox-net/tunnox/transport"
)

const (
	// deadAfter is the silence after which a peer is given up, and the rest is how often a
	// quiet connection is probed: as over TLS. Many NATs forget UDP after 30 s, some after
	// 15.
	deadAfter   = 15 * time.Second
	serverEvery = 9 * time.Second
	agentEvery  = serverEvery + serverEvery/4

	// packet is the payload of every UDP packet: with 48 bytes of IPv6 and UDP it is 1280,
	// which every path of IPv6 carries. Discovery of a larger one is off: quic-go does not
	// notice when the path's MTU falls later and ICMP is dropped, and the connection then
	// hangs without dying. The largest that it would find is 1452, a sixth more.
	packet = 1232

	// Windows grow from the first to the second while their reader keeps up; streamMost
	// is 80 MB/s at 100 ms.
	streamFirst, streamMost = 64 << 10, 8 << 20
	connFirst, connMost     = 512 << 10, 32 << 20

	// maxStreams bounds the streams that the peer may have open, as over TLS.
	maxStreams = 65536

	// handshakeLimit bounds a handshake.
	handshakeLimit = 10 * time.Second

	// verifyFrom is the number of strangers from which on a client's address is verified
	// by a retry, which costs it a round trip: others may lie about it.
	verifyFrom = 64

	// maxWaiting bounds the connections that wait for their turn. They cost more than
	// those of TCP do.
	maxWaiting = 1024
)

func config(every time.Duration) *quicgo.Config {
	return &quicgo.Config{
		Versions: []quicgo.Version{quicgo.Version1}, HandshakeIdleTimeout: handshakeLimit / 2,
		MaxIdleTimeout: deadAfter, KeepAlivePeriod: every,
		InitialStreamReceiveWindow: streamFirst, MaxStreamReceiveWindow: streamMost,
		InitialConnectionReceiveWindow: connFirst, MaxConnectionReceiveWindow: connMost,
		MaxIncomingStreams: maxStreams, MaxIncomingUniStreams: -1,
		InitialPacketSize: packet, DisablePathMTUDiscovery: true,
		EnableStreamResetPartialDelivery: true,
	}
}

// Carrier dials over QUIC. It remembers servers, so that the next handshake needs no
// signature.
type Carrier struct{ sessions tls.ClientSessionCache }

// NewCarrier makes a Carrier.
func NewCarrier() *Carrier { return &Carrier{sessions: tls.NewLRUClientSessionCache(16)} }

// Dial begins a session with the server at address. It sends from an address of any
// interface, so that a machine that moves keeps its sessions.
func (c *Carrier) Dial(ctx context.Context, address string, dial transport.DialConfig) (transport.Session, error) {
	verify, err := dial.ClientTLS(address)
	if err != nil {
		return nil, err
	}
	verify.ClientSessionCache = c.sessions
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fmt.Errorf("dial server: %w", err)
	}
	network := "udp6"
	if to.IP.To4() != nil {
		network = "udp4"
	}
	socket, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, fmt.Errorf("dial server: %w", err)
	}
	over := &quicgo.Transport{Conn: socket}
	release := func() {
		_ = over.Close()
		_ = socket.Close()
	}
	s, err := dialOver(ctx, over, to, verify, release)
	if err != nil {
		release()
		return nil, err
	}
	return s, nil
}

func dialOver(ctx context.Context, over *quicgo.Transport, to net.Addr, verify *tls.Config, release func()) (*session, error) {
	conn, err := over.Dial(ctx, to, verify, config(agentEvery))
	if err != nil {
		return nil, fmt.Errorf("quic handshake: %w", err)
	}
	fail := func(err error) (*session, error) {
		_ = conn.CloseWithError(protocol, "")
		return nil, err
	}
	if !conn.ConnectionState().SupportsStreamResetPartialDelivery.Remote {
		return fail(errors.New("quic handshake: the server cannot reset streams in order"))
	}
	control, err := conn.OpenStream()
	if err != nil {
		return fail(fmt.Errorf("begin session: %w", err))
	}
	if _, err := control.Write(make([]byte, frameSize)); err != nil { // frameHello
		return fail(fmt.Errorf("begin session: %w", err))
	}
	s, err := begin(conn, control, nil, release)
	if err != nil {
		return fail(err)
	}
	return s, nil
}

// Listener accepts the sessions that agents begin over QUIC.
type Listener struct {
	socket   net.PacketConn
	over     *quicgo.Transport
	early    *quicgo.EarlyListener
	config   transport.ListenConfig
	log      *slog.Logger
	gate     *transport.Gate
	sessions chan transport.Session
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu   sync.Mutex
	uses int // the listener and its sessions; the last closes the socket
}

// Listen accepts sessions over the packets of socket. The socket is closed when the
// listener and the last of its sessions are.
func Listen(socket net.PacketConn, config1 transport.ListenConfig, log *slog.Logger) (*Listener, error) {
	complete, err := config1.Complete()
	if err != nil {
		return nil, err
	}
	complete.MaxWaiting = min(complete.MaxWaiting, maxWaiting)
	ctx, cancel := context.WithCancel(context.Background())
	l := &Listener{socket: socket, config: complete, log: log, gate: complete.Gate(), sessions: make(chan transport.Session),
		ctx: ctx, cancel: cancel, uses: 1}
	l.over = &quicgo.Transport{Conn: socket, VerifySourceAddress: func(net.Addr) bool { return l.gate.Strangers() >= verifyFrom }}
	identity := complete.ServerTLS()
	identity.SessionTicketsDisabled = false // a ticket saves a signature, and costs a packet
	if l.early, err = l.over.ListenEarly(identity, config(serverEvery)); err != nil {
		cancel()
		return nil, fmt.Errorf("listen: %w", err)
	}
	l.running.Go(l.acceptLoop)
	return l, nil
}

// visitor is a connection that comes to the gate.
type visitor struct{ *quicgo.Conn }

// Unread is true: who comes here has sent a hello.
func (v visitor) Unread() bool { return true }

// Close ends the connection.
func (v visitor) Close() error {
	go func() { _ = v.CloseWithError(closed, "") }() // it waits for the connection's goroutine
	return nil
}

// acceptLoop brings connections to the gate as soon as they have said hello.
func (l *Listener) acceptLoop() {
	for {
		conn, err := l.early.Accept(l.ctx)
		if err != nil {
			return // closed
		}
		l.gate.Enter(visitor{conn}, func(s *transport.Stranger) { l.greet(s, conn) })
	}
}

// greet makes a session of a connection and hands it to Accept.
func (l *Listener) greet(s *transport.Stranger, conn *quicgo.Conn) {
	s.Spoke()
	l.use(1)
	ctx, cancel := context.WithTimeout(l.ctx, l.config.Handshake)
	defer cancel()
	var session *session
	control, err := firstStream(ctx, conn)
	if err == nil {
		session, err = begin(conn, control, s.Admit, func() { s.Admit(); l.use(-1) })
	}
	if err != nil {
		_ = conn.CloseWithError(protocol, "")
		s.Admit()
		l.use(-1)
		l.log.Debug("connection gave no session", "peer", netaddr.Network(conn.RemoteAddr().String()), "error", netaddr.Masked(err.Error()))
		return
	}
	select {
	case l.sessions <- session:
	case <-session.Done():
		_ = session.Close()
	case <-l.ctx.Done():
		_ = session.Close()
	}
}

// firstStream waits for the end of the handshake and for the session's own stream.
func firstStream(ctx context.Context, conn *quicgo.Conn) (*quicgo.Stream, error) {
	select {
	case <-conn.HandshakeComplete():
	case <-conn.Context().Done():
		return nil, context.Cause(conn.Context())
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if !conn.ConnectionState().SupportsStreamResetPartialDelivery.Remote {
		return nil, errors.New("the agent cannot reset streams in order")
	}
	return conn.AcceptStream(ctx)
}

// use counts who needs the socket.
func (l *Listener) use(n int) {
	l.mu.Lock()
	l.uses += n
	last := l.uses == 0
	l.mu.Unlock()
	if last {
		_ = l.over.Close()
		_ = l.socket.Close()
	}
}

// Strangers counts the connections that are served and not yet admitted.
func (l *Listener) Strangers() int { return l.gate.Strangers() }

// Accept waits for the next session.
func (l *Listener) Accept(ctx context.Context) (transport.Session, error) {
	select {
	case s := <-l.sessions:
		return s, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Addr is where agents reach the listener.
func (l *Listener) Addr() net.Addr { return l.socket.LocalAddr() }

// Close ends the listener and the handshakes under way.
func (l *Listener) Close() error {
	select {
	case <-l.ctx.Done():
		return nil
	default:
	}
	l.cancel()
	err := l.early.Close()
	l.gate.Close()
	l.running.Wait()
	l.use(-1)
	return err
}
