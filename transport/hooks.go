package transport

import (
	"context"
	"sync"
)

// A goroutine that only waits, for the next stream of a peer or for the next message on
// a stream, costs an idle session several kilobytes. OnOpen, OnRead and OnReset call a
// function instead.

// AcceptEach implements OnOpen for a carrier that has only Accept. It uses a goroutine
// that ends with the session.
func AcceptEach(s interface {
	Accept(context.Context) (Stream, error)
}, do func(Stream)) {
	go func() {
		for {
			st, err := s.Accept(context.Background())
			if err != nil {
				return
			}
			do(st)
		}
	}()
}

// OnOpen sets the function that is called with each stream of the peer.
func (s *muxSession) OnOpen(do func(Stream)) {
	s.mu.Lock()
	s.onOpen = do
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, st := range waiting {
		if s.take(st) {
			do(st)
		}
	}
}

// OnRead makes do be called when there is something to read.
func (st *muxStream) OnRead(do func()) (now func()) {
	r := &reading{st: st, do: do}
	st.s.mu.Lock()
	st.onRead = r
	ready := st.readErr() != nil || st.in.size > 0 || st.finGot || st.wasReset
	st.s.mu.Unlock()
	if ready {
		r.now()
	}
	return r.now
}

// reading is the hook of OnRead.
type reading struct {
	st   *muxStream
	do   func()
	once sync.Once
}

func (r *reading) wake(*later) { r.now() }

func (r *reading) now() {
	r.once.Do(func() {
		r.st.unwatch(r, nil)
		go r.do()
	})
}

// OnReset makes do be called when the stream has failed, or the peer reads no more.
func (st *muxStream) OnReset(do func()) (stop func()) {
	r := &ending{st: st, do: do}
	st.watch(nil, r)
	r.wake(nil) // it may have ended before
	return func() {
		r.once.Do(func() {})
		st.unwatch(nil, r)
	}
}

// ending is the hook of OnReset.
type ending struct {
	st   *muxStream
	do   func()
	once sync.Once
}

func (r *ending) wake(*later) {
	r.st.s.mu.Lock()
	over := r.st.failed != nil || r.st.wasReset || r.st.resets || r.st.stopGot
	r.st.s.mu.Unlock()
	if over {
		r.once.Do(func() { go r.do() })
	}
}

// OnOpen sets the function that is called with each stream of the peer.
func (s *memorySession) OnOpen(do func(Stream)) { AcceptEach(s, do) }

// OnRead makes do be called when there is something to read.
func (s *memoryStream) OnRead(do func()) (now func()) {
	p, from := s.pair, 1-s.side
	asked := false // guarded by p.mu
	go func() {    // ends with the stream
		p.mu.Lock()
		for !asked && !p.closed[s.side] && p.err == nil && p.bytes[from].size == 0 && !p.eof[from] && !p.broken[from] && !p.broken[s.side] {
			s.readable.Wait()
		}
		p.mu.Unlock()
		do()
	}()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		asked = true
		s.readable.Broadcast()
	}
}

// OnReset makes do be called when the stream has failed, or the peer reads no more.
func (s *memoryStream) OnReset(do func()) (stop func()) {
	p, peer := s.pair, 1-s.side
	var once sync.Once
	look := func() {
		p.mu.Lock()
		over := p.err != nil || p.broken[s.side] || p.broken[peer] || p.deaf[peer]
		p.mu.Unlock()
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
