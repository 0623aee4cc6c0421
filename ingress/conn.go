package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// visitorListener gives each visitor's connection a watch over how it ends.
type visitorListener struct{ net.Listener }

func (l visitorListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &visitorConn{Conn: c, framing: newFraming(c)}, nil
}

type visitorKey struct{}

// visitorConn tells a visitor who has sent all (FIN) from one who has gone away
// (RST). net/http takes both for the second (golang.org/issue/18527), and a service
// that thinks for two seconds would be cut off in the middle.
type visitorConn struct {
	net.Conn
	secure  *tls.Conn // nil = without TLS
	framing *framing  // what is read goes through it; used by one reader at a time

	mu    sync.Mutex
	ended bool   // the visitor has sent all
	gone  bool   // the visitor has gone away
	away  func() // of the request that is served, when there is one
}

// Read passes on what the visitor sends, and notes how it ends.
func (c *visitorConn) Read(b []byte) (int, error) {
	n, err := c.framing.Read(b)
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		return n, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, io.EOF) {
		c.ended = true
		if c.away != nil {
			go c.watch()
		}
		return n, err
	}
	c.goneAway()
	return n, err
}

// socket is the connection below TLS.
func (c *visitorConn) socket() net.Conn {
	if c.secure != nil {
		if below, ok := c.secure.NetConn().(*greeting); ok {
			return below.Conn
		}
		return c.secure.NetConn()
	}
	return c.Conn
}

// goneAway is called with mu held.
func (c *visitorConn) goneAway() {
	c.gone = true
	if c.away != nil {
		c.away()
	}
}

// watchEvery is how often a visitor who has sent all, and waits for the answer, is
// looked at: nothing that is read can tell any more that they went away.
const watchEvery = 250 * time.Millisecond

func (c *visitorConn) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for range tick.C {
		c.mu.Lock()
		over := c.away == nil || c.gone
		if !over && wasReset(c.socket()) {
			c.goneAway()
			over = true
		}
		c.mu.Unlock()
		if over {
			return
		}
	}
}

// CloseWrite ends what is sent to the visitor, and not what they send.
func (c *visitorConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// lifetime gives a context for one request that ends when the visitor has gone
// away, and not when they have sent all. done is to be called when it is answered. Over
// HTTP/2 the request's own context is that.
func lifetime(in *http.Request) (life context.Context, done func()) {
	ctx := in.Context()
	if in.ProtoMajor > 1 {
		return ctx, func() {}
	}
	c, ok := ctx.Value(visitorKey{}).(*visitorConn)
	if !ok {
		return ctx, func() {}
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		cancel()
	}
	c.away = cancel
	if c.ended && !c.gone {
		go c.watch()
	}
	return life, func() {
		c.mu.Lock()
		c.away = nil
		c.mu.Unlock()
		cancel()
	}
}
