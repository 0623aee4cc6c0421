package transport

import (
	"context"
	"sync"
)

// Where somebody would only wait, for the next stream of a peer or for the next
// message on a stream, a goroutine that does so costs an idle session several
// kilobytes. OnOpen and OnRead call instead.

// OnOpen has do called with each stream that the peer opens, from now on and of
// those that were not accepted yet, until the session ends. It replaces Accept. do
// must not block: other streams of the session wait for it.
func OnOpen(s Session, do func(Stream)) {
	if s, ok := s.(interface{ onOpened(func(Stream)) }); ok {
		s.onOpened(do)
		return
	}
	go func() { // ends with the session
		for {
			st, err := s.Accept(context.Background())
			if err != nil {
				return
			}
			do(st)
		}
	}()
}

// OnRead has do called once, in a goroutine of its own, as soon as a Read of the
// stream would not wait: there is data, or the end, or the stream or its session has
// failed. Until then nobody else may read it. now has it called at once, if it was
// not. The stream is one of this package's sessions.
func OnRead(st Stream, do func()) (now func()) {
	return st.(interface{ onReadable(func()) func() }).onReadable(do)
}

func (s *muxSession) onOpened(do func(Stream)) {
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

func (st *muxStream) onReadable(do func()) (now func()) {
	r := &reading{st: st, do: do}
	st.s.mu.Lock()
	st.onRead = r
	ready := st.readErr() != nil || st.in.size > 0 || st.finGot
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

func (s *memoryStream) onReadable(do func()) (now func()) {
	p, from := s.pair, 1-s.side
	asked := false // guarded by p.mu
	go func() {    // ends with the stream
		p.mu.Lock()
		for !asked && !p.closed[s.side] && p.err == nil && len(p.bytes[from]) == 0 && !p.eof[from] {
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
