package transport

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"time"
)

// A listener tells by the first byte whether a peer speaks TLS or HTTP, and by ALPN
// whether TLS carries a session or a WebSocket. So one port is enough.

// recordHandshake is the first byte of a TLS connection.
const recordHandshake = 22

// begin makes a session of a connection, whatever the peer speaks. If it fails, the caller
// must close conn.
func (l *TLSListener) begin(ctx context.Context, s *greeting, conn net.Conn, pause func(), config SessionConfig) (Session, error) {
	server := func(c net.Conn) *tls.Conn {
		c.(*carrier).beforeWait = pause
		return tls.Server(c, l.tls)
	}
	first, conn, err := firstByte(conn)
	if err != nil {
		return nil, err
	}
	if first != recordHandshake {
		_ = conn.SetReadDeadline(time.Time{})
		ws, _, err := l.upgrade(ctx, s, conn)
		if err != nil {
			return nil, err
		}
		return beginTLS(ctx, ws, server, false, config)
	}
	over, beneath, err := shake(ctx, conn, server)
	if err != nil {
		return nil, err
	}
	if over.ConnectionState().NegotiatedProtocol == protocolName {
		return sessionOver(over, beneath, over, false, config)
	}
	if over.ConnectionState().NegotiatedProtocol == laneName {
		pause() // the handshake is over
		return nil, l.lane(s, over, beneath)
	}
	ws, direct, err := l.upgrade(ctx, s, over)
	if err != nil {
		return nil, err
	}
	if direct {
		return sessionOver(ws, beneath, over, false, config)
	}
	return beginTLS(ctx, ws, server, false, config)
}

// upgrade answers an HTTP request, until ctx ends.
func (l *TLSListener) upgrade(ctx context.Context, s *greeting, conn net.Conn) (*webSocket, bool, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	ws, direct, err := answerWebSocket(conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		linger(conn)
		return nil, false, err
	}
	s.Spoke()
	return ws, direct, nil
}

// readAhead is a connection of which one byte was read ahead.
type readAhead struct {
	net.Conn
	first []byte
}

func (c *readAhead) Read(b []byte) (int, error) {
	if len(c.first) > 0 && len(b) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// firstByte waits for the first byte. It returns a connection that still has that byte.
func firstByte(conn net.Conn) (byte, net.Conn, error) {
	if raw := rawConn(conn); raw != nil {
		first, err := peekByte(raw)
		return first, conn, err
	}
	c := &readAhead{Conn: conn, first: make([]byte, 1)}
	_, err := io.ReadFull(conn, c.first)
	return c.first[0], c, err
}
