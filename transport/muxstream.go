package transport

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/wait"
)

// muxStream is a stream of a muxSession. It has no buffer unless bytes wait in it. The
// session's lock guards all fields but writing.
type muxStream struct {
	s       *muxSession
	id      uint64     // 0 until the peer is told of the stream
	writing sync.Mutex // held by Write, so that concurrent writes do not mix; taken before the session's lock

	// Reading.
	in       segments // received, not yet read
	readable sync.Cond
	readBy   wait.Deadline
	allowed  int // bytes the peer may still send
	owed     int // bytes read that no window frame has reported yet
	window   int // the sum of allowed, owed and the bytes in in
	surplus  int // bytes above window that the peer may still send, or that wait for the reader
	told     time.Duration
	onRead   hook

	// Writing.
	out      segments // bytes that wait for the writer; their credit is spent
	writable sync.Cond
	writeBy  wait.Deadline
	credit   int // bytes this side may still send
	starved  bool
	onRoom   hook
	next     *muxStream // the next stream in the writer's queue
	queued   uint8      // the queue that the stream is in
	deficit  int        // bytes that the stream may still send in this turn

	theirs            bool  // opened by the peer
	finGot, stopGot   bool  // the peer writes no more; reads no more
	finAsked, finSent bool  // this side writes no more
	closed            bool  // Close was called
	deaf, stopSent    bool  // this side reads no more, and discards what comes
	resets, wasReset  bool  // this side (resets) or the peer (wasReset) has reset the stream after its data
	gone              bool  // the stream has ended for both sides
	failed            error // why the stream ended early
}

// sendBuffer bounds the bytes of one stream that wait for the writer, however large the
// window is: a slow link must not fill the memory.
const sendBuffer = 128 << 10

// maxWindow is the largest window of one stream.
const maxWindow = 4 << 20

func newMuxStream(s *muxSession, id uint64) *muxStream {
	st := &muxStream{s: s, id: id, allowed: startWindow, window: startWindow, credit: startWindow}
	st.readable.L, st.writable.L = &s.mu, &s.mu
	return st
}

// Read reads bytes from the peer, and waits if there are none.
func (st *muxStream) Read(b []byte) (int, error) {
	st.s.mu.Lock()
	defer st.s.release(nil)
	for {
		switch {
		case st.readErr() != nil:
			return 0, st.readErr()
		case st.readBy.Passed():
			return 0, st.readBy.Err()
		case len(b) == 0:
			return 0, nil
		case st.in.size > 0:
			n := st.in.read(b)
			st.consume(n)
			return n, nil
		case st.wasReset:
			return 0, ErrReset
		case st.finGot:
			return 0, io.EOF
		}
		st.readable.Wait()
	}
}

// readErr is the error that a read returns, apart from io.EOF. The caller holds the
// lock.
func (st *muxStream) readErr() error {
	if st.failed == nil && st.resets {
		return ErrReset
	}
	if st.failed == nil && st.deaf {
		return net.ErrClosed
	}
	return st.failed
}

// takeSegment removes and returns the first waiting piece, nil if there is none, or
// io.EOF. The caller owns the piece, and calls consumed after handing the piece on.
func (st *muxStream) takeSegment() (*segment, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	switch {
	case st.readErr() != nil:
		return nil, st.readErr()
	case st.in.size > 0:
		return st.in.pop(), nil
	case st.wasReset:
		return nil, ErrReset
	case st.finGot:
		return nil, io.EOF
	}
	return nil, nil
}

// consumed lets the peer send n bytes more.
func (st *muxStream) consumed(n int, l *later) {
	st.s.mu.Lock()
	defer st.s.release(l)
	st.consume(n)
}

// consume counts n bytes as read, and tells the peer when there are enough for a window
// frame. A window that was used up within a few round trips limits its stream. It is
// doubled as long as the session's budget lasts. The caller holds the lock.
func (st *muxStream) consume(n int) {
	st.mayEnd()
	st.owed += n
	st.repay()
	if st.owed < st.window/2 || st.finGot || st.gone {
		return
	}
	s := st.s
	now := time.Since(s.began)
	more := st.owed
	if fast := now-st.told < 4*s.rtt; fast && st.window < maxWindow && s.mayGrow(st.window, now) {
		more += st.window
		s.extra += st.window
		st.window *= 2
	}
	st.told, st.owed = now, 0
	st.allowed += more
	s.send(appendNumber(s.urgent, frameWindow, st.id, uint32(more)))
}

// Write queues b for the session's writer, piece by piece as the peer's window
// and the stream's buffer allow.
func (st *muxStream) Write(b []byte) (n int, err error) {
	st.writing.Lock()
	defer st.writing.Unlock()
	for {
		room, err := st.waitRoom(1, len(b) == 0)
		if err != nil || len(b) == 0 {
			return n, err
		}
		seg := newSegment(min(room, len(b), maxBody))
		m := seg.append(b[:min(room, len(b))])
		if _, err := st.offer(seg, nil); err != nil {
			seg.free()
			return n, err
		}
		n, b = n+m, b[m:]
		if len(b) == 0 {
			return n, nil
		}
	}
}

// waitRoom waits until at least this many bytes can be queued, and returns how many
// can be. If now is set it does not wait.
func (st *muxStream) waitRoom(least int, now bool) (int, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	for {
		if err := st.writeErr(); err != nil {
			return 0, err
		}
		if st.writeBy.Passed() {
			return 0, st.writeBy.Err()
		}
		if room := st.room(); room >= least || now {
			return room, nil
		}
		st.writable.Wait()
	}
}

// offer queues the segment if there is room; the session then owns the segment.
// Otherwise offer returns false, and onRoom is called when there may be room.
func (st *muxStream) offer(seg *segment, l *later) (bool, error) {
	st.s.mu.Lock()
	defer st.s.release(l)
	if err := st.writeErr(); err != nil {
		return false, err
	}
	if st.room() < seg.len() {
		st.starved = true
		return false, nil
	}
	st.credit -= seg.len()
	st.out.give(seg) // many small writes become one frame
	st.s.queue(st)
	return true, nil
}

// offerAll queues all the segments, for which there is room.
func (st *muxStream) offerAll(all *segments) error {
	st.s.mu.Lock()
	defer st.s.release(nil)
	if err := st.writeErr(); err != nil {
		return err
	}
	for all.head != nil {
		seg := all.pop()
		st.credit -= seg.len()
		st.out.give(seg)
	}
	st.s.queue(st)
	return nil
}

// writeErr is the error that a write returns. The caller holds the lock.
func (st *muxStream) writeErr() error {
	switch {
	case st.closed:
		return net.ErrClosed
	case st.failed != nil:
		return st.failed
	case st.resets:
		return ErrReset
	case st.finAsked:
		return net.ErrClosed
	case st.stopGot:
		return ErrStopped
	}
	return nil
}

// room is how many bytes can be queued now. The caller holds the lock.
func (st *muxStream) room() int { return min(st.credit, sendBuffer-st.out.size) }

// hasRoom wakes the writes that wait for room. The caller holds the lock. It must call
// the hook that hasRoom returns, after it has released the lock.
func (st *muxStream) hasRoom() hook {
	st.writable.Broadcast()
	if !st.starved {
		return nil
	}
	st.starved = false
	return st.onRoom
}

// CloseWrite ends the write side, after the bytes that were written.
func (st *muxStream) CloseWrite() error {
	st.s.mu.Lock()
	defer st.s.release(nil)
	if st.closed {
		return net.ErrClosed
	}
	if st.failed != nil {
		return st.failed
	}
	st.finAsked = true
	st.writable.Broadcast()
	st.s.queue(st)
	return nil
}

// Close ends both sides. The peer still gets the bytes that were written.
func (st *muxStream) Close() error {
	st.s.mu.Lock()
	defer st.s.release(nil)
	if st.closed {
		return nil
	}
	st.closed, st.deaf, st.finAsked = true, true, true
	st.in.drop()
	st.readBy.Stop()
	st.writeBy.Stop()
	st.readable.Broadcast()
	st.writable.Broadcast()
	st.mayEnd()
	st.s.queue(st)
	return nil
}

// StopRead ends the read side: the peer's writes fail from then on.
func (st *muxStream) StopRead() error {
	st.s.mu.Lock()
	defer st.s.release(nil)
	st.deaf = true
	st.in.drop()
	st.readable.Broadcast()
	st.mayEnd()
	st.s.queue(st)
	return nil
}

// ResetInOrder ends both sides: the read side at once, and the write side after the
// bytes that were written.
func (st *muxStream) ResetInOrder() error {
	s := st.s
	s.mu.Lock()
	if st.failed != nil || st.gone || st.resets || st.closed {
		s.mu.Unlock()
		return nil
	}
	st.resets, st.deaf = true, true
	st.in.drop()
	st.readBy.Stop()
	st.writeBy.Stop()
	st.readable.Broadcast()
	st.writable.Broadcast()
	if st.wasReset || st.id == 0 && st.out.size == 0 {
		st.remove() // no frame is needed: the peer has reset the stream too, or was never told of it
	}
	s.queue(st)
	onRead, onRoom := st.onRead, st.onRoom
	s.release(nil)
	for _, h := range []hook{onRead, onRoom} {
		if h != nil {
			h.wake(nil)
		}
	}
	return nil
}

// Reset ends both sides at once and discards the bytes under way.
func (st *muxStream) Reset() error {
	s := st.s
	s.mu.Lock()
	if st.failed != nil || (st.gone && st.closed) {
		s.mu.Unlock()
		return nil
	}
	if st.id != 0 && !st.gone {
		s.send(appendNumber(s.urgent, frameReset, st.id, resetAsked))
	}
	onRead, onRoom := st.onRead, st.onRoom
	st.fail(ErrReset)
	st.remove()
	s.release(nil)
	for _, h := range []hook{onRead, onRoom} {
		if h != nil {
			h.wake(nil)
		}
	}
	return nil
}

// fail ends the stream early, with an error. The caller holds the lock.
func (st *muxStream) fail(err error) {
	if st.failed == nil {
		st.failed = err
	}
	st.deaf = true
	st.in.drop()
	st.out.drop()
	st.readBy.Stop()
	st.writeBy.Stop()
	st.readable.Broadcast()
	st.writable.Broadcast()
}

// mayEnd removes the stream when both directions have ended, so that further frames of
// it do not matter. The caller holds the lock.
func (st *muxStream) mayEnd() {
	if st.wasReset && st.in.size == 0 || !st.resets && (st.finSent || st.stopGot) && (st.finGot || st.stopSent) {
		st.remove()
	}
}

// remove removes the stream from its session. The caller holds the lock.
func (st *muxStream) remove() {
	s := st.s
	if st.gone {
		return
	}
	st.gone = true
	s.extra -= st.window - startWindow
	s.lent -= st.surplus
	st.surplus = 0
	if st.id == 0 {
		delete(s.silent, st)
		s.letOpen(1)
		return
	}
	delete(s.streams, st.id)
	if st.theirs {
		s.peers--
	}
}

// announce gives the stream its id. The caller holds the lock.
func (st *muxStream) announce() {
	s := st.s
	st.id = s.nextID
	s.nextID += 2
	delete(s.silent, st)
	s.streams[st.id] = st
}

// SetReadDeadline makes reads fail from t on.
func (st *muxStream) SetReadDeadline(t time.Time) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if !st.deaf {
		st.readBy.Move(t, &st.readable)
	}
	return nil
}

// SetWriteDeadline makes writes fail from t on.
func (st *muxStream) SetWriteDeadline(t time.Time) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if !st.closed && st.failed == nil {
		st.writeBy.Move(t, &st.writable)
	}
	return nil
}

// SetDeadline makes reads and writes fail from t on.
func (st *muxStream) SetDeadline(t time.Time) error {
	_ = st.SetReadDeadline(t)
	return st.SetWriteDeadline(t)
}

// LocalAddr is the local address of the session's connection.
func (st *muxStream) LocalAddr() net.Addr { return st.s.conn.LocalAddr() }

// RemoteAddr is the remote address of the session's connection.
func (st *muxStream) RemoteAddr() net.Addr { return st.s.conn.RemoteAddr() }
