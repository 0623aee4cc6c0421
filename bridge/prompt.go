package bridge

import (
	"sync"

	"github.com/tunnox-net/tunnox/transport"
)

// A stream can be read and written without blocking. So a forwarder needs no goroutine
// to join it to an agent's stream, and no thread has to be woken for one.
var _ transport.Prompt = (*stream)(nil)

// ReadNow gives received bytes, or 0.
func (s *stream) ReadNow(b []byte) (int, error) {
	s.mu.Lock()
	defer s.unlock()
	return s.read(b)
}

// WriteNow sends as much as there is room for.
func (s *stream) WriteNow(pieces [][]byte) (int, error) {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	s.mu.Lock()
	defer s.unlock()
	n, err := s.write(pieces, size)
	s.wanting = s.wanting || n < size
	return n, err
}

// Watch sets the functions that are called when ReadNow and WriteNow can make progress.
func (s *stream) Watch(onRead, onRoom func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if onRead != nil {
		s.onRead = onRead
	}
	if onRoom != nil {
		s.onRoom = onRoom
	}
}

// OnRead has do called once, in a goroutine of its own, when there is something to read.
// It replaces Watch's onRead.
func (s *stream) OnRead(do func()) (now func()) {
	var once sync.Once
	now = func() { once.Do(func() { go do() }) }
	s.mu.Lock()
	s.onRead = now
	ready := s.closed || s.err != nil || s.queued > 0 || s.eof || s.wasReset
	s.mu.Unlock()
	if ready {
		now()
	}
	return now
}

// OnReset makes do be called when the stream has failed, or the peer reads no more. It
// is Watch's onRoom until then.
func (s *stream) OnReset(do func()) (stop func()) {
	var once sync.Once
	look := func() {
		s.mu.Lock()
		over := s.err != nil || s.wasReset || s.peerClosed || s.cut != nil
		s.mu.Unlock()
		if over {
			once.Do(func() { go do() })
		}
	}
	s.Watch(nil, look)
	look() // it may have ended before
	return func() {
		once.Do(func() {})
		s.Watch(nil, func() {})
	}
}

// canRead wakes readers. The caller holds the lock.
func (s *stream) canRead() {
	s.readable.Broadcast()
	s.tellRead = true
}

// hasRoom wakes those who wait for room. The caller holds the lock.
func (s *stream) hasRoom() {
	s.writable.Broadcast()
	if s.wanting {
		s.wanting, s.tellRoom = false, true
	}
}

// failWrite wakes present and later writers, because writing is over. The caller holds
// the lock.
func (s *stream) failWrite() {
	s.writable.Broadcast()
	s.tellRoom = true
}

// unlock releases the lock and calls the functions of Watch that are due.
func (s *stream) unlock() {
	var onRead, onRoom func()
	if s.tellRead {
		s.tellRead, onRead = false, s.onRead
	}
	if s.tellRoom {
		s.tellRoom, onRoom = false, s.onRoom
	}
	s.mu.Unlock()
	if onRead != nil {
		onRead()
	}
	if onRoom != nil {
		onRoom()
	}
}
