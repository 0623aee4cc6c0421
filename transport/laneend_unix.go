//go:build unix

package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Lane is one end of a lane that has left TLS. It is a Prompt, and can wait too. The end of
// the bytes is FIN: who needs to know that nobody has cut them off must say so in them.
// One goroutine at a time may read, and one may write.
type Lane struct {
	conn *net.TCPConn
	raw  syscall.RawConn

	read, write laneWatch
	tryRead     func(fd uintptr) // these two are made once
	tryWrite    func(fd uintptr)

	// The reader's.
	to   []byte
	got  int
	rerr error
	// The writer's.
	from []byte
	put  int
	werr error

	waiting  sync.Mutex // held while a goroutine waits to read
	deaf     atomic.Bool
	ended    atomic.Bool // FIN has come
	died     atomic.Bool // a write got the error of the connection
	finished atomic.Bool // this side has ended its writes
	stopped  atomic.Bool // the peer reads no more
	closing  atomic.Bool
	limit    atomic.Pointer[time.Timer] // of Close
}

var _ interface {
	Prompt
	ReadStopper
} = (*Lane)(nil)

const lanesHere = true

// NewLane makes a lane of a TCP connection.
func NewLane(conn *net.TCPConn) (*Lane, error) {
	raw := rawConn(conn)
	if raw == nil {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	_ = conn.SetDeadline(time.Time{})
	_ = raw.Control(boundLane)
	l := &Lane{conn: conn, raw: raw}
	l.tryRead, l.tryWrite = l.readOnce, l.writeOnce
	l.read.wait = func() { _ = l.AwaitRead() }
	l.write.wait = func() { _ = l.awaitWrite() }
	return l, nil
}

// ReadNow reads bytes that have come already.
func (l *Lane) ReadNow(b []byte) (int, error) {
	if l.deaf.Load() {
		return 0, net.ErrClosed
	}
	return l.readNow(b)
}

func (l *Lane) readNow(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	l.to = b
	err := l.raw.Control(l.tryRead)
	l.to = nil
	switch {
	case err != nil:
		return 0, err
	case l.got > 0:
		return l.got, nil
	case l.rerr == syscall.EAGAIN: //nolint:errorlint // as the system gives it
		l.read.arm()
		return 0, nil
	case l.rerr != nil:
		return 0, laneError("read", l.rerr)
	case l.died.Load() && !l.ended.Load(): // the system tells an error once, and an end to who asks next
		return 0, laneError("read", syscall.ECONNRESET)
	}
	l.ended.Store(true)
	return 0, io.EOF
}

func (l *Lane) readOnce(fd uintptr) {
	for {
		l.got, l.rerr = syscall.Read(int(fd), l.to)
		if l.rerr != syscall.EINTR { //nolint:errorlint // as the system gives it
			return
		}
	}
}

// Read reads bytes from the peer, and waits if there are none.
func (l *Lane) Read(b []byte) (int, error) {
	for {
		n, err := l.ReadNow(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		if err := l.AwaitRead(); err != nil {
			return 0, err
		}
	}
}

// AwaitRead waits until ReadNow would return bytes or an error, or until the deadline.
func (l *Lane) AwaitRead() error {
	l.waiting.Lock()
	defer l.waiting.Unlock()
	if l.deaf.Load() {
		return net.ErrClosed
	}
	return l.awaitRead()
}

func (l *Lane) awaitRead() error {
	return l.raw.Read(func(fd uintptr) bool { return polled(fd, unix.POLLIN) })
}

func (l *Lane) awaitWrite() error {
	return l.raw.Write(func(fd uintptr) bool { return polled(fd, unix.POLLOUT) })
}

// polled tells whether a descriptor is ready. The runtime's poller tells of changes only.
func polled(fd uintptr, events int16) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(p, 0)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}

// WriteNow writes as many bytes of the pieces as the system takes.
func (l *Lane) WriteNow(pieces [][]byte) (n int, err error) {
	if l.stopped.Load() {
		return 0, ErrStopped
	}
	for _, b := range pieces {
		for len(b) > 0 {
			l.from = b
			err := l.raw.Control(l.tryWrite)
			l.from = nil
			switch {
			case err != nil:
				return n, err
			case l.werr == syscall.EAGAIN: //nolint:errorlint // as the system gives it
				l.write.arm()
				return n, nil
			case l.werr != nil:
				return n, l.unwritten(l.werr)
			}
			n, b = n+l.put, b[l.put:]
		}
	}
	return n, nil
}

func (l *Lane) writeOnce(fd uintptr) {
	for {
		l.put, l.werr = syscall.Write(int(fd), l.from)
		if l.werr != syscall.EINTR { //nolint:errorlint // as the system gives it
			return
		}
	}
}

// Write writes all of b, and waits for room.
func (l *Lane) Write(b []byte) (int, error) {
	if l.stopped.Load() {
		return 0, ErrStopped
	}
	if len(b) == 0 {
		return 0, nil
	}
	n, err := l.conn.Write(b)
	switch {
	case err == nil || errors.Is(err, net.ErrClosed):
		return n, err
	case l.stopped.Load():
		return n, ErrStopped
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, err
	}
	return n, l.unwritten(err)
}

// unwritten is the error of a write that failed, not for an end of this side's own.
func (l *Lane) unwritten(err error) error {
	if !l.finished.Load() {
		l.died.Store(true)
	}
	return laneError("write", err)
}

// laneError is the error of a lane that has died.
func laneError(what string, err error) error {
	return fmt.Errorf("%w: %s a lane: %w", ErrReset, what, err)
}

// Watch sets the hooks. The goroutines that call them run only while there is nothing to
// read, or no room.
func (l *Lane) Watch(onRead, onRoom func()) {
	if onRead != nil {
		l.read.hook.Store(&onRead)
	}
	if onRoom != nil {
		l.write.hook.Store(&onRoom)
	}
}

// CloseWrite sends FIN behind the bytes that were written.
func (l *Lane) CloseWrite() error {
	l.finished.Store(true)
	return l.conn.CloseWrite()
}

// StopWrite makes writes fail with ErrStopped from now on: the peer has said, elsewhere,
// that it reads no more.
func (l *Lane) StopWrite() {
	l.stopped.Store(true)
	_ = l.conn.SetWriteDeadline(time.Unix(1, 0))
}

// StopRead makes reads fail from now on, and drops what comes: if it were left in the
// system, closing the lane would destroy the bytes that are on their way to the peer.
func (l *Lane) StopRead() error {
	if l.deaf.Swap(true) {
		return nil
	}
	_ = l.conn.SetReadDeadline(time.Unix(1, 0)) // wakes who waits
	go l.drop()
	return nil
}

// drop reads to the end. If the lane is being closed it then closes the socket.
func (l *Lane) drop() {
	l.waiting.Lock() // until who waited has gone: it would not notice a deadline that is taken back
	defer l.waiting.Unlock()
	_ = l.conn.SetReadDeadline(time.Time{})
	seg := newSegment(smallRead)
	defer seg.free()
	for {
		if n, err := l.conn.Read(seg.buf); n == 0 && err != nil {
			break
		}
	}
	l.ended.Store(true)
	if l.closing.Load() { // after ended is set, as Close does it the other way round
		_ = l.conn.Close()
		l.unlimit()
	}
}

// closeLimit is how long a closed lane waits for the end of the peer's bytes.
const closeLimit = 10 * time.Second

// Close ends both sides. The peer still gets the bytes that were written. Close does not
// wait.
func (l *Lane) Close() error {
	if l.closing.Swap(true) {
		return nil
	}
	_ = l.CloseWrite()
	if l.ended.Load() {
		return l.conn.Close()
	}
	l.limit.Store(time.AfterFunc(closeLimit, func() { _ = l.Reset() }))
	_ = l.StopRead()
	if l.ended.Load() { // perhaps before there was a limit to stop
		l.unlimit()
		return l.conn.Close()
	}
	return nil
}

// Reset ends both sides at once.
func (l *Lane) Reset() error {
	l.closing.Store(true)
	l.unlimit()
	_ = l.conn.SetLinger(0)
	return l.conn.Close()
}

// unlimit gives back the timer of Close.
func (l *Lane) unlimit() {
	if timer := l.limit.Load(); timer != nil {
		timer.Stop()
	}
}

// Quiet tells whether the peer has sent nothing and is still there.
func (l *Lane) Quiet() bool {
	quiet := false
	err := l.raw.Control(func(fd uintptr) { quiet = !polled(fd, unix.POLLIN) })
	return err == nil && quiet
}

// SetDeadline makes reads and writes that wait fail from t on.
func (l *Lane) SetDeadline(t time.Time) error {
	return errors.Join(l.SetReadDeadline(t), l.SetWriteDeadline(t))
}

// SetReadDeadline makes reads that wait fail from t on.
func (l *Lane) SetReadDeadline(t time.Time) error {
	if l.deaf.Load() {
		return nil
	}
	return l.conn.SetReadDeadline(t)
}

// SetWriteDeadline makes writes that wait fail from t on.
func (l *Lane) SetWriteDeadline(t time.Time) error {
	if l.stopped.Load() {
		return nil
	}
	return l.conn.SetWriteDeadline(t)
}

// LocalAddr is the socket's.
func (l *Lane) LocalAddr() net.Addr { return l.conn.LocalAddr() }

// RemoteAddr is the socket's.
func (l *Lane) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }

// laneWatch calls a hook when a lane has become ready.
type laneWatch struct {
	state atomic.Int32
	hook  atomic.Pointer[func()]
	wait  func()
}

// States of a laneWatch.
const (
	watchIdle    = iota
	watchWaiting // a goroutine waits
	watchCalling // the goroutine calls the hook
	watchAgain   // the same, and it must wait again after that
)

// arm has the hook called when the lane is ready.
func (w *laneWatch) arm() {
	if w.hook.Load() == nil {
		return
	}
	for {
		switch w.state.Load() {
		case watchIdle:
			if w.state.CompareAndSwap(watchIdle, watchWaiting) {
				go w.run()
				return
			}
		case watchCalling:
			if w.state.CompareAndSwap(watchCalling, watchAgain) {
				return
			}
		default:
			return
		}
	}
}

func (w *laneWatch) run() {
	for {
		w.wait()
		w.state.Store(watchCalling)
		(*w.hook.Load())()
		if w.state.CompareAndSwap(watchCalling, watchIdle) {
			return
		}
		w.state.Store(watchWaiting)
	}
}
