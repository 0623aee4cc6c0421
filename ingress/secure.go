package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxHandshakes bounds the TLS handshakes under way. Further visitors are closed.
const maxHandshakes = 4096

// ServeTLS serves visitors over TLS until Shutdown or Close, which is no error. Visitors
// choose between HTTP/2 and HTTP/1.1. A handshake has as much time as a request's head.
// Hosts that Config.Pass has a way for are passed through. Without certificate all
// others are refused.
func (s *Server) ServeTLS(l net.Listener, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) error {
	secure := &secureListener{Listener: l, patience: s.config.HeaderTimeout, ready: make(chan net.Conn), done: make(chan struct{}),
		slots:  make(chan struct{}, maxHandshakes),
		config: &tls.Config{GetCertificate: certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}}
	if s.config.Pass != nil || s.config.Challenges != nil {
		secure.config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if err := s.route(hello, certificate != nil); err != nil {
				return nil, err
			}
			return s.challengeConfig(hello), nil
		}
	}
	secure.running.Go(secure.accept)
	err := s.http.Serve(secure)
	secure.running.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// secureListener makes the handshakes. net/http would make them too, but it must be
// given a connection whose first bytes are the request's: [framing] reads them.
type secureListener struct {
	net.Listener
	config   *tls.Config
	patience time.Duration
	slots    chan struct{}

	ready   chan net.Conn
	once    sync.Once
	done    chan struct{} // closed when nobody accepts any more
	err     error         // of the listener; set before done is closed
	running sync.WaitGroup
}

// accept takes connections from the listener and makes each handshake on its own.
func (l *secureListener) accept() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			var passing interface{ Temporary() bool } // too many open files, for example
			if errors.As(err, &passing) && passing.Temporary() {
				pause := time.NewTimer(50 * time.Millisecond)
				select {
				case <-pause.C:
					continue
				case <-l.done:
					pause.Stop()
				}
			}
			l.end(err)
			return
		}
		select {
		case l.slots <- struct{}{}:
			l.running.Go(func() {
				pass := l.handshake(c)
				<-l.slots // the way to a service has bounds of its own
				if pass != nil {
					pass()
				}
			})
		default:
			_ = c.Close()
		}
	}
}

// handshake makes the handshake of a connection and hands the connection on, or closes it.
// pass is what is left to do for a connection that is passed through.
func (l *secureListener) handshake(c net.Conn) (pass func()) {
	ctx, cancel := context.WithTimeout(context.Background(), l.patience)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-l.done:
			cancel()
		case <-stop:
		}
	}()
	secure, pass := l.greet(ctx, c)
	if secure == nil {
		return pass
	}
	var visitor net.Conn = secure
	if secure.ConnectionState().NegotiatedProtocol != "h2" {
		visitor = &visitorConn{Conn: secure, secure: secure, framing: newFraming(secure)}
	}
	select {
	case l.ready <- visitor:
	case <-l.done:
		_ = c.Close()
	}
	return nil
}

// greet makes a handshake. Without one, pass is what is left to do for a visitor who is
// passed through, and nil for one whose connection has ended.
func (l *secureListener) greet(ctx context.Context, c net.Conn) (secure *tls.Conn, pass func()) {
	greeting := &greeting{Conn: c, decided: l.config.GetConfigForClient == nil}
	secure = tls.Server(greeting, l.config)
	switch {
	case secure.HandshakeContext(ctx) == nil:
		if secure.ConnectionState().NegotiatedProtocol == challengeProtocol {
			_ = secure.Close() // the certificate was all that the authority wants to see
			return nil, nil
		}
		return secure, nil
	case greeting.passage != nil:
		return nil, greeting.pass
	}
	greeting.refuse()
	return nil, nil
}

// end makes Accept fail.
func (l *secureListener) end(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.done)
	})
}

// Accept implements [net.Listener].
func (l *secureListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.done:
		return nil, l.err
	}
}

// Close implements [net.Listener].
func (l *secureListener) Close() error {
	l.end(net.ErrClosed)
	return l.Listener.Close()
}

// serverName gives the host of the TLS handshake under a request; secure is false when
// there was none.
func serverName(in *http.Request) (name string, secure bool) {
	if in.TLS != nil { // HTTP/2
		return in.TLS.ServerName, true
	}
	if c, ok := in.Context().Value(visitorKey{}).(*visitorConn); ok && c.secure != nil {
		return c.secure.ConnectionState().ServerName, true
	}
	return "", false
}

// named reports whether a TLS handshake was made for a host. A visitor who names another
// host in the request would reach it under the certificate and the rules of the first.
func named(serverName, host string) bool {
	name, ok := Host(serverName)
	return ok && name == host
}
