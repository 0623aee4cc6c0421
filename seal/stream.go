package seal

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// ErrTruncated is the error of a carrier that ended before the peer's end had come. The
// peer may have sent more.
var ErrTruncated = fmt.Errorf("seal: the stream was cut off: %w", io.ErrUnexpectedEOF)

// Reset is the error of a stream that the peer has reset with a code. It is a
// transport.ErrReset.
type Reset struct{ Code uint32 }

func (r Reset) Error() string {
	return fmt.Sprintf("seal: the peer has reset the stream, code %d", r.Code)
}

// Unwrap makes it a transport.ErrReset.
func (Reset) Unwrap() error { return transport.ErrReset }

// stream is a stream of records over a carrier. A fault in what is received resets the
// carrier, so that it ends with an error at both ends.
type stream struct {
	carrier carrier
	prompt  transport.Prompt // the carrier, if it is one

	rmu   sync.Mutex // guards what follows, and the order of reads
	in    *direction
	raw   *buffer // received, not yet read; nil: nothing
	plain []byte  // of raw: the rest of a record's content
	size  int     // of the next read of the carrier, at most
	rerr  error   // why nothing more is read
	head  [headerSize]byte
	rlane Lane // where the records come; nil: over the carrier
	taken bulk

	wmu     sync.Mutex // guards what follows, and the order of records
	out     *direction
	pending *buffer   // records that the carrier has not taken; nil: none
	werr    error     // why nothing more is written
	then    func()    // what is done when pending has gone
	late    bool      // a goroutine writes pending
	landed  sync.Cond // late is over; for carriers that are no Prompt
	vector  [1][]byte
	wlane   Lane  // where the records go; nil: over the carrier
	next    Lane  // where they go when pending, which ends with a move, has gone
	last    *last // what is sent there behind the move
	given   bulk

	lane      atomic.Pointer[laneEnd] // that the stream may move to, or has
	onBulk    atomic.Pointer[func()]  // of OnBulk
	deadlines deadlines

	blocking atomic.Bool            // a Write waits in the carrier
	ending   atomic.Bool            // finish was called
	roomy    atomic.Bool            // the carrier has had room since it was looked at
	onRead   atomic.Pointer[func()] // of Watch
	onRoom   atomic.Pointer[func()] // the same
	deaf     atomic.Bool            // this end reads no more
	closed   atomic.Bool
	failure  atomic.Pointer[error] // the fault that ended the stream
}

// carrier carries records. It must tell its peer that this end reads no more: two ends
// that both close while they still write would wait for each other for ever.
type carrier interface {
	transport.Stream
	transport.ReadStopper
}

// promptStream is a stream over a carrier whose bytes can be moved without a wait.
type promptStream struct{ *stream }

var _ interface {
	carrier
	transport.Prompt
} = promptStream{}

// New makes a stream of records over a stream on which the handshake was done and nothing
// else. The result behaves as the carrier does, and is a transport.Prompt if the carrier
// is one. An idle stream has no buffer; one whose peer or reader is slow has 64 KiB a
// direction at most.
//
// The stream must be a transport.ReadStopper.
//
// Errors: ErrRecord and ErrTruncated for faults on the way; Reset for a reset by the
// peer, behind the data that came before it; else those of the carrier.
func New(over transport.Stream, secrets *Secrets) (transport.Stream, error) {
	carrier, ok := over.(carrier)
	if !ok {
		return nil, fmt.Errorf("seal: a %T cannot stop its reading", over)
	}
	in, err := newDirection(secrets.in, secrets.aes)
	if err != nil {
		return nil, err
	}
	out, err := newDirection(secrets.out, secrets.aes)
	if err != nil {
		return nil, err
	}
	s := &stream{carrier: carrier, in: in, out: out, size: smallBuffer}
	if prompt, ok := over.(transport.Prompt); ok {
		s.prompt = prompt
		prompt.Watch(nil, s.hasRoom)
		return promptStream{s}, nil
	}
	s.landed.L = &s.wmu
	return s, nil
}

// fault ends the stream: nothing that comes from the carrier can be believed any more.
func (s *stream) fault(err error) error {
	s.failure.CompareAndSwap(nil, &err)
	_ = s.Reset()
	return err
}

// failed gives the fault that ended the stream instead of what the carrier says of its
// end.
func (s *stream) failed(err error) error {
	if fault := s.failure.Load(); fault != nil && err != nil {
		return *fault
	}
	return err
}

// Reset ends both sides at once.
func (s *stream) Reset() error {
	err := s.carrier.Reset()
	if l := s.lane.Load(); l != nil {
		_ = l.Reset()
	}
	return err
}

// StopRead ends the read side.
func (s *stream) StopRead() error {
	s.deaf.Store(true)
	if l := s.lane.Load(); l != nil {
		_ = l.StopRead()
	}
	return s.carrier.StopRead()
}

// OnRead makes do be called when a Read would not wait.
func (s *stream) OnRead(do func()) (now func()) {
	var once sync.Once
	call := func() { once.Do(func() { go do() }) }
	var look func()
	var mu sync.Mutex
	var inner func() // of the carrier's OnRead
	asked := false
	look = func() {
		mu.Lock()
		defer mu.Unlock()
		if asked || s.readable() {
			call()
			return
		}
		inner = s.awaited(look)
	}
	if s.prompt == nil { // whether it is a record cannot be known without a wait
		look = call
	}
	if s.readable() {
		call()
		return call
	}
	mu.Lock()
	inner = s.awaited(look)
	mu.Unlock()
	return func() {
		mu.Lock()
		asked = true
		wake := inner
		mu.Unlock()
		if wake != nil {
			wake() // ends the carrier's wait, and calls look
		}
		call()
	}
}

// readable tells whether a Read would not wait. A carrier that is no Prompt is readable
// when it says so.
func (s *stream) readable() bool {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.prompt == nil {
		return len(s.plain) > 0 || s.rerr != nil
	}
	return s.fill() != nil || len(s.plain) > 0
}

// OnReset makes do be called when nobody waits for this side's data any more.
func (s *stream) OnReset(do func()) (stop func()) {
	ended := s.carrier.OnReset(do)
	return func() {
		ended()
		if s.prompt != nil {
			s.prompt.Watch(nil, s.hasRoom) // it may have had the hook's place
		}
	}
}

// Watch sets the hooks. What waits for room goes first.
func (s promptStream) Watch(onRead, onRoom func()) {
	if onRoom != nil {
		s.onRoom.Store(&onRoom)
	}
	if onRead != nil {
		s.onRead.Store(&onRead)
	}
	s.prompt.Watch(onRead, s.hasRoom)
	if l := s.lane.Load(); l != nil {
		l.Watch(onRead, nil)
	}
}

// SetDeadline makes reads and writes fail from t on.
func (s *stream) SetDeadline(t time.Time) error {
	return s.deadlines.set(s, func(d *deadlines) { d.read, d.write = t, t }, s.carrier.SetDeadline, t)
}

// SetReadDeadline makes reads fail from t on.
func (s *stream) SetReadDeadline(t time.Time) error {
	return s.deadlines.set(s, func(d *deadlines) { d.read = t }, s.carrier.SetReadDeadline, t)
}

// SetWriteDeadline makes writes fail from t on.
func (s *stream) SetWriteDeadline(t time.Time) error {
	return s.deadlines.set(s, func(d *deadlines) { d.write = t }, s.carrier.SetWriteDeadline, t)
}

// LocalAddr is the carrier's.
func (s *stream) LocalAddr() net.Addr { return s.carrier.LocalAddr() }

// RemoteAddr is the carrier's.
func (s *stream) RemoteAddr() net.Addr { return s.carrier.RemoteAddr() }
