package transport

import (
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// leaveLook is how long a connection may wait for its service before OnLeave looks
	// whether its program is still there. Most connections wait for less.
	leaveLook = 50 * time.Millisecond
	// leaveAfter is how long the end of a program's sending may be old. A program that
	// closes its socket and one that only ends its sending look alike. The latter needs
	// some time to be answered: two lost SYNs cost 3 s (RFC 6298), and so does the first
	// connection after a limit was set, until the other forwarders have said what they
	// hold (directory.Settle).
	leaveAfter = 5 * time.Second
)

// OnLeave makes do be called once, in a goroutine of its own, when the program at the
// other end of a socket has left: it has reset the connection, or it ended its sending
// leaveAfter ago. Until stop returns, no other goroutine may read the socket or set its
// read deadline. On systems other than Linux, do is never called.
func OnLeave(conn net.Conn, do func()) (stop func()) {
	raw := rawConn(conn)
	if raw == nil {
		return func() {}
	}
	w := &leaveWatch{conn: conn, raw: raw, do: do, stopped: make(chan struct{}), done: make(chan struct{})}
	w.timer = time.AfterFunc(leaveLook, w.watch)
	return w.stop
}

// leaveWatch is a call of OnLeave.
type leaveWatch struct {
	conn    net.Conn
	raw     syscall.RawConn
	do      func()
	timer   *time.Timer
	once    sync.Once
	stopped chan struct{}
	done    chan struct{} // closed when watch returns
}

// watch waits in the timer's goroutine until the program has left, or until stop.
func (w *leaveWatch) watch() {
	defer close(w.done)
	var state peerState
	err := w.raw.Read(func(fd uintptr) bool {
		state = peerOf(fd)
		return state != peerHere
	})
	if err != nil {
		return // stopped, or closed by this side
	}
	if state == peerEnded {
		timer := time.NewTimer(leaveAfter)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-w.stopped:
			return
		}
	}
	select {
	case <-w.stopped:
	default:
		w.do()
	}
}

// stop ends the watch and waits until it no longer uses the socket.
func (w *leaveWatch) stop() {
	w.once.Do(func() {
		close(w.stopped)
		if w.timer.Stop() {
			return
		}
		_ = w.conn.SetReadDeadline(time.Unix(1, 0))
		<-w.done
		_ = w.conn.SetReadDeadline(time.Time{})
	})
}

// peerState is what a socket knows of the program at its other end.
type peerState int

const (
	peerHere  peerState = iota
	peerEnded           // it has ended its sending, and may still read
	peerGone            // it has reset the connection
)
