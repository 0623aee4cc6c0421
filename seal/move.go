package seal

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// A stream of records can leave its carrier for a lane, which carries bulk for less. Each
// direction moves by itself: behind the record move the next one comes on the lane. The
// numbers of the records go on, so a lane that leads somewhere else causes an error and
// never wrong bytes.
//
// The carrier stays open beneath the lane, and says what the end of a TCP connection
// cannot: a reset of the carrier ends the lane at once, and so does its end; a peer that
// reads no more says so there.

// Lane is what a stream can move to, for example a transport.Lane.
type Lane interface {
	transport.Prompt
	transport.ReadStopper
	// AwaitRead waits until ReadNow would return bytes or an error, or until the deadline.
	AwaitRead() error
	// StopWrite makes writes fail with transport.ErrStopped.
	StopWrite()
	// Reset ends both sides at once.
	Reset() error
}

// Movable is a stream that can go on over a lane. The streams of New are, if their carrier
// is a transport.Prompt.
type Movable interface {
	// OnBulk makes do be called once, in a goroutine of its own, when a direction has moved
	// BulkBytes within BulkTime.
	OnBulk(do func())
	// CanMove tells whether the stream goes on, and has not moved.
	CanMove() bool
	// Move moves what this end sends to the lane, and what it receives when the peer does
	// the same. It may wait for room. The stream owns the lane.
	Move(lane Lane) error
	// Expect takes a lane to which the peer will move. This end follows it with what it
	// sends. The stream owns the lane. A lane that was expected before is closed.
	Expect(lane Lane) error
}

// A stream that moves so many bytes in so long a time is bulk.
const (
	BulkBytes = 256 << 10
	BulkTime  = time.Second
)

// ErrMoved is the error of a stream that has moved, or ended.
var ErrMoved = errors.New("seal: the stream cannot move")

var _ Movable = promptStream{}

// laneEnd is the lane of a stream. out tells whether this end has begun to send there, in
// whether the peer has.
type laneEnd struct {
	Lane
	in, out atomic.Bool
	limit   atomic.Pointer[time.Timer] // of resetInOrder
}

// last is a record that is sent on a lane behind a move that has not gone yet.
type last struct {
	kind    kind
	content []byte
}

// Batches tells whether several records at once cost less than one by one: on a lane they
// are one system call.
func (s *stream) Batches() bool {
	l := s.lane.Load()
	return l != nil && (l.in.Load() || l.out.Load())
}

// OnBulk sets the function that is called when a direction is bulk.
func (s promptStream) OnBulk(do func()) { s.onBulk.Store(&do) }

// CanMove tells whether the stream goes on where it began.
func (s promptStream) CanMove() bool {
	l := s.lane.Load()
	if s.closed.Load() || s.failure.Load() != nil || l != nil && (l.in.Load() || l.out.Load()) {
		return false
	}
	_, err := s.prompt.WriteNow(nil)
	return err == nil || !errors.Is(err, transport.ErrReset) && !errors.Is(err, transport.ErrSessionClosed)
}

// bulk counts the bytes of a direction.
type bulk struct {
	since time.Time
	bytes int
}

// moved counts n bytes.
func (s *stream) moved(n int, b *bulk) {
	if s.onBulk.Load() == nil {
		return
	}
	if now := time.Now(); now.Sub(b.since) > BulkTime {
		b.since, b.bytes = now, 0
	}
	if b.bytes += n; b.bytes < BulkBytes {
		return
	}
	b.bytes = 0
	if do := s.onBulk.Swap(nil); do != nil {
		go (*do)()
	}
}

// Move moves this end's records to the lane.
func (s promptStream) Move(lane Lane) error {
	l, err := s.expect(lane)
	if err != nil {
		return err
	}
	s.moveTo(l)
	return nil
}

// Expect takes a lane to which the peer will move.
func (s promptStream) Expect(lane Lane) error {
	_, err := s.expect(lane)
	return err
}

func (s *stream) expect(lane Lane) (*laneEnd, error) {
	l, before := &laneEnd{Lane: lane}, s.lane.Load()
	if before != nil && (before.in.Load() || before.out.Load()) || !s.lane.CompareAndSwap(before, l) {
		_ = lane.Reset()
		return nil, ErrMoved
	}
	if before != nil {
		_ = before.Reset()
	}
	lane.Watch(s.watched(), s.hasRoom)
	s.deadlines.apply(lane)
	if s.closed.Load() || s.failure.Load() != nil {
		_ = lane.Reset()
		return nil, ErrMoved
	}
	if s.deaf.Load() {
		_ = lane.StopRead()
	}
	s.heed() // the carrier may have ended meanwhile
	return l, nil
}

// watched is the hook of Watch, if there is one.
func (s *stream) watched() func() {
	if do := s.onRead.Load(); do != nil {
		return *do
	}
	return nil
}

// follow takes the peer's move. What the carrier has brought behind it is nobody's.
func (s *stream) follow() error {
	l := s.lane.Load()
	if l == nil || s.rlane != nil || s.raw.start != s.raw.end {
		return ErrRecord
	}
	l.in.Store(true)
	if s.lane.Load() != l { // it was replaced just now
		return ErrRecord
	}
	s.rlane = l
	if !l.out.Load() {
		go s.moveTo(l)
	}
	return nil
}

// moveTo sends a move, and the records after it on the lane.
func (s *stream) moveTo(l *laneEnd) {
	s.wmu.Lock()
	defer s.unlock()
	if s.werr != nil || s.wlane != nil || s.next != nil {
		return
	}
	l.out.Store(true)
	s.room(overhead)
	s.append(kindMove, nil)
	s.next = l
	_ = s.hand() // an error is kept
}

// arrive is called when what waited has gone. It tells whether that was a move.
func (s *stream) arrive() bool {
	if s.next == nil {
		return false
	}
	s.wlane, s.next = s.next, nil
	return true
}

// writable gives the error that a write would return before it writes anything.
func (s *stream) writable() error {
	if s.wlane == nil {
		_, err := s.carrier.Write(nil)
		return err
	}
	_, err := s.prompt.WriteNow(nil)
	if err == nil {
		_, err = s.wlane.WriteNow(nil)
	}
	if err == nil && s.deadlines.late() {
		err = os.ErrDeadlineExceeded
	}
	return err
}

// carry writes records, and waits for room.
func (s *stream) carry(b []byte) (int, error) {
	if s.wlane != nil {
		return s.wlane.Write(b)
	}
	return s.carrier.Write(b)
}

// unwritten gives what an error of a write means. A lane that has died takes the stream
// with it.
func (s *stream) unwritten(err error) error {
	if s.wlane != nil && errors.Is(err, transport.ErrReset) && !errors.Is(err, transport.ErrStopped) {
		s.failure.CompareAndSwap(nil, &err)
		go s.Reset() // in a goroutine, because a lock is held that the hooks of the carrier want
	}
	return s.failed(err)
}

// heed looks whether the carrier beneath a lane still stands.
func (s *stream) heed() {
	l := s.lane.Load()
	if l == nil {
		return
	}
	switch _, err := s.prompt.WriteNow(nil); {
	case err == nil, errors.Is(err, net.ErrClosed) && !errors.Is(err, transport.ErrSessionClosed): // closed: by this end
	case errors.Is(err, transport.ErrStopped):
		l.StopWrite()
	default:
		s.failure.CompareAndSwap(nil, &err)
		_ = l.Reset()
		if timer := l.limit.Load(); timer != nil {
			timer.Stop()
		}
	}
}

// closeWrite ends the write side of the carrier, and of the lane.
func (s *stream) closeWrite() {
	if l := s.lane.Load(); l != nil && l.out.Load() {
		_ = l.CloseWrite()
	}
	_ = s.carrier.CloseWrite()
}

// close closes carrier and lane. The lane goes on until the bytes on it have arrived.
func (s *stream) close() {
	if l := s.lane.Load(); l != nil {
		_ = l.Close()
	}
	_ = s.carrier.Close()
}

// resetLimit is how long a peer may take to read what comes before a reset on a lane.
const resetLimit = 10 * time.Second

// resetInOrder ends the carrier behind the reset record. If that went over a lane, a reset
// of the carrier would overtake it: the peer makes it, when it has read the record.
func (s *stream) resetInOrder() {
	l := s.lane.Load()
	if l == nil || !l.out.Load() {
		_ = s.carrier.ResetInOrder()
		return
	}
	_ = l.CloseWrite()
	l.limit.Store(time.AfterFunc(resetLimit, func() { _ = s.Reset() }))
}

// awaited has look called when there is something to read.
func (s *stream) awaited(look func()) (now func()) {
	l := s.lane.Load()
	if l == nil || !l.in.Load() {
		return s.carrier.OnRead(look)
	}
	var once sync.Once
	call := func() { once.Do(func() { go look() }) }
	go func() {
		_ = l.AwaitRead()
		call()
	}()
	return func() {
		_ = l.SetReadDeadline(time.Unix(1, 0)) // wakes who waits
		call()
		s.deadlines.apply(l)
	}
}

// deadlines are those of a stream, for a lane that comes later.
type deadlines struct {
	mu          sync.Mutex
	read, write time.Time
}

func (d *deadlines) set(s *stream, note func(*deadlines), carrier func(time.Time) error, t time.Time) error {
	d.mu.Lock()
	note(d)
	d.mu.Unlock()
	if l := s.lane.Load(); l != nil {
		d.apply(l)
	}
	return carrier(t)
}

// late tells whether the time to write is over.
func (d *deadlines) late() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.write.IsZero() && !time.Now().Before(d.write)
}

func (d *deadlines) apply(l Lane) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = l.SetReadDeadline(d.read)
	_ = l.SetWriteDeadline(d.write)
}
