package transport

import (
	"context"
	"crypto/rand"
	"net"
	"sync"
	"time"
)

// memoryBacklog is how many opened streams may wait to be accepted.
const memoryBacklog = 256

// Pipe gives the two ends of a session in memory, for tests of code that uses sessions.
// It has no socket and no goroutine, so it works in virtual time too.
func Pipe() (Session, Session) {
	binding := make([]byte, 32)
	_, _ = rand.Read(binding) // never fails, see its documentation
	link := &memoryLink{done: make(chan struct{}), binding: binding}
	for i := range link.ends {
		link.ends[i] = &memorySession{link: link, side: i, accept: make(chan *memoryStream, memoryBacklog)}
	}
	return link.ends[0], link.ends[1]
}

// Pair gives the two ends of one stream in memory, for a protocol that is spoken in
// this process.
func Pair() (Stream, Stream) {
	p := newMemoryPair(&memoryLink{})
	return &p.ends[0], &p.ends[1]
}

// memoryLink is the common part of both ends of a session in memory.
type memoryLink struct {
	binding []byte
	ends    [2]*memorySession
	done    chan struct{}

	mu    sync.Mutex // before memoryPair.mu
	err   error      // why the session ended
	pairs map[*memoryPair]struct{}
	live  [2]int // streams that have not ended, as each side counts
}

func (l *memoryLink) close() {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = ErrSessionClosed
	pairs := l.pairs
	l.pairs, l.live = nil, [2]int{}
	close(l.done)
	l.mu.Unlock()
	for p := range pairs {
		p.fail(ErrSessionClosed)
	}
}

func (l *memoryLink) ended(p *memoryPair, side int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || p.gone[side] {
		return
	}
	p.gone[side] = true
	l.live[side]--
	if p.gone[0] && p.gone[1] {
		delete(l.pairs, p)
	}
}

// memorySession is one end of a memoryLink.
type memorySession struct {
	link   *memoryLink
	side   int
	accept chan *memoryStream
}

func (s *memorySession) Open(ctx context.Context) (Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := newMemoryPair(s.link)
	s.link.mu.Lock()
	if s.link.err != nil {
		s.link.mu.Unlock()
		return nil, ErrSessionClosed
	}
	if s.link.pairs == nil {
		s.link.pairs = make(map[*memoryPair]struct{})
	}
	s.link.pairs[p] = struct{}{}
	s.link.live[0]++
	s.link.live[1]++
	s.link.mu.Unlock()
	select {
	case s.link.ends[1-s.side].accept <- &p.ends[1-s.side]:
		return &p.ends[s.side], nil
	case <-s.link.done:
		return nil, ErrSessionClosed
	case <-ctx.Done():
		p.fail(ErrReset)
		return nil, ctx.Err()
	}
}

func (s *memorySession) Accept(ctx context.Context) (Stream, error) {
	select {
	case <-s.link.done: // a stream that nobody accepted has ended with the session
		return nil, ErrSessionClosed
	default:
	}
	select {
	case stream := <-s.accept:
		return stream, nil
	case <-s.link.done:
		return nil, ErrSessionClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *memorySession) Ping(ctx context.Context) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if s.Err() != nil {
		return 0, ErrSessionClosed
	}
	return 0, nil
}

func (s *memorySession) Err() error {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.link.err
}

func (s *memorySession) NumStreams() int {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.link.live[s.side]
}

func (s *memorySession) Binding() []byte       { return append([]byte(nil), s.link.binding...) }
func (s *memorySession) RemoteAddr() net.Addr  { return memoryAddr{} }
func (s *memorySession) Done() <-chan struct{} { return s.link.done }
func (s *memorySession) Admit()                {}
func (s *memorySession) Close() error          { s.link.close(); return nil }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// MemoryListener is a Listener whose sessions begin with its Dial.
type MemoryListener struct {
	sessions chan Session
	done     chan struct{}
	once     sync.Once
}

// ListenMemory makes a listener that needs no network.
func ListenMemory() *MemoryListener {
	return &MemoryListener{sessions: make(chan Session), done: make(chan struct{})}
}

// Dial begins a session and waits until it is accepted.
func (l *MemoryListener) Dial(ctx context.Context) (Session, error) {
	ours, theirs := Pipe()
	select {
	case l.sessions <- theirs:
		return ours, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept waits for the next session.
func (l *MemoryListener) Accept(ctx context.Context) (Session, error) {
	select {
	case s := <-l.sessions:
		return s, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Addr is the address of everything in memory.
func (l *MemoryListener) Addr() net.Addr { return memoryAddr{} }

// Close ends the listener.
func (l *MemoryListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}
