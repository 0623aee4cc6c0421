package bridge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/tunnox-net/tunnox/bridge/bridgepb"
	"github.com/tunnox-net/tunnox/transport"
)

const (
	// window is what each direction may have under way and unread.
	window = 512 << 10
	// grantAt is how much the reader takes before it tells.
	grantAt = window / 4
	// maxGrant bounds what a peer can give at once.
	maxGrant = 1 << 30
	// gRPC blocks who sends on a stream that has 64 KiB or more (its
	// defaultWriteQuota) not on the connection yet. Bytes wait above roomForData,
	// and grants and ends above roomForWords, so that SendMsg never blocks and
	// deadlines hold when the connection stands still.
	roomForData, roomForWords = 48 << 10, 64<<10 - 1<<10
	// tidyBelow and tidyBuffer: received pieces smaller than the one are put
	// together in buffers of the other, or many small writes that nobody reads
	// would hold many times their size.
	tidyBelow, tidyBuffer = 2 << 10, 16 << 10
)

// stream is either end of a forwarded connection.
type stream struct {
	rpc     grpc.Stream
	cancel  func()            // opener only: ends the RPC at once; does not block
	hangUp  func() error      // opener only: half-closes the RPC
	explain func(error) error // turns what RecvMsg said into an error of package transport
	// onBroken is called when both directions ended at once; may be nil.
	onBroken func()
	count    *traffic

	local, remote net.Addr

	unsent  atomic.Int64 // bytes handed to gRPC that are not on the connection
	starved atomic.Bool  // somebody waits for unsent to fall
	late    atomic.Bool  // something due waits for unsent to fall

	mu sync.Mutex
	// for Read; guarded by mu
	readable sync.Cond
	readBy   deadline
	queue    []piece // received and not read
	queued   int     // its bytes
	tidy     bool    // the last piece is a buffer of ours with room
	reading  bool    // a Read owns head
	owed     int     // read, and not granted yet
	eof      bool    // the peer has ended its direction
	// for Write; guarded by mu
	writable   sync.Cond
	writeBy    deadline
	credit     int  // what the peer's window leaves
	sending    bool // somebody is in SendMsg
	ended      bool // CloseWrite or Close was called
	peerClosed bool // the peer reads no more
	// for both; guarded by mu
	due      bridgepb.End // the end to be sent next
	sent     bridgepb.End // the last end sent
	closed   bool         // Close was called
	finished bool         // both directions have ended
	hungUp   bool         // hangUp was called
	gone     bool         // the RPC has ended
	cut      error        // why it did, before this direction had ended
	err      error        // both directions ended at once

	head piece // the piece being read; owned by whoever set reading
}

func newStream(rpc grpc.Stream, local, remote net.Addr, count *traffic) *stream {
	s := &stream{rpc: rpc, local: local, remote: remote, count: count, credit: window}
	s.readable.L, s.writable.L = &s.mu, &s.mu
	return s
}

func (s *stream) LocalAddr() net.Addr  { return s.local }
func (s *stream) RemoteAddr() net.Addr { return s.remote }

// Read gives what has come, as soon as there is any.
func (s *stream) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, net.ErrClosed
		case s.err != nil:
			return 0, s.err
		case s.readBy.passed:
			return 0, s.readBy.err()
		case len(b) == 0:
			return 0, nil
		case s.reading: // by somebody else: wait for the turn
		case s.queued > 0:
			return s.take(b), nil
		case s.eof:
			return 0, io.EOF
		}
		s.readable.Wait()
	}
}

// take copies from the queue. The lock is held, but not while copying, so that
// the next bytes can come in meanwhile.
func (s *stream) take(b []byte) (n int) {
	s.reading = true
	for n < len(b) {
		if len(s.head.bytes) == 0 {
			if len(s.queue) == 0 {
				break
			}
			s.head = s.queue[0]
			s.queue[0] = piece{}
			if s.queue = s.queue[1:]; len(s.queue) == 0 {
				s.queue, s.tidy = nil, false
			}
		}
		s.mu.Unlock()
		m := copy(b[n:], s.head.bytes)
		n += m
		if s.head.bytes = s.head.bytes[m:]; len(s.head.bytes) == 0 {
			s.head.buffer.Free()
			s.head = piece{}
		}
		s.mu.Lock()
	}
	s.reading = false
	s.queued -= n
	if s.closed || s.err != nil {
		s.drop()
	}
	s.owed += n
	if s.owed >= grantAt && !s.eof {
		s.flush()
	}
	s.readable.Broadcast() // the next one's turn
	return n
}

// drop frees what will not be read. The lock is held.
func (s *stream) drop() {
	if !s.reading && s.head.buffer != nil {
		s.head.buffer.Free()
		s.head = piece{}
	}
	for _, p := range s.queue {
		p.buffer.Free()
	}
	s.queue, s.tidy, s.queued = nil, false, 0
}

// Write returns when all of b is on its way, not when it was read.
func (s *stream) Write(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.ended:
			return n, net.ErrClosed
		case s.err != nil:
			return n, s.err
		case s.cut != nil:
			return n, s.cut
		case s.peerClosed:
			return n, transport.ErrReset
		case s.writeBy.passed:
			return n, s.writeBy.err()
		case len(b) == 0:
			return n, nil
		}
		part := min(len(b), maxData, s.credit)
		if part > 0 && !s.sending && s.room(roomForData, &s.starved) {
			s.credit -= part
			s.sendData(b[:part])
			n, b = n+part, b[part:]
			continue
		}
		s.writable.Wait()
	}
}

// room tells whether less than limit is unsent, and otherwise lets waits know that
// somebody wants to be told. The lock is held until that somebody waits, so that
// he does not miss it.
func (s *stream) room(limit int64, waits *atomic.Bool) bool {
	if s.unsent.Load() < limit {
		return true
	}
	waits.Store(true)
	return s.unsent.Load() < limit
}

// sendData sends a frame of bytes and then what else is due. The lock is held,
// but not while sending.
func (s *stream) sendData(bytes []byte) {
	s.sending = true
	s.mu.Unlock()
	s.count.sent.Add(uint64(len(bytes)))
	buffers := make(mem.BufferSlice, 0, 1+len(bytes)/partSize)
	buffer := frameBuffer(len(bytes) + dataHead)
	*buffer = appendDataHead(*buffer, len(bytes))
	for {
		n := min(len(bytes), cap(*buffer)-len(*buffer))
		*buffer, bytes = append(*buffer, bytes[:n]...), bytes[n:]
		buffers = append(buffers, s.outgoing(buffer))
		if len(bytes) == 0 {
			break
		}
		buffer = frameBuffer(len(bytes))
	}
	s.send(buffers)
	s.mu.Lock()
	s.sending = false
	s.flush()
	s.writable.Broadcast() // the next one's turn
}

// flush sends the grant and the end that are due, and hangs up when all is said,
// unless somebody is sending, who will do it then. The lock is held, but not
// while sending.
func (s *stream) flush() {
	if s.sending {
		return
	}
	s.sending = true
	acted := false
	for !s.gone {
		s.finished = s.finished || s.err == nil && s.eof && s.sent >= bridgepb.End_END_WRITE
		var act func()
		switch {
		case s.endDue() || s.grantDue():
			if !s.room(roomForWords, &s.late) {
				break // Put comes back to it
			}
			word := s.outgoing(s.word())
			act = func() { s.send(mem.BufferSlice{word}) }
		case s.finished && !s.hungUp && s.hangUp != nil:
			s.hungUp = true
			act = func() { _ = s.hangUp() }
		}
		if act == nil {
			break
		}
		s.mu.Unlock()
		act()
		s.mu.Lock()
		acted = true
	}
	s.sending = false
	if acted {
		s.writable.Broadcast() // a Write may have waited for its turn meanwhile
	}
}

// endDue and grantDue tell what is to be sent. The lock is held.
func (s *stream) endDue() bool {
	return s.due > s.sent && !s.finished && (s.err == nil || s.due == bridgepb.End_END_RESET)
}

func (s *stream) grantDue() bool {
	return s.owed >= grantAt && !s.finished && s.err == nil && !s.eof && !s.closed
}

// word encodes the end or the grant that is due. The lock is held.
func (s *stream) word() *[]byte {
	b := frameBuffer(0)
	if s.endDue() {
		s.sent = s.due
		*b = appendEnd(*b, s.due)
	} else {
		*b = appendGrant(*b, s.owed)
		s.owed = 0
	}
	return b
}

// outgoing counts a buffer as unsent.
func (s *stream) outgoing(buffer *[]byte) mem.Buffer {
	s.unsent.Add(int64(len(*buffer) + frameHead))
	return mem.NewBuffer(buffer, (*sentBuffers)(s))
}

// send hands one frame to gRPC. An error is not looked at: gRPC tells it to the
// receiver too, which knows more.
func (s *stream) send(buffers mem.BufferSlice) { _ = s.rpc.SendMsg(outgoing{buffers}) }

// sentBuffers learns when a buffer is on the connection, or lost with it.
type sentBuffers stream

func (*sentBuffers) Get(n int) *[]byte { return frameBuffer(n) }

// Put is called by gRPC's writer, which must not wait.
func (b *sentBuffers) Put(buffer *[]byte) {
	s := (*stream)(b)
	s.unsent.Add(-int64(len(*buffer) + frameHead))
	recycle(buffer)
	if s.starved.Load() && s.starved.Swap(false) {
		s.mu.Lock()
		s.writable.Broadcast()
		s.mu.Unlock()
	}
	if s.late.Load() && s.late.Swap(false) {
		go func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.flush()
		}()
	}
}

// receive takes what comes until the RPC ends. It never waits for a reader: the
// peer's window bounds what it has to keep.
func (s *stream) receive() {
	var f frame
	for {
		if err := s.rpc.RecvMsg(&f); err != nil {
			s.lost(err)
			return
		}
		s.mu.Lock()
		if err := s.received(&f); err != nil {
			s.fail(fmt.Errorf("%w: %w", transport.ErrReset, err))
		}
		over := f.end == bridgepb.End_END_RESET && s.cancel == nil
		s.mu.Unlock()
		if over {
			return
		}
	}
}

// received applies one frame. The lock is held.
func (s *stream) received(f *frame) error {
	switch {
	case f.size > 0:
		s.count.received.Add(uint64(f.size))
		if s.closed || s.err != nil || s.eof {
			f.free()
			return nil
		}
		if s.queued+s.owed+f.size > window {
			f.free()
			return errors.New("bridge: the peer overran the window")
		}
		s.queued += f.size
		for i := range f.data {
			s.keep(f.data[i])
			f.data[i] = piece{}
		}
		s.readable.Broadcast()
	case f.grant > 0:
		if s.credit+int(f.grant) > maxGrant {
			return errors.New("bridge: the peer's window is absurd")
		}
		s.credit += int(f.grant)
		s.writable.Broadcast()
	case f.end == bridgepb.End_END_WRITE:
		s.eof = true
		s.readable.Broadcast()
	case f.end == bridgepb.End_END_BOTH:
		s.eof, s.peerClosed = true, true
		s.due = max(s.due, bridgepb.End_END_WRITE) // nobody would read more
		s.readable.Broadcast()
		s.writable.Broadcast()
	case f.end == bridgepb.End_END_RESET:
		s.broken(transport.ErrReset)
		if s.cancel != nil {
			s.cancel() // the answer a reset by the other side waits for
		}
	}
	if f.end != 0 {
		s.flush()
	}
	return nil
}

// keep puts a piece into the queue. The lock is held.
func (s *stream) keep(p piece) {
	last := len(s.queue) - 1
	if len(p.bytes) >= tidyBelow || last < 0 {
		s.queue, s.tidy = append(s.queue, p), false
		return
	}
	if s.tidy && len(s.queue[last].bytes)+len(p.bytes) <= cap(s.queue[last].bytes) {
		s.queue[last].bytes = append(s.queue[last].bytes, p.bytes...)
		p.buffer.Free()
		return
	}
	room := mem.DefaultBufferPool().Get(tidyBuffer)
	own := piece{bytes: append((*room)[:0], p.bytes...), buffer: mem.NewBuffer(room, mem.DefaultBufferPool())}
	s.queue, s.tidy = append(s.queue, own), true
	p.buffer.Free()
}

// lost is told how the RPC ended.
func (s *stream) lost(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	// Whoever is sending may not have come to note that it is over, and what has
	// come and was not read yet must not be lost for that.
	s.finished = s.finished || s.err == nil && s.eof && s.sent >= bridgepb.End_END_WRITE
	if s.finished || s.err != nil {
		return
	}
	explained := s.explain(err)
	if s.eof && !errors.Is(explained, transport.ErrReset) {
		// All that the peer wrote is here and can be read; only writing is over.
		s.cut = explained
		s.writable.Broadcast()
		s.brokenOff()
		return
	}
	s.broken(explained)
}

// broken ends both directions at once. The lock is held.
func (s *stream) broken(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	s.brokenOff()
	s.drop()
	s.readable.Broadcast()
	s.writable.Broadcast()
}

// brokenOff lets onBroken know. The lock is held.
func (s *stream) brokenOff() {
	if s.onBroken != nil {
		s.onBroken()
	}
}

// broke tells whether both directions ended at once.
func (s *stream) broke() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// fail ends both directions at once and tells the peer, unless both have ended:
// then only what was not read is lost. The lock is held.
func (s *stream) fail(err error) {
	if s.err != nil {
		return
	}
	s.broken(err)
	switch {
	case s.finished:
	case s.cancel != nil:
		s.cancel()
	default:
		s.due = bridgepb.End_END_RESET
		s.flush()
	}
}

// CloseWrite ends this direction behind what was written.
func (s *stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case s.err != nil:
		return s.err
	case s.cut != nil:
		return s.cut
	}
	s.end(bridgepb.End_END_WRITE)
	return nil
}

// Close ends this direction behind what was written, and reads no more.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.drop()
	s.readBy.stop()
	s.writeBy.stop()
	s.readable.Broadcast()
	if s.err == nil {
		s.end(bridgepb.End_END_BOTH)
	}
	s.ended = true
	s.writable.Broadcast()
	return nil
}

// end sends the end, or leaves it to whoever is sending. The lock is held.
func (s *stream) end(how bridgepb.End) {
	s.ended = true
	s.due = max(s.due, how)
	s.writable.Broadcast()
	s.flush()
}

// Reset ends both directions at once, at both ends.
func (s *stream) Reset() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(transport.ErrReset)
	return nil
}

func (s *stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readBy.move(t, &s.readable)
	return nil
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeBy.move(t, &s.writable)
	return nil
}

func (s *stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}
