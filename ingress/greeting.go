package ingress

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// Passage takes over a visitor's connection, whose first bytes were read already. After
// an error the connection is as it was.
type Passage func(visitor net.Conn, first []byte) error

// maxHello bounds the bytes that are read from a visitor before the visitor's host is
// known. A hello with the key shares of post-quantum methods has about 2 KB.
const maxHello = 16 << 10

// Alerts of TLS that a visitor is refused with (RFC 8446, section 6).
const (
	alertInternalError    = 80
	alertMissingExtension = 109
	alertUnrecognizedName = 112
)

// Why a handshake goes no further: for crypto/tls only, which stops at any error.
var (
	errPassed  = errors.New("ingress: the visitor is passed through")
	errRefused = errors.New("ingress: the visitor is refused")
	errLong    = errors.New("ingress: the hello is too long")
)

// greeting is a visitor's connection at the beginning of TLS. crypto/tls reads the hello
// from it, because a parser of ours could understand a hello differently than services do.
// The bytes that were read are kept for the service until it is known who opens the
// visitor's TLS. Nothing of ours is written to a visitor who is passed through.
type greeting struct {
	net.Conn
	read    []byte // what was read, until decided
	decided bool
	passage Passage // for a visitor who is passed through
	alert   byte    // for one who is refused, 0 = crypto/tls has said it
}

// Read is called by the handshake until decided, and by one reader at a time then.
func (g *greeting) Read(b []byte) (int, error) {
	if g.decided {
		return g.Conn.Read(b)
	}
	room := maxHello - len(g.read)
	if room == 0 {
		return 0, errLong
	}
	n, err := g.Conn.Read(b[:min(len(b), room)])
	g.read = append(g.read, b[:n]...)
	return n, err
}

// Write lets crypto/tls say what is wrong with a hello. It writes nothing to a visitor who
// is passed through.
func (g *greeting) Write(b []byte) (int, error) {
	if g.passage != nil || g.alert != 0 {
		return len(b), nil
	}
	return g.Conn.Write(b)
}

// route decides who opens a visitor's TLS. An error ends the handshake here. opens tells
// that there are certificates.
func (s *Server) route(hello *tls.ClientHelloInfo, opens bool) error {
	g, ok := hello.Conn.(*greeting)
	if !ok {
		return errRefused
	}
	host, named := Host(hello.ServerName)
	var err error
	if named && s.config.Pass != nil {
		g.passage, err = s.config.Pass(hello.Context(), host, g.RemoteAddr().String())
	}
	switch {
	case g.passage != nil:
		return errPassed
	case opens: // an answer over HTTP can say more than an alert
		g.read, g.decided = nil, true
		return nil
	case hello.ServerName == "":
		g.alert = alertMissingExtension
	case err == nil || errors.Is(err, ErrNoSite):
		g.alert = alertUnrecognizedName
	default:
		s.config.Logger.Debug("a visitor is refused", "host", host, "error", err)
		g.alert = alertInternalError
	}
	return errRefused
}

// pass hands the visitor on, or says that the service cannot be reached.
func (g *greeting) pass() {
	_ = g.SetDeadline(time.Time{})
	if err := g.passage(g.Conn, g.read); err != nil {
		g.alert = alertInternalError
		if errors.Is(err, ErrNoSite) { // it ended since it was found
			g.alert = alertUnrecognizedName
		}
		g.refuse()
	}
}

// farewell is how long a refused visitor has to close the connection. A connection that
// is closed while bytes of the visitor are unread is reset, and a reset can overtake the
// alert.
const farewell = time.Second

// refuse ends the connection of a visitor who goes nowhere.
func (g *greeting) refuse() {
	if g.alert != 0 {
		_ = g.SetDeadline(time.Now().Add(farewell))
		_, err := g.Conn.Write([]byte{21, 3, 3, 0, 2, 2, g.alert}) // a record with a fatal alert
		if half, ok := g.Conn.(interface{ CloseWrite() error }); ok && err == nil && half.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, g.Conn, maxHello)
		}
	}
	_ = g.Conn.Close()
}
