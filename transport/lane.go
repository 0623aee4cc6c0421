package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// A lane is a connection beside a session, for the bulk of one stream. It begins with TLS,
// in which both ends say who they are. Then both leave TLS, and the connection carries
// bytes as they are: what goes over a lane must be encrypted already. A server can join
// two lanes in the kernel (SpliceLanes).

// laneName is the name that both ends of a lane offer in the TLS handshake (ALPN).
const laneName = "tunnox-lane/1"

// ErrNoLane: the session's carrier, or this system, has no lanes.
var ErrNoLane = errors.New("transport: no lane")

// LaneCall is a lane that is still in TLS. It carries the messages with which the two ends
// agree on what the lane is for.
type LaneCall struct {
	*tls.Conn
	beneath *carrier
	admit   func() // nil at the side that dialled
	binding []byte
	bare    bool
}

// Binding is a value that only the two ends of this connection can compute.
func (c *LaneCall) Binding() []byte { return c.binding }

// Admit tells the listener that the peer has proved its identity, as Session.Admit does.
func (c *LaneCall) Admit() {
	if c.admit != nil {
		c.admit()
	}
}

// Bare leaves TLS. Both ends call it after the last message, which the side that dialled
// has received. If the peer has sent more than it should, Bare closes the connection.
func (c *LaneCall) Bare() (*Lane, error) {
	socket, ok := c.beneath.Conn.(*net.TCPConn)
	if !ok {
		_ = c.Close()
		return nil, ErrNoLane
	}
	if c.beneath.got > 0 || c.beneath.ahead == nil || len(c.beneath.ahead.held) > 0 {
		_ = socket.Close()
		return nil, errors.New("lane: the peer sent bytes before the lane was agreed on")
	}
	c.bare = true
	return NewLane(socket)
}

// Close closes the connection without a farewell: on a lane that goes on, the alert of TLS
// would be taken for bytes.
func (c *LaneCall) Close() error { return c.beneath.Conn.Close() }

// DialLane begins a lane to the server of a session, as the session was begun. Only
// sessions of DialTLS have lanes; for others the error is ErrNoLane.
func DialLane(ctx context.Context, s Session) (*LaneCall, error) {
	if m, ok := s.(*muxSession); ok && m.dialLane != nil {
		return m.dialLane(ctx)
	}
	return nil, ErrNoLane
}

// HasLanes tells whether DialLane can succeed for a session.
func HasLanes(s Session) bool {
	m, ok := s.(*muxSession)
	return ok && m.dialLane != nil
}

// dialLane makes the handshake of a lane. client is how the session verified the server.
func dialLane(ctx context.Context, address string, config DialConfig, client *tls.Config) (*LaneCall, error) {
	raw, ctx, cancel, err := config.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	defer cancel()
	client = client.Clone()
	client.NextProtos = []string{laneName}
	conn, beneath, err := shake(ctx, raw, func(c net.Conn) *tls.Conn { return tls.Client(c, client) })
	if err == nil && conn.ConnectionState().NegotiatedProtocol != laneName {
		err = ErrNoLane // the server is older than lanes, or another one
	}
	var binding []byte
	if err == nil {
		binding, err = BindingOf(conn.ConnectionState())
	}
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("lane: %w", err)
	}
	return &LaneCall{Conn: conn, beneath: beneath, binding: binding}, nil
}

// OnLane sets the function that is called with each lane of a peer, in a goroutine of its
// own; the listener's limits for strangers hold until Admit. The lane is closed when the
// function returns before it has called Bare. Without a function lanes are refused.
func (l *TLSListener) OnLane(do func(*LaneCall)) { l.onLane.Store(&do) }

// errLaneOver: the connection was a lane, which has an owner.
var errLaneOver = errors.New("the connection is a lane")

// lane serves a connection whose peer has asked for a lane. The error is errLaneOver when
// somebody has taken it over.
func (l *TLSListener) lane(s *greeting, over *tls.Conn, beneath *carrier) error {
	do := l.onLane.Load()
	if do == nil {
		return ErrNoLane
	}
	binding, err := BindingOf(over.ConnectionState())
	if err != nil {
		return err
	}
	call := &LaneCall{Conn: over, beneath: beneath, admit: s.Admit, binding: binding}
	stop := context.AfterFunc(l.ctx, func() { _ = call.Close() })
	defer stop()
	(*do)(call)
	if !call.bare {
		return errors.New("the lane was refused")
	}
	return errLaneOver
}

// SpliceLanes joins two lanes in both directions, waits until both directions have ended,
// and closes both lanes. The end of one lane's bytes is passed on. If one lane fails, both
// are reset. SpliceLanes calls the functions of count with the number of bytes that it has
// just moved, and obeys its brake. It returns the first error, with the numbers of bytes
// moved. On Linux the bytes stay in the kernel. To end a splice from outside, Reset one of
// the lanes.
func SpliceLanes(a, b *Lane, count Count) (aToB, bToA int64, err error) {
	return spliceLanes(a, b, count)
}
