package transport

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
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

	mu      sync.Mutex
	all     *queue            // of strangers
	address map[string]*queue // the same by address
}

// stranger is a connection that has not been admitted.
type stranger struct {
	conn  net.Conn
	host  string
	timer *time.Timer // closes conn when it takes too long

	spoken  bool          // it has begun a handshake; guarded by TLSListener.mu
	all     *list.Element // of TLSListener.all, nil when it was removed
	address *list.Element // of its address
}

// queue holds strangers, those that have said nothing yet apart, the oldest first.
type queue struct{ silent, speaking list.List }

func (q *queue) len() int { return q.silent.Len() + q.speaking.Len() }

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
		all: new(queue), address: make(map[string]*queue),
	}
	l.config.Session.beats = newHeartbeats(l.config.Session.PingEvery)
	l.tls = l.config.serverTLS()
	l.tls.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		l.spoke(hello.Context().Value(strangerKey{}).(*stranger))
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
			if s := l.welcome(conn); s != nil {
				l.running.Go(func() { l.greet(s) })
			} else {
				_ = conn.Close()
			}
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
	ctx, cancel := context.WithTimeout(context.WithValue(l.ctx, strangerKey{}, s), l.config.Handshake)
	defer cancel()
	_ = conn.SetReadDeadline(time.Now().Add(l.config.FirstByte))
	config := l.config.Session
	config.onAdmit = func() { l.forget(s) }
	config.onEnd = config.onAdmit
	session, err := beginTLS(ctx, conn, func(c net.Conn) *tls.Conn { return tls.Server(c, l.tls) }, false, config)
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

// welcome counts a connection among the strangers. Where the cap of its address or
// of all is reached, the oldest goes that has said nothing; when all are speaking
// the connection gets nil, and may come again. An agent says something at once, so
// that those who flood push out themselves. When many thousand agents come back at
// the same moment, those that are being served stay until they are.
func (l *TLSListener) welcome(conn net.Conn) *stranger {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		host = conn.RemoteAddr().String()
	}
	s := &stranger{conn: conn, host: host}
	l.mu.Lock()
	defer l.mu.Unlock()
	same := l.address[host]
	if same != nil && same.len() >= l.config.MaxPerAddress && !l.pushOut(same) || l.all.len() >= l.config.MaxStrangers && !l.pushOut(l.all) {
		return nil
	}
	if same = l.address[host]; same == nil { // also when the one pushed out was its last
		same = new(queue)
		l.address[host] = same
	}
	s.all, s.address = l.all.silent.PushBack(s), same.silent.PushBack(s)
	s.timer = time.AfterFunc(l.config.Authenticate, func() { _ = conn.Close() })
	return s
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

// spoke notes that a stranger has begun a handshake.
func (l *TLSListener) spoke(s *stranger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.all == nil || s.spoken {
		return
	}
	same := l.address[s.host]
	l.all.silent.Remove(s.all)
	same.silent.Remove(s.address)
	s.spoken = true
	s.all, s.address = l.all.speaking.PushBack(s), same.speaking.PushBack(s)
}

// forget counts the connection no more; it may be repeated.
func (l *TLSListener) forget(s *stranger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(s)
	s.timer.Stop()
}

// remove takes s off the queues. The lock is held.
func (l *TLSListener) remove(s *stranger) {
	if s.all == nil {
		return
	}
	same := l.address[s.host]
	for _, q := range []*list.List{&l.all.silent, &l.all.speaking} {
		q.Remove(s.all) // from the one that it is in
	}
	for _, q := range []*list.List{&same.silent, &same.speaking} {
		q.Remove(s.address)
	}
	if same.len() == 0 {
		delete(l.address, s.host)
	}
	s.all, s.address = nil, nil
}

// Strangers counts the connections that were not admitted yet.
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
	l.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
