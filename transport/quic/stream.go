package quic

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/tunnox-net/tunnox/transport"
)

// stream is one QUIC stream.
type stream struct {
	s *session
	q *quicgo.Stream

	writing sync.Mutex // held by a Write, and by what ends the write side

	mu       sync.Mutex
	closed   bool      // Close was called
	reset    bool      // Reset or ResetInOrder was called
	deaf     bool      // StopRead was called
	fin      bool      // CloseWrite was called
	readBy   time.Time // the program's deadline
	peeking  bool      // OnRead waits; it has a deadline of its own
	readOver bool      // nothing more will be read
	sentOver bool      // nothing more will be written
}

func newStream(s *session, q *quicgo.Stream) *stream {
	st := &stream{s: s, q: q}
	// The context ends with the write side, also when the peer says that it reads no more.
	context.AfterFunc(q.Context(), func() { st.over(false, true) })
	return st
}

// over records which sides have ended. A stream without sides does not count any more.
func (st *stream) over(read, sent bool) {
	st.mu.Lock()
	st.readOver, st.sentOver = st.readOver || read, st.sentOver || sent
	gone := st.readOver && st.sentOver
	st.mu.Unlock()
	if gone {
		st.s.mu.Lock()
		delete(st.s.streams, st)
		st.s.mu.Unlock()
	}
}

// Read reads what has come.
func (st *stream) Read(b []byte) (int, error) {
	n, err := st.q.Read(b)
	if n > 0 {
		st.s.received(n)
	}
	if err != nil {
		err = st.readErr(err)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			st.over(true, errors.Is(err, transport.ErrReset) && !errors.Is(err, transport.ErrStopped))
		}
	}
	return n, err
}

// readErr is the error that a Read returns for one of QUIC's.
func (st *stream) readErr(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	st.mu.Lock()
	closed, reset, deaf := st.closed || st.deaf, st.reset, st.deaf
	st.mu.Unlock()
	var ended *quicgo.StreamError
	switch {
	case st.s.Err() != nil:
		return st.s.Err()
	case reset:
		return transport.ErrReset
	case closed || deaf:
		return net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.As(err, &ended):
		return transport.ErrReset
	}
	return st.s.why(err)
}

// Write writes, as fast as the peer and the path allow.
func (st *stream) Write(b []byte) (int, error) {
	st.writing.Lock()
	defer st.writing.Unlock()
	if err := st.mayWrite(); err != nil {
		return 0, err
	}
	if len(b) == 0 {
		return 0, nil
	}
	n, err := st.q.Write(b)
	if err != nil {
		err = st.writeErr(err)
	}
	return n, err
}

// mayWrite is the error of a Write that has nothing to do with QUIC.
func (st *stream) mayWrite() error {
	if err := st.s.Err(); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.reset && !st.closed:
		return transport.ErrReset
	case st.closed || st.fin:
		return net.ErrClosed
	}
	return nil
}

// writeErr is the error that a Write returns for one of QUIC's.
func (st *stream) writeErr(err error) error {
	if ours := st.mayWrite(); ours != nil {
		return ours
	}
	var ended *quicgo.StreamError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.As(err, &ended) && ended.ErrorCode == codeStopped:
		return transport.ErrStopped
	case errors.As(err, &ended):
		return transport.ErrReset
	}
	return st.s.why(err)
}

// why is the session's end, if err comes from it.
func (s *session) why(err error) error {
	if s.conn.Context().Err() == nil {
		return err
	}
	<-s.done // comes with the connection's end
	return s.Err()
}

// endWrite wakes a Write that waits, and ends the write side when it has returned. QUIC
// wants no end beside a Write.
func (st *stream) endWrite(end func()) {
	_ = st.q.SetWriteDeadline(time.Unix(1, 0))
	st.writing.Lock()
	defer st.writing.Unlock()
	end()
	st.over(false, true)
}

// CloseWrite ends the write side behind what was written.
func (st *stream) CloseWrite() error {
	if err := st.s.Err(); err != nil {
		return err
	}
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return net.ErrClosed
	}
	again := st.fin || st.reset
	st.fin = true
	st.mu.Unlock()
	if !again {
		st.endWrite(func() { _ = st.q.Close() }) // fails only if the peer reads no more
	}
	return nil
}

// Close ends both sides. The peer still gets what was written.
func (st *stream) Close() error {
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return nil
	}
	st.closed = true
	reset := st.reset
	st.mu.Unlock()
	st.q.CancelRead(codeStopped) // after the end of data it says nothing
	if !reset {
		st.endWrite(func() { _ = st.q.Close() })
	}
	st.over(true, true)
	return nil
}

// StopRead ends the read side: the peer's writes fail from then on.
func (st *stream) StopRead() error {
	st.mu.Lock()
	st.deaf = true
	st.mu.Unlock()
	st.q.CancelRead(codeStopped)
	st.over(true, false)
	return nil
}

// Reset ends both sides at once.
func (st *stream) Reset() error {
	st.mu.Lock()
	done := st.reset || st.readOver && st.sentOver
	st.reset = st.reset || !done
	st.mu.Unlock()
	if done {
		return nil
	}
	st.q.CancelWrite(codeReset)
	st.q.CancelRead(codeReset)
	st.over(true, true)
	return nil
}

// ResetInOrder is Reset behind the data that was written
// (draft-ietf-quic-reliable-stream-reset).
func (st *stream) ResetInOrder() error {
	st.mu.Lock()
	done := st.reset || st.closed || st.readOver && st.sentOver
	st.reset = st.reset || !done
	st.mu.Unlock()
	if done {
		return nil
	}
	st.endWrite(func() {
		st.q.SetReliableBoundary()
		st.q.CancelWrite(codeReset)
	})
	st.q.CancelRead(codeReset)
	st.over(true, true)
	return nil
}

// OnRead makes do be called once a Read would not wait. A goroutine waits for that,
// because quic-go tells nobody.
func (st *stream) OnRead(do func()) (now func()) {
	st.mu.Lock()
	st.peeking = true
	st.mu.Unlock()
	go func() {
		_, _ = st.q.Peek(make([]byte, 1)) // whatever it returns, a Read returns it too, or at once
		st.mu.Lock()
		st.peeking = false
		_ = st.q.SetReadDeadline(st.readBy) // now has changed it
		st.mu.Unlock()
		do()
	}()
	return func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.peeking {
			_ = st.q.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// OnReset makes do be called when the peer reads no more, or the stream has failed. Both
// end the write side, as CloseWrite of this side does, which calls nothing.
func (st *stream) OnReset(do func()) (stop func()) {
	cancel := context.AfterFunc(st.q.Context(), func() {
		st.mu.Lock()
		ours := st.fin && !st.reset
		st.mu.Unlock()
		if !ours || st.s.Err() != nil {
			do()
		}
	})
	return func() { cancel() }
}

// SetReadDeadline bounds reads.
func (st *stream) SetReadDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.readBy = t
	return st.q.SetReadDeadline(t)
}

// SetWriteDeadline bounds writes, until the write side ends.
func (st *stream) SetWriteDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed || st.fin || st.reset {
		return nil
	}
	return st.q.SetWriteDeadline(t)
}

// SetDeadline bounds reads and writes.
func (st *stream) SetDeadline(t time.Time) error {
	_ = st.SetReadDeadline(t)
	return st.SetWriteDeadline(t)
}

// LocalAddr is the local address of the session's connection.
func (st *stream) LocalAddr() net.Addr { return st.s.conn.LocalAddr() }

// RemoteAddr is the peer's address.
func (st *stream) RemoteAddr() net.Addr { return st.s.conn.RemoteAddr() }
