package ingress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Bounds of visitors over HTTP/3.
const (
	maxQUIC        = 8192 // connections
	maxQUICStreams = 128  // requests of a connection at once

	// verifyFrom is the number of handshakes under way from which on a visitor's address
	// is verified by a retry, which costs a round trip: others may lie about it.
	verifyFrom = 64
	// lastWords is how long a visitor has, when the server leaves, to get the end of the
	// last answer: nothing tells when it has arrived.
	lastWords = time.Second
)

// AltSvc is the value of Config.AltSvc for HTTP/3 at a port.
func AltSvc(port int) string { return `h3=":` + strconv.Itoa(port) + `"; ma=86400` }

// ServeHTTP3 serves visitors over HTTP/3 from the packets of socket until Shutdown or
// Close, which is no error, and closes the socket. What holds for visitors over TLS holds
// for them, but a host that Config.Pass has a way for is refused: browsers come over TLS
// then.
func (s *Server) ServeHTTP3(socket net.PacketConn, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) error {
	defer func() { _ = socket.Close() }()
	v := &quicVisitors{server: s, h3: &http3.Server{Handler: http.HandlerFunc(s.serveStream), MaxHeaderBytes: maxHeader, IdleTimeout: s.config.IdleTimeout}}
	over := &quic.Transport{Conn: socket, VerifySourceAddress: func(net.Addr) bool { return v.strangers.Load() >= verifyFrom }}
	defer func() { _ = over.Close() }()
	config := http3.ConfigureTLSConfig(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: certificate,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return nil, s.unpassed(hello) }})
	l, err := over.ListenEarly(config, &quic.Config{HandshakeIdleTimeout: s.config.HeaderTimeout / 2, MaxIdleTimeout: s.config.IdleTimeout,
		MaxIncomingStreams: maxQUICStreams, MaxIncomingUniStreams: 8})
	if err != nil {
		return fmt.Errorf("listen for HTTP/3: %w", err)
	}
	var running sync.WaitGroup
	for {
		conn, err := l.Accept(s.leaving)
		if err != nil {
			break
		}
		if v.connections.Load() >= maxQUIC || !s.enter() {
			running.Go(func() { _ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "") })
			continue
		}
		v.connections.Add(1)
		v.strangers.Add(1)
		running.Go(func() {
			defer s.upgraded.Done()
			defer v.connections.Add(-1)
			v.serve(conn)
		})
	}
	_ = l.Close() // takes no new connections; the present ones stay
	running.Wait()
	if s.leaving.Err() == nil {
		return errors.New("listen for HTTP/3: the socket has failed")
	}
	return nil
}

// unpassed refuses a visitor of a host whose TLS is passed through.
func (s *Server) unpassed(hello *tls.ClientHelloInfo) error {
	host, named := Host(hello.ServerName)
	if !named || s.config.Pass == nil {
		return nil
	}
	passage, err := s.config.Pass(hello.Context(), host, hello.Conn.RemoteAddr().String())
	if passage != nil || err != nil && !errors.Is(err, ErrNoSite) {
		return errRefused
	}
	return nil
}

// enter counts an exchange outside of net/http, unless the server takes no more.
func (s *Server) enter() bool {
	s.door.Lock()
	defer s.door.Unlock()
	if s.leaving.Err() != nil {
		return false
	}
	s.upgraded.Add(1)
	return true
}

// leave lets nobody in from now on.
func (s *Server) leave() {
	s.door.Lock()
	defer s.door.Unlock()
	s.left()
}

// quicVisitors are the connections of one socket.
type quicVisitors struct {
	server      *Server
	h3          *http3.Server
	connections atomic.Int64
	strangers   atomic.Int64 // whose handshakes are under way
}

// serve serves one connection until its end.
func (v *quicVisitors) serve(conn *quic.Conn) {
	known := make(chan struct{})
	go func() {
		defer close(known)
		select {
		case <-conn.HandshakeComplete():
		case <-conn.Context().Done():
		}
		v.strangers.Add(-1)
	}()
	defer func() { <-known }()
	end := func() { _ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") }
	h3, err := v.h3.NewRawServerConn(conn)
	if err != nil {
		end()
		return
	}
	var streams sync.WaitGroup
	defer streams.Wait()
	defer end() // before the wait, which would be for the visitor
	streams.Go(func() {
		for {
			in, err := conn.AcceptUniStream(conn.Context())
			if err != nil {
				return
			}
			streams.Go(func() { h3.HandleUnidirectionalStream(in) })
		}
	})
	// A stream that was reset makes room for another while its request still ends here.
	slots := make(chan struct{}, maxQUICStreams)
	for {
		stream, err := conn.AcceptStream(v.server.leaving)
		if err != nil {
			break
		}
		select {
		case slots <- struct{}{}:
			streams.Go(func() {
				defer func() { <-slots }()
				_ = stream.SetReadDeadline(time.Now().Add(v.server.config.HeaderTimeout)) // serveStream takes it away
				h3.HandleRequestStream(stream)
			})
		default:
			reject(stream)
		}
	}
	if conn.Context().Err() == nil {
		v.finish(conn, slots)
	}
}

// finish lets the requests of a connection end, and takes no more.
func (v *quicVisitors) finish(conn *quic.Conn, slots chan struct{}) {
	late, done := context.WithCancel(v.server.ctx)
	defer done()
	go func() {
		for {
			stream, err := conn.AcceptStream(late)
			if err != nil {
				return
			}
			reject(stream)
		}
	}()
	for range cap(slots) {
		select {
		case slots <- struct{}{}:
		case <-conn.Context().Done():
			return
		case <-v.server.ctx.Done():
			return
		}
	}
	pause := time.NewTimer(lastWords)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-conn.Context().Done():
	case <-v.server.ctx.Done():
	}
}

// reject refuses a request that nothing was done for: the visitor may send it again.
func reject(stream *quic.Stream) {
	stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
	stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
}

// serveStream is serve for a request over HTTP/3, of which quic-go does not say that it
// has no body.
func (s *Server) serveStream(w http.ResponseWriter, in *http.Request) {
	stream := http.NewResponseController(w)
	if in.ContentLength < 0 && idempotent(in.Method) {
		first := make([]byte, 1)
		switch n, err := io.ReadFull(in.Body, first); {
		case errors.Is(err, io.EOF) && n == 0:
			in.Body, in.ContentLength = http.NoBody, 0
		case err != nil:
			panic(http.ErrAbortHandler) // the request never came to its end
		default:
			in.Body = restored{io.MultiReader(bytes.NewReader(first), in.Body), in.Body}
		}
	}
	_ = stream.SetReadDeadline(time.Time{}) // the head has come; an upload may take a day
	s.serve(w, in)
}

// restored is a body of which the beginning was read.
type restored struct {
	io.Reader
	io.Closer
}
