package proxyheader

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// patience is how long a proxy may take to send its header, which it does at once.
const patience = 5 * time.Second

// Listener takes connections of proxies and of visitors. Whoever connects from one of the
// networks is a proxy and must send a header; of anybody else no header is believed, nor
// looked for.
type Listener struct {
	net.Listener
	From []netip.Prefix
}

// Accept implements [net.Listener]. It does not wait for a header: what it gives for a
// proxy is a [*Conn].
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok || !l.proxy(conn.RemoteAddr()) {
		return conn, nil
	}
	return &Conn{TCPConn: tcp}, nil
}

// proxy tells whether a peer is a proxy.
func (l *Listener) proxy(peer net.Addr) bool {
	at, err := netip.ParseAddrPort(peer.String())
	return err == nil && slices.ContainsFunc(l.From, func(p netip.Prefix) bool { return p.Contains(at.Addr().Unmap().WithZone("")) })
}

// Conn is a connection of a proxy. Its addresses are those of the header, which is read
// when they, or the first byte, are asked for. Without a header reading fails.
type Conn struct {
	*net.TCPConn

	once sync.Once
	head Header
	err  error // why there is no header
}

// Header reads the header, the first time.
func (c *Conn) Header() (Header, error) {
	c.once.Do(func() {
		_ = c.TCPConn.SetReadDeadline(time.Now().Add(patience)) // if it cannot be set, reading fails too
		c.head, c.err = Read(c.TCPConn)
		_ = c.TCPConn.SetReadDeadline(time.Time{})
	})
	return c.head, c.err
}

// Read implements [net.Conn].
func (c *Conn) Read(b []byte) (int, error) {
	if _, err := c.Header(); err != nil {
		return 0, err
	}
	return c.TCPConn.Read(b)
}

// WriteTo implements [io.WriterTo].
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	if _, err := c.Header(); err != nil {
		return 0, err
	}
	return c.TCPConn.WriteTo(w)
}

// RemoteAddr gives the visitor's address, or the proxy's when that says nothing.
func (c *Conn) RemoteAddr() net.Addr {
	if head, err := c.Header(); err == nil && head.From.IsValid() {
		return net.TCPAddrFromAddrPort(head.From)
	}
	return c.TCPConn.RemoteAddr()
}

// LocalAddr gives the address that the visitor connected to, as far as it is known.
func (c *Conn) LocalAddr() net.Addr {
	if head, err := c.Header(); err == nil && head.To.IsValid() {
		return net.TCPAddrFromAddrPort(head.To)
	}
	return c.TCPConn.LocalAddr()
}
