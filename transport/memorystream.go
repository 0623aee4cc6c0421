package transport

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/wait"
)

// memoryWindow bounds the bytes under way in one direction of a stream in memory.
const memoryWindow = 64 << 10

// memoryPair is a stream in memory: its two ends and the bytes under way.
type memoryPair struct {
	link *memoryLink
	ends [2]memoryStream
	gone [2]bool // this side does not count it any more; guarded by link.mu

	mu     sync.Mutex
	bytes  [2]segments // written by this side, not yet read by the other
	eof    [2]bool     // this side ended its writing
	closed [2]bool     // this side closed
	deaf   [2]bool     // this side reads no more
	broken [2]bool     // this side reset the stream after its written bytes
	err    error       // both sides ended at once: ErrReset or ErrSessionClosed

	tellRead, tellRoom [2]bool // call the side's hook when mu is released
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

// wake wakes all that wait. The caller holds the lock.
func (p *memoryPair) wake() {
	for i := range p.ends {
		p.canRead(i)
		p.hasRoom(i)
	}
}

// canRead wakes readers at the side. The caller holds the lock.
func (p *memoryPair) canRead(side int) {
	p.ends[side].readable.Broadcast()
	p.tellRead[side] = true
}

// hasRoom wakes writers at the side. The caller holds the lock.
func (p *memoryPair) hasRoom(side int) {
	p.ends[side].writable.Broadcast()
	p.tellRoom[side] = true
}

// unlock releases the lock and calls the hooks.
func (p *memoryPair) unlock() {
	var hooks [4]func()
	for i := range p.ends {
		if p.tellRead[i] {
			hooks[2*i] = p.ends[i].onRead
		}
		if p.tellRoom[i] {
			hooks[2*i+1] = p.ends[i].onRoom
		}
	}
	p.tellRead, p.tellRoom = [2]bool{}, [2]bool{}
	p.mu.Unlock()
	for _, hook := range hooks {
		if hook != nil {
			hook()
		}
	}
}

// fail ends both sides at once.
func (p *memoryPair) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
		p.bytes[0].drop()
		p.bytes[1].drop()
	}
	p.wake()
	p.unlock()
	p.link.ended(p, 0)
	p.link.ended(p, 1)
}

// memoryStream is one end of a memoryPair.
type memoryStream struct {
	pair *memoryPair
	side int

	// guarded by pair.mu
	readable, writable sync.Cond
	readBy, writeBy    wait.Deadline
	onRead, onRoom     func()
}

func (s *memoryStream) Read(b []byte) (int, error) {
	s.pair.mu.Lock()
	defer s.pair.unlock()
	for {
		n, err := s.read(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		s.readable.Wait()
	}
}

// read gives received bytes, or 0. The caller holds the lock.
func (s *memoryStream) read(b []byte) (int, error) {
	p, from := s.pair, 1-s.side
	switch {
	case p.closed[s.side]:
		return 0, net.ErrClosed
	case p.err != nil:
		return 0, p.err
	case p.broken[s.side]:
		return 0, ErrReset
	case p.deaf[s.side]:
		return 0, net.ErrClosed
	case s.readBy.Passed():
		return 0, s.readBy.Err()
	case len(b) == 0:
		return 0, nil
	case p.bytes[from].size > 0:
		n := p.bytes[from].read(b) // an idle stream holds no buffer
		p.hasRoom(from)
		return n, nil
	case p.broken[from]:
		return 0, ErrReset
	case p.eof[from]:
		return 0, io.EOF
	}
	return 0, nil
}

func (s *memoryStream) Write(b []byte) (n int, err error) {
	s.pair.mu.Lock()
	defer s.pair.unlock()
	for {
		m, err := s.write(b)
		n, b = n+m, b[m:]
		if err != nil || len(b) == 0 {
			return n, err
		}
		if m > 0 { // the hook's function reads and so makes room
			s.pair.unlock()
			s.pair.mu.Lock()
		} else {
			s.writable.Wait()
		}
	}
}

// write accepts as many bytes as there is room for, or 0. The caller holds the lock.
func (s *memoryStream) write(b []byte) (int, error) {
	p, to := s.pair, 1-s.side
	switch {
	case p.broken[s.side]:
		return 0, ErrReset
	case p.closed[s.side], p.eof[s.side]:
		return 0, net.ErrClosed
	case p.err != nil:
		return 0, p.err
	case p.deaf[to]:
		return 0, ErrStopped
	case s.writeBy.Passed():
		return 0, s.writeBy.Err()
	}
	n := min(memoryWindow-p.bytes[s.side].size, len(b))
	if n > 0 {
		p.bytes[s.side].add(b[:n])
		p.canRead(to)
	}
	return n, nil
}

// ReadNow gives received bytes, or 0.
func (s *memoryStream) ReadNow(b []byte) (int, error) {
	s.pair.mu.Lock()
	defer s.pair.unlock()
	return s.read(b)
}

// WriteNow accepts as many bytes as there is room for.
func (s *memoryStream) WriteNow(pieces [][]byte) (n int, err error) {
	s.pair.mu.Lock()
	defer s.pair.unlock()
	if len(pieces) == 0 {
		return s.write(nil)
	}
	for _, b := range pieces {
		m, err := s.write(b)
		n += m
		if err != nil || m < len(b) {
			return n, err
		}
	}
	return n, nil
}

// Watch sets the functions that are called when ReadNow and WriteNow can make progress.
func (s *memoryStream) Watch(onRead, onRoom func()) {
	s.pair.mu.Lock()
	defer s.pair.mu.Unlock()
	if onRead != nil {
		s.onRead = onRead
	}
	if onRoom != nil {
		s.onRoom = onRoom
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
	p.unlock()
	if both {
		p.link.ended(p, 0)
		p.link.ended(p, 1)
	}
	return err
}

func (s *memoryStream) Close() error {
	p := s.pair
	p.mu.Lock()
	p.closed[s.side], p.deaf[s.side], p.eof[s.side] = true, true, true
	p.bytes[1-s.side].drop()
	s.readBy.Stop()
	s.writeBy.Stop()
	both := p.eof[1-s.side]
	p.wake()
	p.unlock()
	p.link.ended(p, s.side)
	if both {
		p.link.ended(p, 1-s.side)
	}
	return nil
}

// StopRead ends the read side: the peer's writes fail from then on.
func (s *memoryStream) StopRead() error {
	p := s.pair
	p.mu.Lock()
	defer p.unlock()
	p.deaf[s.side] = true
	p.bytes[1-s.side].drop()
	p.wake()
	return nil
}

// ResetInOrder ends both sides, the write side after the written bytes.
func (s *memoryStream) ResetInOrder() error {
	p := s.pair
	p.mu.Lock()
	if p.err != nil || p.closed[s.side] || p.broken[s.side] {
		p.mu.Unlock()
		return nil //nolint:nilerr // it has ended already, which is what was asked for
	}
	p.broken[s.side], p.deaf[s.side] = true, true
	p.bytes[1-s.side].drop()
	p.wake()
	p.unlock()
	p.link.ended(p, 0)
	p.link.ended(p, 1)
	return nil
}

func (s *memoryStream) Reset() error {
	s.pair.fail(ErrReset)
	return nil
}

func (s *memoryStream) SetReadDeadline(t time.Time) error {
	s.pair.mu.Lock()
	defer s.pair.mu.Unlock()
	s.readBy.Move(t, &s.readable)
	return nil
}

func (s *memoryStream) SetWriteDeadline(t time.Time) error {
	s.pair.mu.Lock()
	defer s.pair.mu.Unlock()
	s.writeBy.Move(t, &s.writable)
	return nil
}

func (s *memoryStream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

func (s *memoryStream) LocalAddr() net.Addr  { return memoryAddr{} }
func (s *memoryStream) RemoteAddr() net.Addr { return memoryAddr{} }
