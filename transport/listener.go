package transport

import (
	"context"
	"net"
)

// Listener gives the sessions that peers begin. Closing it does not end the accepted
// sessions.
type Listener interface {
	// Accept waits for the next session. It fails with net.ErrClosed after Close.
	Accept(ctx context.Context) (Session, error)
	// Addr is the address at which peers reach the listener.
	Addr() net.Addr
	// Close ends the listener and waits until all of it has ended. It may be repeated.
	Close() error
}
