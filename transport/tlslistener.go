package transport

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/netaddr"
)

// TLSListener gives the sessions that agents begin over TLS on TCP.
type TLSListener struct {
	ln       net.Listener
	config   ListenConfig
	tls      *tls.Config
	log      *slog.Logger
	sessions chan Session
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup // the accept loop and a goroutine for each handshake
	// A slot for each handshake that is being computed. When thousands come at once
	// some are done soon, in the order in which they came, and not all of them late.
	computing chan struct{}

	mu      sync.Mutex
	closed  bool
	all     *queue            // of strangers
	address map[string]*queue // the same by address
	lines   lines             // of those for whom there is no place
}

// stranger is a connection that has not been admitted.
type stranger struct {
	conn  net.Conn
	host  string
	timer *time.Timer // closes conn when it takes too long; guarded by TLSListener.mu
	shake *time.Timer // ends the handshake when it takes too long; of its goroutine

	computes bool          // it has a slot of TLSListener.computing; of the handshake's goroutine
	spoken   bool          // it has begun a handshake; guarded by TLSListener.mu
	all      *list.Element // of TLSListener.all, nil when it was removed
	address  *list.Element // of its address
}

// queue holds strangers that have a place, the oldest first: those of whom nothing
// had come when it was their turn apart from those that are being served.
type queue struct{ silent, served list.List }

func (q *queue) len() int { return q.silent.Len() + q.served.Len() }

// strangerKey is where the context of a handshake has its stranger.
type strangerKey struct{}

// ListenTLS gives sessions over the connections of ln, which it closes in the
// end. config.Certificate or config.GetCertificate is required.
func ListenTLS(ln net.Listener, config ListenConfig, log *slog.Logger) (*TLSListener, error) {
	if config.GetCertificate == nil && (len(config.Certificate.Certificate) == 0 || config.Certificate.PrivateKey == nil) {
		return nil, errors.New("listen: a server needs a certificate")
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &TLSListener{
		ln: ln, config: config.withDefaults(), log: log,
		sessions: make(chan Session), ctx: ctx, cancel: cancel,
		all: new(queue), address: make(map[string]*queue), lines: newLines(),
		computing: make(chan struct{}, 4*runtime.GOMAXPROCS(0)),
	}
	l.config.Session.beats = newHeartbeats(l.config.Session.PingEvery)
	l.tls = l.config.serverTLS()
	l.tls.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		s := hello.Context().Value(strangerKey{}).(*stranger)
		l.spoke(s)
		select {
		case l.computing <- struct{}{}:
		default:
			// It waits for this side now, which its own time is not for.
			l.limit(s, l.config.Wait, l.config.Wait)
			select {
			case l.computing <- struct{}{}:
			case <-hello.Context().Done():
				return nil, hello.Context().Err()
			}
			l.limit(s, l.config.Handshake, l.config.Authenticate)
		}
		s.computes = true
		return nil, nil // as it is
	}
	l.running.Go(l.acceptLoop)
	return l, nil
}

// acceptLoop takes and counts connections and does nothing else with them itself,
// so that no peer can keep others waiting. It survives what passes, such as no free
// descriptor (EMFILE), and ends only with Close.
func (l *TLSListener) acceptLoop() {
	const longest = time.Second
	var wait time.Duration
	for {
		conn, err := l.ln.Accept()
		if err == nil {
			wait = 0
			// Counted here, in the order in which they came: counted in goroutines of
			// their own, strangers from before an agent would push it out.
			l.welcome(conn)
			continue
		}
		if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if wait == 0 {
			wait = 5 * time.Millisecond
			l.log.Warn("cannot accept connections, trying on", "error", err)
		}
		select {
		case <-time.After(wait):
		case <-l.ctx.Done():
			return
		}
		wait = min(2*wait, longest)
	}
}

// greet makes a session of a connection and hands it to Accept.
func (l *TLSListener) greet(s *stranger) {
	conn := s.conn
	if hungUp(conn) { // while it waited: a handshake is too dear to be for nobody
		_ = conn.Close()
		l.forget(s)
		return
	}
	ctx, cancel := context.WithCancel(context.WithValue(l.ctx, strangerKey{}, s))
	defer cancel()
	s.shake = time.AfterFunc(l.config.Handshake, cancel)
	defer s.shake.Stop()
	_ = conn.SetReadDeadline(time.Now().Add(l.config.FirstByte))
	config := l.config.Session
	config.onAdmit = func() { l.forget(s) }
	config.onEnd = config.onAdmit
	pause := func() { // it waits for the peer, or is over
		if s.computes {
			s.computes = false
			<-l.computing
		}
	}
	session, err := beginTLS(ctx, conn, func(c net.Conn) *tls.Conn {
		c.(*carrier).beforeWait = pause
		return tls.Server(c, l.tls)
	}, false, config)
	pause()
	if err != nil {
		_ = conn.Close()
		l.forget(s)
		l.log.Debug("connection gave no session", "peer", conn.RemoteAddr(), "error", err)
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

// welcome has a connection served, or wait until there is a place for it, or closed
// where too many wait already.
func (l *TLSListener) welcome(conn net.Conn) {
	host := netaddr.Group(conn.RemoteAddr().String())
	s := &stranger{conn: conn, host: host}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.lines.count >= l.config.MaxWaiting || l.lines.of(host) >= l.config.MaxWaiting/2 {
		_ = conn.Close()
		return
	}
	l.lines.add(s)
	s.timer = time.AfterFunc(l.config.Wait, func() { l.tire(s) })
	l.settle()
}

// limit gives a stranger new limits from now on, if it has not taken too long.
func (l *TLSListener) limit(s *stranger, handshake, authenticate time.Duration) {
	if s.shake.Stop() {
		s.shake.Reset(handshake)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.timer != nil && s.timer.Stop() {
		s.timer.Reset(authenticate)
	}
}

// settle gives places to those who wait, an address after the other. Where the cap
// of an address or of all is reached, the oldest of whom nothing has come goes, if
// there is one. An agent says something at once, so that those who flood push out
// themselves. When many thousand agents come back at the same moment, those that are
// being served stay until they are, and the others wait. The lock is held.
func (l *TLSListener) settle() {
	if l.closed {
		return
	}
	for {
		if l.all.len() >= l.config.MaxStrangers && l.all.silent.Len() == 0 {
			return // without a look at each of the lines, of which there may be many
		}
		s := l.lines.next(func(host string) bool {
			same := l.address[host]
			return (same == nil || same.len() < l.config.MaxPerAddress || l.pushOut(same)) &&
				(l.all.len() < l.config.MaxStrangers || l.pushOut(l.all))
		})
		if s == nil {
			return
		}
		s.timer.Stop()
		same := l.address[s.host]
		if same == nil {
			same = new(queue)
			l.address[s.host] = same
		}
		s.all, s.address = l.all.served.PushBack(s), same.served.PushBack(s)
		s.timer = time.AfterFunc(l.config.Authenticate, func() { _ = s.conn.Close() })
		l.listenTo(s)
		l.running.Go(func() { l.greet(s) }) // Close has not been called, so it waits for that
	}
}

// tire closes a connection that has waited for too long.
func (l *TLSListener) tire(s *stranger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines.remove(s) {
		_ = s.conn.Close()
	}
}

// pushOut closes the oldest of a queue that has said nothing, if there is one. The
// lock is held.
func (l *TLSListener) pushOut(q *queue) bool {
	oldest := q.silent.Front()
	if oldest == nil {
		return false
	}
	s := oldest.Value.(*stranger)
	l.remove(s)
	_ = s.conn.Close() // a TCP connection, which that does not block on
	return true
}

// listenTo notes it if nothing comes from a stranger in time. The lock is held.
func (l *TLSListener) listenTo(s *stranger) {
	limit := l.config.hearing
	if l.lines.of(s.host) > l.config.MaxPerAddress {
		limit /= 100
	}
	time.AfterFunc(limit, func() {
		here := unread(s.conn) // and nobody has come to it yet
		l.mu.Lock()
		defer l.mu.Unlock()
		switch same := l.address[s.host]; {
		case s.all == nil || s.spoken:
		case here:
			l.listenTo(s)
		default:
			l.all.served.Remove(s.all)
			same.served.Remove(s.address)
			s.all, s.address = l.all.silent.PushBack(s), same.silent.PushBack(s)
			l.settle()
		}
	})
}

// spoke notes that a stranger has begun a handshake.
func (l *TLSListener) spoke(s *stranger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.all == nil || s.spoken {
		return
	}
	same := l.address[s.host]
	s.spoken = true
	for _, q := range []*list.List{&l.all.silent, &l.all.served} {
		q.Remove(s.all) // from the one that it is in
	}
	for _, q := range []*list.List{&same.silent, &same.served} {
		q.Remove(s.address)
	}
	s.all, s.address = l.all.served.PushBack(s), same.served.PushBack(s)
}

// forget counts the connection no more; it may be repeated.
func (l *TLSListener) forget(s *stranger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(s)
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil // the session keeps s
	}
	l.settle()
}

// remove takes s off the queues. The lock is held.
func (l *TLSListener) remove(s *stranger) {
	if s.all == nil {
		return
	}
	same := l.address[s.host]
	for _, q := range []*list.List{&l.all.silent, &l.all.served} {
		q.Remove(s.all) // from the one that it is in
	}
	for _, q := range []*list.List{&same.silent, &same.served} {
		q.Remove(s.address)
	}
	if same.len() == 0 {
		delete(l.address, s.host)
	}
	s.all, s.address = nil, nil
}

// Strangers counts the connections that were not admitted yet, without those that
// wait to be looked at.
func (l *TLSListener) Strangers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.len()
}

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
	l.mu.Lock()
	l.closed = true
	for s := range l.lines.all() {
		s.timer.Stop()
		_ = s.conn.Close()
	}
	l.mu.Unlock()
	l.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
