package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// muxSession carries many streams over one connection. One goroutine reads the
// connection, and one writes to it while there is much to write. A stream has no
// goroutine. The goroutine that makes a small frame writes it, as long as the connection
// takes it at once: waking the writer would cost more than the write (muxprompt.go).
//
// One lock guards the session and all its streams. The work under the lock is a few
// pointers, and only the connection's two goroutines take the lock for every frame.
// Nothing blocks and no hook is called while the lock is held. The locks of two sessions
// are never held together. A goroutine that may have added something to write gives the
// lock back with release.
type muxSession struct {
	conn    net.Conn
	config  SessionConfig
	binding []byte
	done    chan struct{}
	loops   sync.WaitGroup
	began   time.Time
	heard   atomic.Int64 // when the last bytes came, as time since began

	mu       sync.Mutex
	err      error
	streams  map[uint64]*muxStream   // live streams that both ends know
	silent   map[*muxStream]struct{} // streams opened here that the peer has not heard of
	nextID   uint64                  // id of the next stream that the peer is told of
	lastPeer uint64                  // highest id that the peer opened
	peers    int                     // live streams that the peer opened
	waiting  []*muxStream            // streams of the peer that wait for Accept
	onOpen   func(Stream)            // takes the peer's streams instead of Accept, if set
	arrived  chan struct{}           // tells Accept that a stream waits; made by Accept

	unaccepted int           // streams opened here that the peer has not reported as taken
	openRoom   chan struct{} // closed when unaccepted falls; nil when no Open waits
	taken      int           // streams accepted here and not yet reported to the peer

	// Frames and streams to write. urgent goes first.
	work        sync.Cond // the writer waits here while another goroutine writes
	urgent      []byte    // whole frames
	fresh, bulk streamQueue
	pace        linkPace
	alarm       *time.Timer // wakes the writer for bulk; nil before the first
	bye         bool        // urgent is the last thing to write
	rest        bool        // the carrier holds what the connection did not take at once
	writing     bool        // a goroutine composes and writes; it owns the batch
	batch       batch       // guarded by writing, not by mu
	running     bool        // the writer runs, or has ended with the session

	late later // used by the reader only

	dialLane func(context.Context) (*LaneCall, error) // begins a lane beside the session; nil: there are none

	guest *guest // set until Admit, when a listener watches the session

	extra int           // sum over the streams of what their windows have above startWindow
	lent  int           // sum of what streams still have above windows that were taken back
	swept time.Duration // when growth was last taken back, as time since began
	rtt   time.Duration // last measured round trip, 0 before the first

	pings    map[uint64]chan struct{} // unanswered calls of Ping; nil before the first
	lastPing uint64
	probe    uint64 // the last ping of beat
	probing  bool   // probe is unanswered

	beating beating // guarded by config.beats, not by mu
}

// windowBudget bounds the growth of all windows of a session together, above startWindow
// for each stream.
const windowBudget = 32 << 20

// maxUrgent bounds the answers that wait because the peer does not read.
const maxUrgent = 1 << 20

// Multiplex makes a session on a connection that is encrypted and authenticated, such
// as TLS over something other than a socket. client tells whether this side began the
// connection. binding is a value that only the two ends can compute. The session owns
// conn.
func Multiplex(conn net.Conn, client bool, binding []byte, config SessionConfig) Session {
	return newMux(conn, client, binding, config)
}

// newMux puts a multiplexer on a connection. The side that began the connection
// is the client. The session owns conn.
func newMux(conn net.Conn, client bool, binding []byte, config SessionConfig) *muxSession {
	s := &muxSession{
		conn: conn, config: config.withDefaults(), binding: binding, began: time.Now(),
		done:    make(chan struct{}),
		streams: make(map[uint64]*muxStream), silent: make(map[*muxStream]struct{}), nextID: 2,
	}
	if s.config.beats == nil {
		s.config.beats = newHeartbeats(s.config.PingEvery)
	}
	if forget := s.config.onAdmit; forget != nil {
		s.guest = new(guest)
		s.config.onAdmit = func() {
			s.guest.admitted.Store(true)
			forget()
		}
	}
	if client {
		s.nextID = 1
		// A side that hears a probe need not send one. The side that was dialled should
		// probe first, because it can probe many sessions at once.
		s.config.PingEvery += s.config.PingEvery / 4
	}
	s.work.L = &s.mu
	if s.config.beneath != nil {
		s.pace = newPace(s.config.beneath.Conn, s.config.Queued)
	}
	s.urgent = appendEcho(nil, framePing, 0) // measures the first round trip
	s.probing = true
	s.config.beats.add(s, min(s.config.PingEvery, s.config.DeadAfter-2*s.config.beats.step))
	if s.config.beneath != nil {
		s.config.beneath.beforeWait = s.late.write
	}
	s.loops.Go(s.readLoop)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeWriter()
	return s
}

// Open begins a stream. It fails when the session has ended.
func (s *muxSession) Open(ctx context.Context) (Stream, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, wait, err := s.tryOpen()
		if err != nil {
			return nil, err
		}
		if st != nil {
			return st, nil
		}
		select {
		case <-wait:
		case <-s.done:
		case <-ctx.Done():
		}
	}
}

// tryOpen returns a stream, or a channel that is closed when there may be room for one.
func (s *muxSession) tryOpen() (*muxStream, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return nil, nil, s.err
	case s.nextID+2*uint64(len(s.silent)) > maxStreamID:
		return nil, nil, fmt.Errorf("%w: it has no stream ids left", ErrSessionClosed)
	case s.unaccepted >= backlog:
		if s.openRoom == nil {
			s.openRoom = make(chan struct{})
		}
		return nil, s.openRoom, nil
	}
	st := newMuxStream(s, 0) // the first frame sets the id, so that ids rise on the wire
	s.unaccepted++
	s.silent[st] = struct{}{}
	return st, nil, nil
}

// letOpen makes room for n more opens. The lock is held.
func (s *muxSession) letOpen(n int) {
	s.unaccepted -= n
	if s.openRoom != nil {
		close(s.openRoom)
		s.openRoom = nil
	}
}

// Accept waits for the peer's next stream.
func (s *muxSession) Accept(ctx context.Context) (Stream, error) {
	for {
		st, arrived, err := s.tryAccept()
		if st != nil && s.take(st) {
			return st, nil
		}
		if err != nil {
			return nil, err
		}
		if st != nil {
			continue
		}
		select {
		case <-arrived:
		case <-s.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryAccept returns the stream that has waited longest, or a channel that tells when
// there may be one. The end of the session also ends the streams that still wait.
func (s *muxSession) tryAccept() (*muxStream, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, nil, s.err
	}
	if s.arrived == nil {
		s.arrived = make(chan struct{}, 1)
	}
	if len(s.waiting) == 0 {
		s.waiting = nil // frees the array
		return nil, s.arrived, nil
	}
	st := s.waiting[0]
	s.waiting[0] = nil
	s.waiting = s.waiting[1:]
	if len(s.waiting) > 0 {
		s.tellArrived() // another Accept may wait too
	}
	return st, nil, nil
}

// tellArrived wakes an Accept. The lock is held.
func (s *muxSession) tellArrived() {
	select {
	case s.arrived <- struct{}{}:
	default: // Accept was never called, or has been told already
	}
}

// take reports an accepted stream to the peer, a few streams at a time. It returns
// false if the stream was reset meanwhile and need not be accepted.
func (s *muxSession) take(st *muxStream) bool {
	s.mu.Lock()
	defer s.release(nil)
	s.noteTaken()
	return st.failed == nil
}

// noteTaken counts a stream of the peer that no longer waits. The lock is held.
func (s *muxSession) noteTaken() {
	s.taken++
	if s.taken >= backlog/4 {
		s.send(appendNumber(s.urgent, frameTaken, 0, uint32(s.taken)))
		s.taken = 0
	}
}

// Ping measures one round trip to the peer's multiplexer.
func (s *muxSession) Ping(ctx context.Context) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return 0, s.err
	}
	start := time.Now()
	pong := make(chan struct{})
	id := s.ping(pong)
	s.release(nil)
	defer func() {
		s.mu.Lock()
		delete(s.pings, id)
		s.mu.Unlock()
	}()
	select {
	case <-pong:
		return time.Since(start), nil
	case <-s.done:
		return 0, s.Err()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// ping sends a ping, whose answer closes pong. The lock is held.
func (s *muxSession) ping(pong chan struct{}) (id uint64) {
	id = s.pingID()
	if s.pings == nil {
		s.pings = make(map[uint64]chan struct{})
	}
	s.pings[id] = pong
	s.send(appendEcho(s.urgent, framePing, id))
	return id
}

// pingID returns the id of the next ping. The id is the time, so the answer tells the
// round trip. The lock is held.
func (s *muxSession) pingID() uint64 {
	s.lastPing = max(uint64(time.Since(s.began)), s.lastPing+1)
	return s.lastPing
}

// Binding is the TLS channel binding.
func (s *muxSession) Binding() []byte { return append([]byte(nil), s.binding...) }

// RemoteAddr is the peer's network address.
func (s *muxSession) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// Done is closed when the session has ended.
func (s *muxSession) Done() <-chan struct{} { return s.done }

// Err tells why the session ended.
func (s *muxSession) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// NumStreams counts streams that have not ended.
func (s *muxSession) NumStreams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams) + len(s.silent)
}

// Close ends the session, resets its streams and waits for its goroutines.
func (s *muxSession) Close() error {
	s.end(ErrSessionClosed, byeClosed)
	s.loops.Wait()
	return nil
}

// Admit tells the listener that the peer has proved who it is.
func (s *muxSession) Admit() {
	if s.config.onAdmit != nil {
		s.config.onAdmit()
	}
}

// errBye means that the peer ended the session with a bye frame.
var errBye = errors.New("the peer ended it")

// byeLimit is how long the write of the last frame may take.
const byeLimit = 250 * time.Millisecond

// end ends the session and its streams. The first call sets the reason. end sends the
// code to the peer if the connection still works.
func (s *muxSession) end(reason error, code uint32) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = reason
	hooks := make([]hook, 0, 2)
	for _, st := range s.streams {
		hooks = append(hooks, st.onRead, st.onRoom)
		st.fail(reason)
	}
	for st := range s.silent {
		hooks = append(hooks, st.onRead, st.onRoom)
		st.fail(reason)
	}
	clear(s.streams)
	clear(s.silent)
	s.fresh, s.bulk = streamQueue{}, streamQueue{}
	s.waiting, s.onOpen = nil, nil
	s.urgent = appendNumber(s.urgent[:0], frameBye, 0, code)
	s.bye = true
	s.wakeWriter()
	close(s.done)
	s.mu.Unlock()
	s.config.beats.remove(s)
	if errors.Is(reason, errBye) || code == byeDead {
		s.cut() // the peer does not listen any more
	} else {
		// The writer writes what is left and closes the connection. The deadline frees
		// the writer if the connection takes nothing, and the reader if nothing comes.
		_ = s.conn.SetDeadline(time.Now().Add(byeLimit))
	}
	for _, h := range hooks {
		if h != nil {
			h.wake(nil)
		}
	}
	if s.config.onEnd != nil {
		s.config.onEnd()
	}
}

// cut closes the connection without TLS's closing message. TLS would have to wait for
// the writer before it could send that, and the writer may be stuck.
func (s *muxSession) cut() {
	if s.config.beneath != nil {
		_ = s.config.beneath.Close()
	}
	_ = s.conn.Close()
}

// readBuffer is the size of the reader's own buffer. Headers and small frames pass
// through the buffer. The rest of a large body goes directly to its segment.
const readBuffer = 512

// records reads the connection, and knows whether a record was read to its end.
type records struct {
	net.Conn
	drained bool
}

func (r *records) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	if w, ok := r.Conn.(*webSocket); ok {
		r.drained = w.empty()
	} else {
		r.drained = n < len(b)
	}
	return n, err
}
