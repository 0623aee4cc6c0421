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

	mu        sync.Mutex
	strangers *list.List            // of *stranger, oldest first
	address   map[string]*list.List // the same by address
}

// stranger is a connection that has not been admitted.
type stranger struct {
	conn      net.Conn
	host      string
	timer     *time.Timer // closes conn when it takes too long
	all, same *list.Element
}

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
		strangers: list.New(), address: make(map[string]*list.List),
	}
	l.tls = l.config.serverTLS()
	l.running.Go(l.acceptLoop)
	return l, nil
}

// acceptLoop takes connections and does nothing with them itself, so that no
// peer can keep others waiting. It survives what passes, such as no free
// descriptor (EMFILE), and ends only with Close.
func (l *TLSListener) acceptLoop() {
	const longest = time.Second
	var wait time.Duration
	for {
		conn, err := l.ln.Accept()
		if err == nil {
			wait = 0
			l.running.Go(func() { l.greet(conn) })
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
func (l *TLSListener) greet(conn net.Conn) {
	s := l.welcome(conn)
	ctx, cancel := context.WithTimeout(l.ctx, l.config.Handshake)
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

// welcome counts a connection among the strangers, and closes the oldest of its
// address, or of all, where the cap is reached.
func (l *TLSListener) welcome(conn net.Conn) *stranger {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		host = conn.RemoteAddr().String()
	}
	s := &stranger{conn: conn, host: host}
	var leave []*stranger
	l.mu.Lock()
	same := l.address[host]
	if same == nil {
		same = list.New()
		l.address[host] = same
	}
	s.all, s.same = l.strangers.PushBack(s), same.PushBack(s)
	if same.Len() > l.config.MaxPerAddress {
		leave = append(leave, l.remove(same.Front().Value.(*stranger)))
	}
	if l.strangers.Len() > l.config.MaxStrangers {
		leave = append(leave, l.remove(l.strangers.Front().Value.(*stranger)))
	}
	s.timer = time.AfterFunc(l.config.Authenticate, func() { _ = conn.Close() })
	l.mu.Unlock()
	for _, old := range leave {
		_ = old.conn.Close()
	}
	return s
}

// forget counts the connection no more; it may be repeated.
func (l *TLSListener) forget(s *stranger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(s)
	s.timer.Stop()
}

// remove takes s off the lists. The lock is held.
func (l *TLSListener) remove(s *stranger) *stranger {
	if s.all == nil {
		return s
	}
	l.strangers.Remove(s.all)
	same := l.address[s.host]
	same.Remove(s.same)
	if same.Len() == 0 {
		delete(l.address, s.host)
	}
	s.all, s.same = nil, nil
	return s
}

// Strangers counts the connections that were not admitted yet.
func (l *TLSListener) Strangers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.strangers.Len()
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
