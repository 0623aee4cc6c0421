package control

import (
	"container/list"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// door counts the connections that have not proved a node yet. If there are too many,
// the oldest is closed: an honest node needs milliseconds.
type door struct {
	limit   int
	metrics *ServerMetrics

	mu     sync.Mutex
	closed bool                       // guarded by mu
	line   list.List                  // of net.Conn, the oldest first; guarded by mu
	places map[net.Conn]*list.Element // guarded by mu
}

func newDoor(limit int, metrics *ServerMetrics) *door {
	return &door{limit: limit, metrics: metrics, places: map[net.Conn]*list.Element{}}
}

func (d *door) enter(conn net.Conn) {
	d.mu.Lock()
	d.places[conn] = d.line.PushBack(conn)
	var oldest net.Conn
	switch {
	case d.closed:
		oldest = conn
	case d.line.Len() > d.limit:
		oldest = d.line.Front().Value.(net.Conn)
		d.metrics.refused.WithLabelValues("strangers").Inc()
	}
	d.metrics.strangers.Set(float64(d.line.Len()))
	d.mu.Unlock()
	if oldest != nil {
		d.leave(oldest)
		_ = oldest.Close()
	}
}

// leave stops counting a connection; it may be repeated.
func (d *door) leave(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.places[conn]; e != nil {
		d.line.Remove(e)
		delete(d.places, conn)
		d.metrics.strangers.Set(float64(d.line.Len()))
	}
}

// close closes the connections in line and admits no others.
func (d *door) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for conn := range d.places {
		_ = conn.Close()
	}
}

// caller is a connection after its handshake.
type caller struct {
	net.Conn
	node        string // "" for a stranger
	certificate *x509.Certificate
	expires     time.Time
	onClose     func()
	once        sync.Once
	expired     sync.Once
}

// Close ends the connection, and stops counting it.
func (c *caller) Close() error {
	c.once.Do(c.onClose)
	return c.Conn.Close()
}

// expire ends a connection that is older than its certificate, so that the node makes
// another one. It ends a little later, so that the node can still read the reason.
func (c *caller) expire() {
	c.expired.Do(func() { time.AfterFunc(20*time.Millisecond, func() { _ = c.Close() }) })
}

// handover is a listener that accepts the connections that it is given.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handover) give(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.done:
		_ = conn.Close()
	}
}

// Accept implements [net.Listener].
func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements [net.Listener].
func (h *handover) Addr() net.Addr { return h.addr }

// shaken tells gRPC the identity of the caller; the handshake is done.
type shaken struct{}

// callerInfo is the information about the caller that a call finds.
type callerInfo struct {
	credentials.CommonAuthInfo
	caller *caller
}

// AuthType implements [credentials.AuthInfo].
func (callerInfo) AuthType() string { return "tls" }

var errNoClient = errors.New("control: these credentials are for a server only")

func (shaken) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*caller)
	if !ok {
		_ = raw.Close()
		return nil, nil, errors.New("control: the connection had no handshake")
	}
	return c, callerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, c}, nil
}

func (shaken) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errNoClient
}

func (shaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (s shaken) Clone() credentials.TransportCredentials { return s }
func (shaken) OverrideServerName(string) error           { return nil }
