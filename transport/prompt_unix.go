//go:build unix

package transport

import (
	"fmt"
	"net"
	"syscall"
)

// promptWriter writes as many bytes as a socket accepts at once, and never waits for
// the socket. One goroutine at a time may use it.
type promptWriter struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // tryWrite, stored so that the function value is made once

	b   []byte
	n   int
	err error // of tryWrite
}

// newPromptWriter gives nil if the connection is not a plain socket.
func newPromptWriter(conn net.Conn) *promptWriter {
	raw := rawConn(conn)
	if raw == nil {
		return nil
	}
	w := &promptWriter{raw: raw}
	w.try = w.tryWrite
	return w
}

// write gives how much of b the socket has accepted. Less than all of b is not an
// error.
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

// tryWrite writes once. It reports true, so that RawConn.Write does not wait.
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
