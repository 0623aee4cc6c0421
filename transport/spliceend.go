package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Reset ends a connection at once and tells the peer that it ended early: it calls the
// Reset of a Stream, and closes TCP with RST instead of FIN.
func Reset(c net.Conn) error {
	switch c := c.(type) {
	case interface{ Reset() error }:
		return c.Reset()
	case interface{ SetLinger(sec int) error }:
		_ = c.SetLinger(0)
	}
	return c.Close()
}

// ResetInOrder is Reset after the written bytes. For a socket, call it only after the
// system has sent everything: RST would overtake the unsent bytes.
func ResetInOrder(c net.Conn) error {
	if c, ok := c.(interface{ ResetInOrder() error }); ok {
		return c.ResetInOrder()
	}
	return Reset(c)
}

// Unfinished makes the system reset the socket when it is closed, for example by the end
// of the process. Splice undoes this when both directions have ended in order.
func Unfinished(c net.Conn) {
	if c, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
}

// finished makes the system send the rest of the bytes when the socket is closed, and
// then FIN.
func finished(c net.Conn) {
	if c, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(-1)
	}
}

// unwritten is the error of a write. All other errors of a flow are errors of a read.
type unwritten struct{ error }

func (u unwritten) Unwrap() error { return u.error }

func isUnwritten(err error) bool {
	_, ok := errors.AsType[unwritten](err)
	return ok
}

// ended ends the flow, with io.EOF or an error. It is called once. It may wait if dst
// cannot be written and src is not a ReadStopper.
func (f *flow) ended(err error) {
	switch {
	case isUnwritten(err):
		f.noReader(err)
	case errors.Is(err, io.EOF) && !f.torn.Load():
		_ = f.dst.CloseWrite() // if this fails, the other flow gets the error
	default:
		if errors.Is(err, io.EOF) {
			err = ErrReset
		}
		f.once.Do(func() { f.err = err })
		f.breaks.Store(true)
		if !f.reverse().breaks.Load() { // otherwise the reverse flow resets src after its bytes
			_ = Reset(f.src) // so that the other flow's writes to src fail
		}
		if unsent(f.dst) {
			go func() {
				awaitSent(f.dst)
				_ = ResetInOrder(f.dst)
				f.over()
			}()
			return
		}
		_ = ResetInOrder(f.dst)
	}
	f.over()
}

func (f *flow) over() {
	if f.left.Add(-1) == 0 {
		f.done()
	}
}

// noReader ends the flow when dst cannot be written. src is told to send no more. The
// reverse flow goes on: dst may still send many bytes, and reading them to the end shows
// how dst has ended.
func (f *flow) noReader(err error) {
	if !errors.Is(err, ErrStopped) {
		f.once.Do(func() { f.err = errors.Unwrap(err) })
		f.reverse().broken(f.dst, err)
	}
	if end, ok := f.src.(ReadStopper); ok {
		_ = end.StopRead() // an error means that src has ended and needs no stop
	} else {
		f.discard()
	}
}

// reverse is the other flow.
func (f *flow) reverse() *flow {
	if f == f.forth {
		return f.back
	}
	return f.forth
}

// broken records that a write to the flow's source failed.
func (f *flow) broken(src Duplex, err error) {
	_, stream := src.(Stream)
	switch {
	case stream: // reads of a stream fail too
	case errors.Is(err, syscall.EPIPE): // the reader gets the reason, or has got it
	case rawConn(src) != nil:
		// The system reports a reset once. The write got it, so a read would return an
		// end instead.
		f.torn.Store(true)
	default:
		_ = Reset(src)
	}
}

// lingering is how long the program at a socket's other end may still send after the
// other direction has ended. After that its connection is reset.
const lingering = time.Second

// discard reads and drops the bytes of src. It ends when src ends, or when the other
// direction has ended and the program at the other end had time to notice. Closing a
// socket with unread bytes would reset it, and destroy the bytes that are still on
// their way to that program.
func (f *flow) discard() {
	seg := newSegment(smallRead)
	defer seg.free()
	for f.left.Load() > 1 {
		_ = f.src.SetReadDeadline(time.Now().Add(lingering))
		if _, err := f.src.Read(seg.buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
	_ = f.src.SetReadDeadline(time.Now().Add(lingering))
	for {
		if _, err := f.src.Read(seg.buf); err != nil {
			return
		}
	}
}

// Limits of the wait for a socket's bytes to be sent.
const (
	firstLook, lastLook = time.Millisecond, 50 * time.Millisecond
	sendLimit           = 10 * time.Second
)

// awaitSent waits until the peer's system has received everything that was written to a
// socket, or has received nothing for too long.
func awaitSent(c net.Conn) {
	pause, last, moved := firstLook, unsentBytes(c), time.Now()
	for last > 0 && time.Since(moved) < sendLimit {
		time.Sleep(pause)
		pause = min(2*pause, lastLook)
		left := unsentBytes(c)
		if left < last {
			moved = time.Now()
		}
		last = left
	}
}

// unsent reports whether the system still has bytes of c to send.
func unsent(c net.Conn) bool { return unsentBytes(c) > 0 }
