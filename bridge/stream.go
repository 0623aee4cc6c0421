package bridge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

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

// messages is what both ends of a gRPC stream have.
type messages interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// stream is either end of a forwarded connection.
type stream struct {
	rpc     messages
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
	wasReset bool    // the peer has reset the stream behind its data
	onRead   func()  // Watch's
	tellRead bool    // onRead is to be called when mu is given back
	missed   bool    // a ReadNow found somebody reading
	// for Write; guarded by mu
	writable   sync.Cond
	writeBy    deadline
	credit     int  // what the peer's window leaves
	sending    bool // somebody is in SendMsg
	ended      bool // CloseWrite or Close was called
	peerClosed bool // the peer reads no more
	onRoom     func()
	tellRoom   bool // onRoom is to be called when mu is given back
	wanting    bool // a WriteNow could not write all
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

func newStream(rpc messages, local, remote net.Addr, count *traffic) *stream {
	s := &stream{rpc: rpc, local: local, remote: remote, count: count, credit: window}
	s.readable.L, s.writable.L = &s.mu, &s.mu
	return s
}

func (s *stream) LocalAddr() net.Addr  { return s.local }
func (s *stream) RemoteAddr() net.Addr { return s.remote }

// Read gives what has come, as soon as there is any.
func (s *stream) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.unlock()
	for {
		n, err := s.read(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		s.readable.Wait()
	}
}

// read gives what has come, or 0. The lock is held.
func (s *stream) read(b []byte) (int, error) {
	switch {
	case s.closed:
		return 0, net.ErrClosed
	case s.err != nil:
		return 0, s.err
	case s.readBy.passed:
		return 0, s.readBy.err()
	case len(b) == 0:
	case s.reading: // by somebody else, whose turn it is
		s.missed = true
	case s.queued > 0:
		return s.take(b), nil
	case s.wasReset:
		return 0, transport.ErrReset
	case s.eof:
		return 0, io.EOF
	}
	return 0, nil
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
	s.tellRead, s.missed = s.tellRead || s.missed, false
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
		over := f.end >= bridgepb.End_END_RESET && s.cancel == nil
		s.unlock()
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
		s.canRead()
	case f.grant > 0:
		if s.credit+int(f.grant) > maxGrant {
			return errors.New("bridge: the peer's window is absurd")
		}
		s.credit += int(f.grant)
		s.hasRoom()
	case f.end == bridgepb.End_END_WRITE:
		s.eof = true
		s.canRead()
	case f.end == bridgepb.End_END_BOTH:
		s.eof, s.peerClosed = true, true
		s.due = max(s.due, bridgepb.End_END_WRITE) // nobody would read more
		s.canRead()
		s.failWrite()
	case f.end == bridgepb.End_END_RESET_IN_ORDER:
		s.wasReset, s.peerClosed = true, true
		s.canRead()
		s.failWrite()
		if s.cancel != nil {
			s.cancel() // all that the peer wrote is here
		}
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
	room := received{}.Get(tidyBuffer)
	own := piece{bytes: append((*room)[:0], p.bytes...), buffer: mem.NewBuffer(room, received{})}
	s.queue, s.tidy = append(s.queue, own), true
	p.buffer.Free()
}

// lost is told how the RPC ended.
func (s *stream) lost(err error) {
	s.mu.Lock()
	defer s.unlock()
	s.gone = true
	// Whoever is sending may not have come to note that it is over, and what has
	// come and was not read yet must not be lost for that.
	s.finished = s.finished || s.err == nil && s.eof && s.sent >= bridgepb.End_END_WRITE
	if s.finished || s.err != nil || s.wasReset {
		return
	}
	explained := s.explain(err)
	if s.eof && !errors.Is(explained, transport.ErrReset) {
		// All that the peer wrote is here and can be read; only writing is over.
		s.cut = explained
		s.failWrite()
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
	s.canRead()
	s.failWrite()
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
	return s.err != nil || s.wasReset
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
	defer s.unlock()
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
	defer s.unlock()
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
	defer s.unlock()
	s.fail(transport.ErrReset)
	return nil
}

// ResetInOrder ends both directions, this one behind what was written. The RPC ends
// when the peer has read that.
func (s *stream) ResetInOrder() error {
	s.mu.Lock()
	defer s.unlock()
	switch {
	case s.err != nil || s.finished || s.closed:
	case s.ended || s.gone || s.wasReset: // nothing of this direction is under way
		s.fail(transport.ErrReset)
	default:
		s.broken(transport.ErrReset)
		s.due = bridgepb.End_END_RESET_IN_ORDER
		s.flush()
	}
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
