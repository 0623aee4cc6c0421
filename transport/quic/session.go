// Package quic carries sessions over QUIC: each stream of a session is a QUIC stream, so
// that a lost packet holds up the streams whose bytes it had, and no others.
//
// Its duty is the contract of package transport over UDP. One more stream, the first that
// the agent opens, carries what QUIC does not have: pings to the session layer, and how
// many streams were accepted. Its limit: streams are moved by goroutines, because quic-go
// tells nobody when a stream can be read or written without a wait.
//
// There is no early data (0-RTT): whoever records it can send it again, and a login costs
// a round trip anyway, because the forwarder's challenge comes first.
package quic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/tunnox-net/tunnox/transport"
)

// Scheme names the carrier in addresses.
const Scheme = "quic"

const (
	// backlog is how many streams may be opened and not yet accepted.
	backlog = 256
	// guestFrames and guestBytes bound what a stranger may send, as over TLS.
	guestFrames = 1000
	guestBytes  = 16 << 10
)

// Codes of a stream's end. RESET_STREAM and STOP_SENDING carry them.
const (
	codeReset   quicgo.StreamErrorCode = 0 // the program reset the stream
	codeStopped quicgo.StreamErrorCode = 1 // the program reads no more
)

// Codes of a session's end.
const (
	closed   quicgo.ApplicationErrorCode = 0
	protocol quicgo.ApplicationErrorCode = 1
)

// Frames of the session's own stream: a kind and eight bytes.
const (
	frameHello = 0x0 // the first, from the agent; it makes the forwarder see the stream
	framePing  = 0x1
	framePong  = 0x2 // repeats the ping's eight bytes
	frameTaken = 0x3 // so many streams more were accepted
	frameSize  = 9
)

var errProtocol = errors.New("the peer broke the protocol")

// session is one QUIC connection.
type session struct {
	conn    *quicgo.Conn
	control *quicgo.Stream
	binding []byte
	admit   func() // of a listener; nil on the side that dialled
	done    chan struct{}
	loops   sync.WaitGroup

	mu         sync.Mutex
	err        error
	admitted   bool
	streams    map[*stream]struct{} // that have not ended
	waiting    []*stream            // of the peer, not yet accepted
	arrived    chan struct{}        // one signal: a stream waits
	onOpen     func(transport.Stream)
	unaccepted int           // opened here and not yet reported as taken
	openRoom   chan struct{} // closed when unaccepted falls; nil when nobody waits
	taken      int           // accepted here and not yet reported
	pings      map[uint64]chan struct{}
	lastPing   uint64
	frames     int // of a stranger
	bytes      int // of a stranger

	sending sync.Mutex // one frame at a time
}

// begin makes a session of a connection whose handshake is over. It calls ended when the
// connection has ended.
func begin(conn *quicgo.Conn, control *quicgo.Stream, admit, ended func()) (*session, error) {
	binding, err := transport.BindingOf(conn.ConnectionState().TLS)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, control: control, binding: binding, admit: admit, done: make(chan struct{}),
		admitted: admit == nil, streams: map[*stream]struct{}{}, arrived: make(chan struct{}, 1), pings: map[uint64]chan struct{}{}}
	s.loops.Go(s.readControl)
	s.loops.Go(s.acceptLoop)
	context.AfterFunc(conn.Context(), func() {
		s.finish(reason(context.Cause(conn.Context())))
		ended()
	})
	return s, nil
}

// reason says why a connection ended.
func reason(err error) error {
	var app *quicgo.ApplicationError
	var idle *quicgo.IdleTimeoutError
	switch {
	case errors.As(err, &app) && app.Remote && app.ErrorCode == closed:
		err = errors.New("the peer ended it")
	case errors.As(err, &app) && !app.Remote && app.ErrorCode == closed:
		return transport.ErrSessionClosed
	case errors.As(err, &idle):
		err = fmt.Errorf("nothing came for %v", deadAfter)
	}
	return fmt.Errorf("%w: %w", transport.ErrSessionClosed, err)
}

// finish ends the session, once.
func (s *session) finish(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	clear(s.streams)
	s.waiting, s.onOpen = nil, nil
	close(s.done)
	s.mu.Unlock()
}

// violated ends the session because of what the peer did.
func (s *session) violated(why string) {
	s.finish(fmt.Errorf("%w: %w: %s", transport.ErrSessionClosed, errProtocol, why))
	_ = s.conn.CloseWithError(protocol, why)
}

// acceptLoop takes the peer's streams.
func (s *session) acceptLoop() {
	for {
		q, err := s.conn.AcceptStream(s.conn.Context())
		if err != nil {
			return // the connection has ended
		}
		s.mu.Lock()
		if s.err != nil {
			s.mu.Unlock()
			return
		}
		if !s.admitted {
			s.mu.Unlock()
			s.violated("it has not been admitted and opens a stream")
			return
		}
		st := s.add(q)
		do := s.onOpen
		if do == nil {
			s.waiting = append(s.waiting, st)
			select {
			case s.arrived <- struct{}{}:
			default: // told already
			}
		}
		many := len(s.waiting) > backlog
		s.mu.Unlock()
		if many {
			s.violated("too many streams wait to be accepted")
			return
		}
		if do != nil {
			s.noteTaken()
			do(st)
		}
	}
}

// add makes a stream. The lock is held.
func (s *session) add(q *quicgo.Stream) *stream {
	st := newStream(s, q)
	s.streams[st] = struct{}{}
	return st
}

// Open begins a stream.
func (s *session) Open(ctx context.Context) (transport.Stream, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		if s.err != nil {
			s.mu.Unlock()
			return nil, s.err
		}
		if s.unaccepted < backlog {
			s.unaccepted++
			s.mu.Unlock()
			break
		}
		if s.openRoom == nil {
			s.openRoom = make(chan struct{})
		}
		room := s.openRoom
		s.mu.Unlock()
		select {
		case <-room:
		case <-s.done:
		case <-ctx.Done():
		}
	}
	q, err := s.conn.OpenStreamSync(ctx)
	if err != nil {
		s.letOpen(1)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		<-s.done
		return nil, s.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	return s.add(q), nil
}

// letOpen makes room for n more opens. It returns false if there were not so many.
func (s *session) letOpen(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.unaccepted {
		return false
	}
	s.unaccepted -= n
	if s.openRoom != nil {
		close(s.openRoom)
		s.openRoom = nil
	}
	return true
}

// Accept waits for the peer's next stream.
func (s *session) Accept(ctx context.Context) (transport.Stream, error) {
	for {
		s.mu.Lock()
		if s.err != nil {
			s.mu.Unlock()
			return nil, s.err
		}
		if len(s.waiting) > 0 {
			st := s.waiting[0]
			s.waiting[0] = nil
			if s.waiting = s.waiting[1:]; len(s.waiting) > 0 {
				select {
				case s.arrived <- struct{}{}: // another Accept may wait too
				default:
				}
			}
			s.mu.Unlock()
			s.noteTaken()
			return st, nil
		}
		s.mu.Unlock()
		select {
		case <-s.arrived:
		case <-s.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// OnOpen sets the function that is called with each stream of the peer.
func (s *session) OnOpen(do func(transport.Stream)) {
	s.mu.Lock()
	s.onOpen = do
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, st := range waiting {
		s.noteTaken()
		do(st)
	}
}

// noteTaken counts a stream that no longer waits, and reports some at a time.
func (s *session) noteTaken() {
	s.mu.Lock()
	s.taken++
	n := s.taken
	if n < backlog/4 {
		s.mu.Unlock()
		return
	}
	s.taken = 0
	s.mu.Unlock()
	if !s.send(frameTaken, uint64(n), false) {
		s.mu.Lock()
		s.taken += n // goes with the next report
		s.mu.Unlock()
	}
}

// send writes a frame of the session's own stream. Without wait it returns false if QUIC
// does not take the frame at once.
func (s *session) send(kind byte, value uint64, wait bool) bool {
	frame := binary.BigEndian.AppendUint64([]byte{kind}, value)
	s.sending.Lock()
	defer s.sending.Unlock()
	if wait {
		_, err := s.control.Write(frame)
		return err == nil
	}
	return s.control.TryWriteAll(frame) == nil
}

// readControl reads the session's own stream. A peer that asks and does not read the
// answers is not read either.
func (s *session) readControl() {
	frame := make([]byte, frameSize)
	for {
		if _, err := io.ReadFull(s.control, frame); err != nil {
			if s.conn.Context().Err() == nil {
				s.violated("it ended the session's own stream")
			}
			return
		}
		s.mu.Lock()
		s.frames++
		flood := !s.admitted && s.frames > guestFrames
		s.mu.Unlock()
		if flood {
			s.violated("it has not been admitted and has sent many frames")
			return
		}
		value := binary.BigEndian.Uint64(frame[1:])
		switch frame[0] {
		case frameHello:
		case framePing:
			s.send(framePong, value, true)
		case framePong:
			s.mu.Lock()
			if pong, ok := s.pings[value]; ok {
				delete(s.pings, value)
				close(pong)
			}
			s.mu.Unlock()
		case frameTaken:
			if value > backlog || !s.letOpen(int(value)) {
				s.violated("it accepted more streams than there are")
				return
			}
		default:
			s.violated(fmt.Sprintf("a frame of kind %d", frame[0]))
			return
		}
	}
}

// Ping measures one round trip to the peer's session layer.
func (s *session) Ping(ctx context.Context) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	pong := make(chan struct{})
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return 0, s.err
	}
	s.lastPing++
	id := s.lastPing
	s.pings[id] = pong
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.pings, id)
		s.mu.Unlock()
	}()
	start := time.Now()
	s.send(framePing, id, false) // if QUIC does not take it, ctx ends the wait
	select {
	case <-pong:
		return time.Since(start), nil
	case <-s.done:
		return 0, s.Err()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Admit tells the listener that the peer has proved who it is.
func (s *session) Admit() {
	s.mu.Lock()
	s.admitted = true
	s.mu.Unlock()
	if s.admit != nil {
		s.admit()
	}
}

// received counts the bytes of a stranger.
func (s *session) received(n int) {
	s.mu.Lock()
	flood := false
	if !s.admitted {
		s.bytes += n
		flood = s.bytes > guestBytes
	}
	s.mu.Unlock()
	if flood {
		s.violated("it has not been admitted and has sent many bytes")
	}
}

// Binding is the TLS channel binding.
func (s *session) Binding() []byte { return append([]byte(nil), s.binding...) }

// RemoteAddr is the peer's network address. It changes when the peer moves.
func (s *session) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// Done is closed when the session has ended.
func (s *session) Done() <-chan struct{} { return s.done }

// Scheme is quic.
func (s *session) Scheme() string { return Scheme }

// Err tells why the session ended.
func (s *session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// NumStreams counts streams that have not ended.
func (s *session) NumStreams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// Close ends the session, resets its streams and waits for its goroutines.
func (s *session) Close() error {
	s.finish(transport.ErrSessionClosed)
	_ = s.conn.CloseWithError(closed, "")
	s.loops.Wait()
	return nil
}
