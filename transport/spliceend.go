package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Reset ends a connection at once and lets the peer know that it did not end
// well: a Stream with its Reset, TCP with RST instead of FIN.
func Reset(c net.Conn) error {
	switch c := c.(type) {
	case interface{ Reset() error }:
		return c.Reset()
	case interface{ SetLinger(sec int) error }:
		_ = c.SetLinger(0)
	}
	return c.Close()
}

// ResetInOrder is Reset behind what was written. For a socket it is to be called when
// the system has sent all: before, RST would overtake it.
func ResetInOrder(c net.Conn) error {
	if c, ok := c.(interface{ ResetInOrder() error }); ok {
		return c.ResetInOrder()
	}
	return Reset(c)
}

// Unfinished has the system reset a socket that is closed, by the end of the process
// for example. Splice takes that back when both ways have ended in order.
func Unfinished(c net.Conn) {
	if c, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
}

// finished has the system send what is left when a socket is closed, and then its
// end.
func finished(c net.Conn) {
	if c, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(-1)
	}
}

// unwritten is an error of an end that cannot be written; others are of one that
// cannot be read.
type unwritten struct{ error }

func (u unwritten) Unwrap() error { return u.error }

func isUnwritten(err error) bool {
	_, ok := errors.AsType[unwritten](err)
	return ok
}

// ended ends the flow, with io.EOF or what went wrong. It is called once, and may
// wait where the end that cannot be written is no ReadStopper.
func (f *flow) ended(err error) {
	switch {
	case isUnwritten(err):
		f.noReader(err)
	case err == io.EOF && !f.torn.Load():
		_ = f.dst.CloseWrite() // if it fails the other flow sees why
	default:
		if err == io.EOF {
			err = ErrReset
		}
		f.once.Do(func() { f.err = err })
		f.breaks.Store(true)
		if !f.reverse().breaks.Load() { // then the reverse resets it behind what it wrote
			_ = Reset(f.src) // whoever writes to it is to know
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

// noReader ends the flow when dst cannot be written: src is to say no more. What dst
// has still to say may be much, and its end tells how it has ended.
func (f *flow) noReader(err error) {
	if !errors.Is(err, ErrStopped) {
		f.once.Do(func() { f.err = errors.Unwrap(err) })
		f.reverse().broken(f.dst, err)
	}
	if end, ok := f.src.(ReadStopper); ok {
		_ = end.StopRead() // when it has ended there is nothing to stop
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

// broken notes that the flow's source could not be written.
func (f *flow) broken(src Duplex, err error) {
	_, stream := src.(Stream)
	switch {
	case stream: // its reads fail too
	case errors.Is(err, syscall.EPIPE): // whoever reads is told why, or has been
	case rawConn(src) != nil:
		// The system tells of a reset once, and to the reader then of an end.
		f.torn.Store(true)
	default:
		_ = Reset(src)
	}
}

// lingering is how long a socket's user may still send after the other way has
// ended, before he is reset.
const lingering = time.Second

// discard reads what nobody wants, until the user ends it or the other way has
// ended and the user has had time to notice. To close a socket with something
// unread would reset it, and destroy what is still on its way to the user.
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

// awaitSent waits until the peer's system has all that was written to a socket, or
// has taken nothing for too long.
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

// unsent tells whether there is something to wait for.
func unsent(c net.Conn) bool { return unsentBytes(c) > 0 }
