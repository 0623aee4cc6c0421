package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/netaddr"
)

// TLSListener accepts the sessions that agents begin over TLS on TCP, and over WebSocket on
// the same port.
type TLSListener struct {
	ln       net.Listener
	config   ListenConfig
	tls      *tls.Config
	log      *slog.Logger
	sessions chan Session
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup // the accept loop
	gate     *Gate
	// computing has a slot for each handshake that is being computed. When thousands
	// of handshakes come at once, the first of them are done soon, in the order in
	// which they came. Without slots all of them would be late.
	computing chan struct{}
	onLane    atomic.Pointer[func(*LaneCall)]
}

// greeting is a handshake under way. computes tells whether its goroutine has a slot of
// TLSListener.computing.
type greeting struct {
	*Stranger
	shake    *time.Timer // ends the handshake when it takes too long
	computes bool
}

// limit sets new limits from now on, unless the old ones have passed.
func (s *greeting) limit(handshake, authenticate time.Duration) {
	if s.shake.Stop() {
		s.shake.Reset(handshake)
	}
	s.Limit(authenticate)
}

// socket is a connection that comes to the listener's gate. The gate asks it by one
// goroutine at a time.
type socket struct {
	net.Conn
	came uint64 // bytes, when the gate asked last
}

// Unread is true also for bytes that came since it was asked last and were read: a busy
// listener may have read a hello, and not yet looked at it.
func (s *socket) Unread() bool {
	before := s.came
	s.came = received(s.Conn)
	return s.came > before || unread(s.Conn)
}

// greetingKey is the key of the greeting in the context of a handshake.
type greetingKey struct{}

// ListenTLS accepts sessions over the connections of ln. Close closes ln too.
// config.Certificate or config.GetCertificate is required.
func ListenTLS(ln net.Listener, config ListenConfig, log *slog.Logger) (*TLSListener, error) {
	config, err := config.Complete()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &TLSListener{
		ln: ln, config: config, log: log,
		sessions: make(chan Session), ctx: ctx, cancel: cancel,
		computing: make(chan struct{}, 4*runtime.GOMAXPROCS(0)),
	}
	l.gate = config.Gate()
	l.config.Session.beats = newHeartbeats(l.config.Session.PingEvery)
	l.tls = l.config.ServerTLS()
	l.tls.NextProtos = append(l.tls.NextProtos, httpProtocol, laneName)
	l.tls.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		s := hello.Context().Value(greetingKey{}).(*greeting)
		s.Spoke()
		select {
		case l.computing <- struct{}{}:
		default:
			// The peer now waits for this side. That must not count against the peer.
			s.limit(l.config.Wait, l.config.Wait)
			select {
			case l.computing <- struct{}{}:
			case <-hello.Context().Done():
				return nil, hello.Context().Err()
			}
			s.limit(l.config.Handshake, l.config.Authenticate)
		}
		s.computes = true
		return nil, nil // nil keeps l.tls
	}
	l.running.Go(l.acceptLoop)
	return l, nil
}

// acceptLoop accepts and counts connections, and does nothing else with them, so that no
// peer can make the others wait. It goes on after temporary errors, such as no free
// descriptor (EMFILE), and ends only with Close.
func (l *TLSListener) acceptLoop() {
	const longest = time.Second
	var wait time.Duration
	for {
		conn, err := l.ln.Accept()
		if err == nil {
			wait = 0
			// Connections are counted here, in the order in which they came. If each had
			// a goroutine that counted it, older strangers could push out an agent that
			// came after them.
			l.gate.Enter(&socket{Conn: conn}, func(s *Stranger) { l.greet(&greeting{Stranger: s}, conn) })
			continue
		}
		if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if wait == 0 {
			wait = 5 * time.Millisecond
			l.log.Warn("cannot accept connections, trying on", "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			timer.Stop()
			return
		}
		wait = min(2*wait, longest)
	}
}

// greet makes a session of a connection and hands it to Accept.
func (l *TLSListener) greet(s *greeting, conn net.Conn) {
	if hungUp(conn) { // the peer left while it waited: a handshake costs too much to make it for nobody
		_ = conn.Close()
		s.Admit()
		return
	}
	ctx, cancel := context.WithCancel(context.WithValue(l.ctx, greetingKey{}, s))
	defer cancel()
	s.shake = time.AfterFunc(l.config.Handshake, cancel)
	defer s.shake.Stop()
	_ = conn.SetReadDeadline(time.Now().Add(l.config.FirstByte))
	config := l.config.Session
	config.onAdmit = s.Admit
	config.onEnd = config.onAdmit
	pause := func() { // called when the handshake waits for the peer, and when it is over
		if s.computes {
			s.computes = false
			<-l.computing
		}
	}
	session, err := l.begin(ctx, s, conn, pause, config)
	pause()
	if errors.Is(err, errLaneOver) {
		s.Admit()
		return
	}
	if err != nil {
		_ = conn.Close()
		s.Admit()
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

// Strangers counts the connections that are served and not yet admitted. Connections
// that wait for their turn do not count.
func (l *TLSListener) Strangers() int { return l.gate.Strangers() }

// Accept waits for the next session.
func (l *TLSListener) Accept(ctx context.Context) (Session, error) {
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
func (l *TLSListener) Addr() net.Addr { return l.ln.Addr() }

// Close ends the listener and the handshakes under way.
func (l *TLSListener) Close() error {
	l.cancel()
	err := l.ln.Close()
	l.gate.Close()
	l.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
