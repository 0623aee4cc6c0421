package transport

import (
	"context"
	"net"
)

// Listener gives the sessions that peers begin. Closing it leaves the sessions
// that were accepted alone.
type Listener interface {
	// Accept waits for the next session. It fails with net.ErrClosed after Close.
	Accept(ctx context.Context) (Session, error)
	// Addr is where peers reach the listener.
	Addr() net.Addr
	// Close ends the listener and waits until nothing of it runs. It is safe to
	// repeat.
	Close() error
}

// Admit tells the listener a session came from that the peer has proved who it
// is. Until then the session counts against the listener's caps for strangers
// and is closed when it takes too long. It does nothing for other sessions.
func Admit(s Session) {
	if a, ok := s.(interface{ admit() }); ok {
		a.admit()
	}
}
