//go:build unix

package transport

import (
	"fmt"
	"net"
	"syscall"
)

// promptWriter writes to a socket what it takes at once, and never waits for it.
// One goroutine at a time may use it.
type promptWriter struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // tryWrite, so that it is made once

	b   []byte
	n   int
	err error // of tryWrite
}

// newPromptWriter gives nil where the connection is no plain socket.
func newPromptWriter(conn net.Conn) *promptWriter {
	raw := rawConn(conn)
	if raw == nil {
		return nil
	}
	w := &promptWriter{raw: raw}
	w.try = w.tryWrite
	return w
}

// write gives how much of b the socket has taken, which is not an error when it
// is less than all.
func (w *promptWriter) write(b []byte) (int, error) {
	w.b, w.n, w.err = b, 0, nil
	err := w.raw.Write(w.try)
	w.b = nil
	if err == nil {
		err = w.err
	}
	if err != nil {
		return w.n, fmt.Errorf("write: %w", err)
	}
	return w.n, nil
}

// tryWrite writes once and tells that there is nothing to wait for.
func (w *promptWriter) tryWrite(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), w.b)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
		case err != nil:
			w.err = err
		default:
			w.n = n
		}
		return true
	}
}
