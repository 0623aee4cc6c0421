//go:build !unix

package transport

import (
	"net"
	"time"
)

// Lane is one end of a lane. This system has no descriptors to read without a wait, so it
// has no lanes: NewLane makes none.
type Lane struct{ *net.TCPConn }

// NewLane closes the connection and returns ErrNoLane.
func NewLane(conn *net.TCPConn) (*Lane, error) {
	_ = conn.Close()
	return nil, ErrNoLane
}

// ReadNow reads nothing.
func (l *Lane) ReadNow([]byte) (int, error) { return 0, ErrNoLane }

// WriteNow writes nothing.
func (l *Lane) WriteNow([][]byte) (int, error) { return 0, ErrNoLane }

// Watch does nothing.
func (l *Lane) Watch(_, _ func()) {}

// AwaitRead waits for nothing.
func (l *Lane) AwaitRead() error { return ErrNoLane }

// StopRead does nothing.
func (l *Lane) StopRead() error { return nil }

// StopWrite does nothing.
func (l *Lane) StopWrite() {}

// Reset closes the connection.
func (l *Lane) Reset() error { return l.Close() }

// Quiet is never true.
func (l *Lane) Quiet() bool { return false }

// SetDeadline does nothing.
func (l *Lane) SetDeadline(time.Time) error { return nil }

const lanesHere = false

func spliceLanes(_, _ *Lane, _ Count) (int64, int64, error) { return 0, 0, ErrNoLane }
