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
