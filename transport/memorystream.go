package transport

import (
	"io"
	"net"
	"sync"
	"time"
)

// memoryWindow bounds what one direction of a stream in memory holds.
const memoryWindow = 64 << 10

// memoryPair is a stream in memory: its two ends and what is under way.
type memoryPair struct {
	link *memoryLink
	ends [2]memoryStream
	gone [2]bool // this side counts it no more; guarded by link.mu

	mu     sync.Mutex
	bytes  [2][]byte // written by this side, not yet read by the other
	eof    [2]bool   // this side ended its writing
	closed [2]bool   // this side closed
	err    error     // both sides ended at once: ErrReset or ErrSessionClosed
}

func newMemoryPair(l *memoryLink) *memoryPair {
	p := &memoryPair{link: l}
	for i := range p.ends {
		p.ends[i] = memoryStream{pair: p, side: i}
		p.ends[i].readable.L = &p.mu
		p.ends[i].writable.L = &p.mu
	}
	return p
}

// wake wakes everybody; the lock is held.
func (p *memoryPair) wake() {
	for i := range p.ends {
		p.ends[i].readable.Broadcast()
		p.ends[i].writable.Broadcast()
	}
}

// fail ends both sides at once.
func (p *memoryPair) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
		p.bytes = [2][]byte{}
	}
	p.wake()
	p.mu.Unlock()
	p.link.ended(p, 0)
	p.link.ended(p, 1)
}

// memoryStream is one end of a memoryPair.
type memoryStream struct {
	pair *memoryPair
	side int

	// guarded by pair.mu
	readable, writable sync.Cond
	readBy, writeBy    deadline
}

func (s *memoryStream) Read(b []byte) (int, error) {
	p, from := s.pair, 1-s.side
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.closed[s.side]:
			return 0, net.ErrClosed
		case p.err != nil:
			return 0, p.err
		case s.readBy.passed:
			return 0, s.readBy.err()
		case len(b) == 0:
			return 0, nil
		case len(p.bytes[from]) > 0:
			n := copy(b, p.bytes[from])
			p.bytes[from] = p.bytes[from][n:]
			if len(p.bytes[from]) == 0 {
				p.bytes[from] = nil // an idle stream holds no buffer
			}
			p.ends[from].writable.Broadcast()
			return n, nil
		case p.eof[from]:
			return 0, io.EOF
		}
		s.readable.Wait()
	}
}

func (s *memoryStream) Write(b []byte) (n int, err error) {
	p, to := s.pair, 1-s.side
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.closed[s.side], p.eof[s.side]:
			return n, net.ErrClosed
		case p.err != nil:
			return n, p.err
		case p.closed[to]:
			return n, ErrReset
		case s.writeBy.passed:
			return n, s.writeBy.err()
		case len(b) == 0:
			return n, nil
		}
		if free := memoryWindow - len(p.bytes[s.side]); free > 0 {
			part := b[:min(free, len(b))]
			p.bytes[s.side] = append(p.bytes[s.side], part...)
			n, b = n+len(part), b[len(part):]
			p.ends[to].readable.Broadcast()
			continue
		}
		s.writable.Wait()
	}
}

func (s *memoryStream) CloseWrite() error {
	p := s.pair
	p.mu.Lock()
	if p.closed[s.side] {
		p.mu.Unlock()
		return net.ErrClosed
	}
	err := p.err
	p.eof[s.side] = true
	both := p.eof[1-s.side]
	p.wake()
	p.mu.Unlock()
	if both {
		p.link.ended(p, 0)
		p.link.ended(p, 1)
	}
	return err
}

func (s *memoryStream) Close() error {
	p := s.pair
	p.mu.Lock()
	p.closed[s.side], p.eof[s.side] = true, true
	p.bytes[1-s.side] = nil
	s.readBy.stop()
	s.writeBy.stop()
	both := p.eof[1-s.side]
	p.wake()
	p.mu.Unlock()
	p.link.ended(p, s.side)
	if both {
		p.link.ended(p, 1-s.side)
	}
	return nil
}

func (s *memoryStream) Reset() error {
	s.pair.fail(ErrReset)
	return nil
}

func (s *memoryStream) SetReadDeadline(t time.Time) error {
	s.pair.mu.Lock()
	defer s.pair.mu.Unlock()
	s.readBy.move(t, &s.readable)
	return nil
}

func (s *memoryStream) SetWriteDeadline(t time.Time) error {
	s.pair.mu.Lock()
	defer s.pair.mu.Unlock()
	s.writeBy.move(t, &s.writable)
	return nil
}

func (s *memoryStream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

func (s *memoryStream) LocalAddr() net.Addr  { return memoryAddr{} }
func (s *memoryStream) RemoteAddr() net.Addr { return memoryAddr{} }
