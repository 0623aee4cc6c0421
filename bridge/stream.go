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
	"github.com/tunnox-net/tunnox/wait"
)

const (
	// window bounds the bytes of each direction that are under way or unread.
	window = 512 << 10
	// grantAt is how much the reader reads before it sends a grant.
	grantAt = window / 4
	// maxGrant bounds how much a peer can grant at once.
	maxGrant = 1 << 30
	// gRPC blocks a sender on a stream with 64 KiB or more (its defaultWriteQuota) that
	// are not on the connection yet. Data waits above roomForData, and grants and ends
	// wait above roomForControl. So SendMsg never blocks, and deadlines hold even when
	// the connection stands still.
	roomForData, roomForControl = 48 << 10, 64<<10 - 1<<10
	// Received pieces smaller than tidyBelow are copied together into buffers of
	// tidyBuffer bytes. Otherwise many small writes that nobody reads would hold many
	// times their size.
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
	explain func(error) error // turns an error of RecvMsg into an error of package transport
	// onBroken is called when both directions ended at once; may be nil.
	onBroken func()
	count    *traffic

	local, remote net.Addr

	unsent  atomic.Int64 // bytes given to gRPC that are not on the connection yet
	starved atomic.Bool  // a writer waits until unsent falls
	late    atomic.Bool  // a grant or an end waits until unsent falls

	mu sync.Mutex
	// for Read; guarded by mu
	readable sync.Cond
	readBy   wait.Deadline
	queue    []piece // received and not read
	queued   int     // number of bytes in queue
	tidy     bool    // the last piece is a buffer of ours with room
	reading  bool    // a Read owns head
	owed     int     // bytes read and not granted yet
	eof      bool    // the peer has ended its direction
	wasReset bool    // the peer has reset the stream after its data
	onRead   func()  // of Watch
	tellRead bool    // call onRead when mu is released
	missed   bool    // a ReadNow found another reader at work
	// for Write; guarded by mu
	writable   sync.Cond
	writeBy    wait.Deadline
	credit     int  // what the peer's window leaves
	sending    bool // a goroutine is in SendMsg
	ended      bool // CloseWrite or Close was called
	peerClosed bool // the peer reads no more
	onRoom     func()
	tellRoom   bool // call onRoom when mu is released
	wanting    bool // a WriteNow could not write all
	// for both; guarded by mu
	due      bridgepb.End // the end to be sent next
	sent     bridgepb.End // the last end sent
	closed   bool         // Close was called
	finished bool         // both directions have ended
	hungUp   bool         // hangUp was called
	gone     bool         // the RPC has ended
	cut      error        // why the RPC ended before this direction had ended
	err      error        // both directions ended at once

	head piece // the piece being read; owned by the goroutine that set reading
}

func newStream(rpc messages, local, remote net.Addr, count *traffic) *stream {
	s := &stream{rpc: rpc, local: local, remote: remote, count: count, credit: window}
	s.readable.L, s.writable.L = &s.mu, &s.mu
	return s
}

func (s *stream) LocalAddr() net.Addr  { return s.local }
func (s *stream) RemoteAddr() net.Addr { return s.remote }

// Read gives received bytes as soon as there are any.
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

// read gives received bytes, or 0. The caller holds the lock.
func (s *stream) read(b []byte) (int, error) {
	switch {
	case s.closed:
		return 0, net.ErrClosed
	case s.err != nil:
		return 0, s.err
	case s.readBy.Passed():
		return 0, s.readBy.Err()
	case len(b) == 0:
	case s.reading: // another Read is at work
		s.missed = true
	case s.queued > 0:
		return s.copyQueued(b), nil
	case s.wasReset:
		return 0, transport.ErrReset
	case s.eof:
		return 0, io.EOF
	}
	return 0, nil
}

// copyQueued copies from the queue. The caller holds the lock; it is released while
// copying, so that further bytes can be received.
func (s *stream) copyQueued(b []byte) (n int) {
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
	s.readable.Broadcast() // it is the next reader's turn
	s.tellRead, s.missed = s.tellRead || s.missed, false
	return n
}

// drop frees bytes that will not be read. The caller holds the lock.
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

// receive handles received frames until the RPC ends. It never waits for a reader: the
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

// received handles one frame. The caller holds the lock.
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
			return errors.New("bridge: the peer sent more than the window allows")
		}
		s.queued += f.size
		for i := range f.data {
			s.keep(f.data[i])
			f.data[i] = piece{}
		}
		s.canRead()
	case f.grant > 0:
		if s.credit+int(f.grant) > maxGrant {
			return errors.New("bridge: the peer granted more than is allowed")
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
			s.cancel() // all that the peer wrote has arrived
		}
	case f.end == bridgepb.End_END_RESET:
		s.broken(transport.ErrReset)
		if s.cancel != nil {
			s.cancel() // a reset in order by the other side waits for this answer
		}
	}
	if f.end != 0 {
		s.flush()
	}
	return nil
}

// keep appends a piece to the queue. The caller holds the lock.
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

// lost handles the end of the RPC.
func (s *stream) lost(err error) {
	s.mu.Lock()
	defer s.unlock()
	s.gone = true
	// The sending goroutine may not have noticed the end yet. Bytes that were received
	// and not read must not be lost for that reason.
	s.finished = s.finished || s.err == nil && s.eof && s.sent >= bridgepb.End_END_WRITE
	if s.finished || s.err != nil || s.wasReset {
		return
	}
	explained := s.explain(err)
	if s.eof && !errors.Is(explained, transport.ErrReset) {
		// All that the peer wrote is here and can be read; only writing is over.
		s.cut = explained
		s.failWrite()
		s.notifyBroken()
		return
	}
	s.broken(explained)
}

// broken ends both directions at once. The caller holds the lock.
func (s *stream) broken(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	s.notifyBroken()
	s.drop()
	s.canRead()
	s.failWrite()
}

// notifyBroken calls onBroken. The caller holds the lock.
func (s *stream) notifyBroken() {
	if s.onBroken != nil {
		s.onBroken()
	}
}

// broke reports whether both directions ended at once.
func (s *stream) broke() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil || s.wasReset
}

// fail ends both directions at once and tells the peer, unless both have ended. If both
// have ended, only unread bytes are lost. The caller holds the lock.
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

// CloseWrite ends this direction after the written bytes.
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

// Close ends this direction after the written bytes, and reads no more.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.drop()
	s.readBy.Stop()
	s.writeBy.Stop()
	s.readable.Broadcast()
	if s.err == nil {
		s.end(bridgepb.End_END_BOTH)
	}
	s.ended = true
	s.writable.Broadcast()
	return nil
}

// end sends the end, or leaves it to the goroutine that is sending. The caller holds
// the lock.
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

// ResetInOrder ends both directions, this one after the written bytes. The RPC ends
// when the peer has read those.
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
	s.readBy.Move(t, &s.readable)
	return nil
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeBy.Move(t, &s.writable)
	return nil
}

func (s *stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}
