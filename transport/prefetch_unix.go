//go:build unix

package transport

import (
	"fmt"
	"io"
	"net"
	"syscall"
)

// prefetch reads from a socket as much as there is at once. It waits without a
// buffer and gives it back when what it holds has been read.
type prefetch struct {
	raw  syscall.RawConn
	try  func(fd uintptr) bool // tryRead, so that it is made once
	buf  *[]byte
	held []byte // of buf, not yet read
	err  error  // of tryRead
}

// newPrefetch gives nil where the connection is no plain socket.
func newPrefetch(conn net.Conn) *prefetch {
	raw := rawConn(conn)
	if raw == nil {
		return nil
	}
	p := &prefetch{raw: raw}
	p.try = p.tryRead
	return p
}

// fill waits until something is held. The error is io.EOF at the end.
func (p *prefetch) fill() error {
	if p.buf != nil {
		return nil
	}
	if err := p.raw.Read(p.try); err != nil {
		return err
	}
	if p.err != nil {
		return fmt.Errorf("read: %w", p.err)
	}
	if p.buf == nil {
		return io.EOF
	}
	return nil
}

// take copies what is held to b.
func (p *prefetch) take(b []byte) int {
	n := copy(b, p.held)
	p.held = p.held[n:]
	if len(p.held) == 0 {
		p.release()
	}
	return n
}

func (p *prefetch) release() {
	carriedPool.Put(p.buf)
	p.buf, p.held = nil, nil
}

// tryRead fills the buffer if there is something to read, and tells whether it
// knows what there is.
func (p *prefetch) tryRead(fd uintptr) bool {
	p.buf = carriedPool.Get().(*[]byte)
	var n int
	for {
		n, p.err = syscall.Read(int(fd), (*p.buf)[:cap(*p.buf)])
		if p.err != syscall.EINTR {
			break
		}
	}
	if n <= 0 {
		p.release()
		return p.err != syscall.EAGAIN
	}
	p.held = (*p.buf)[:n]
	return true
}

// unread tells whether something has come on the connection that nobody has read, if
// only its end. It is false where that is not known.
func unread(conn net.Conn) (come bool) {
	raw := rawConn(conn)
	if raw == nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { // others may be reading, which Read would wait for
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK) // descriptors of package net do not block
		come = err == nil
	})
	return come
}

// peekByte waits for the first byte of a connection and leaves it there.
func peekByte(raw syscall.RawConn) (byte, error) {
	var b [1]byte
	var n int
	var err error
	waited := raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	switch {
	case waited != nil:
		return 0, waited
	case err != nil:
		return 0, fmt.Errorf("read: %w", err)
	case n == 0:
		return 0, io.EOF
	}
	return b[0], nil
}
