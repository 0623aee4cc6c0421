package transport

import "fmt"

// The goroutine that makes a small frame also writes it, if the connection accepts it
// without a wait. The writer goroutine writes large frames, and all bytes that the
// connection did not accept. If the writer wrote small frames too, it would have to be
// woken for each of them. A byte passes three programs on its way, and these wake-ups
// would be most of its time.

// promptBatches is how many batches a goroutine writes at most when it has begun to
// write. The writer gathers further frames of other goroutines into fewer batches.
const promptBatches = 4

// later is a list of writes that a goroutine postpones until its other work is done.
// The reader handles all received frames, and then writes once to each destination.
type later struct{ list []postponed }

// postponed is a destination that has something to write.
type postponed interface {
	write() // writes now, as far as that needs no wait
	hand()  // leaves the write to another goroutine
}

// manyLater is the longest list.
const manyLater = 64

// add puts p on the list. It returns false when the list is full and must be written.
func (l *later) add(p postponed) bool {
	for _, other := range l.list {
		if other == p {
			return true
		}
	}
	l.list = append(l.list, p)
	return len(l.list) < manyLater
}

// write writes everything on the list, and puts nothing on it.
func (l *later) write() {
	for i, p := range l.list {
		l.list[i] = nil
		p.write()
	}
	l.list = l.list[:0]
}

// writeAll is write for a goroutine that is not the reader of a session. Such a
// goroutine may take longer.
func (l *later) writeAll() {
	for i, p := range l.list {
		l.list[i] = nil
		if s, ok := p.(*muxSession); ok {
			s.mu.Lock()
			s.releaseAll()
		} else {
			p.write()
		}
	}
	l.list = l.list[:0]
}

// hand leaves everything on the list to other goroutines.
func (l *later) hand() {
	for i, p := range l.list {
		l.list[i] = nil
		p.hand()
	}
	l.list = l.list[:0]
}

func (s *muxSession) write() {
	s.mu.Lock()
	s.release(nil)
}

func (s *muxSession) hand() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.writing && !s.idle() {
		s.wakeWriter()
	}
}

// release releases the lock, and makes sure that pending frames are written. There are
// four cases: another goroutine is writing and will write them too; the session is put
// on l; release writes them now, if that needs no wait; or the writer writes them.
func (s *muxSession) release(l *later) {
	switch {
	case s.writing:
	case s.idle():
		if !s.running && s.held() {
			s.wakeWriter()
		}
	case s.rest || s.bye || !s.prompt(false):
		s.wakeWriter()
	case l == nil:
		s.writeNow(false) // releases the lock
		return
	default:
		if !l.add(s) {
			s.mu.Unlock()
			l.write()
			return
		}
	}
	s.mu.Unlock()
}

// prompt reports whether the next frame can be written without a wait. The caller holds
// the lock.
func (s *muxSession) prompt(large bool) bool {
	if s.config.beneath == nil || s.config.beneath.now == nil || len(s.urgent) > keptUrgent {
		return false
	}
	return large || len(s.urgent) > 0 || !s.large(s.next())
}

// releaseAll is release for a goroutine that is not the reader of a session and has
// nothing else to do. It writes large frames too: otherwise the writer would have to
// be woken for each batch.
func (s *muxSession) releaseAll() {
	if s.writing || s.idle() || s.rest || s.bye || !s.prompt(true) {
		s.release(nil)
		return
	}
	s.writeNow(true)
}

// writeNow writes small frames, and large ones if large is set, as long as the
// connection takes them at once. It leaves the rest to the writer. The lock is held
// at the call and released at the return.
func (s *muxSession) writeNow(large bool) {
	b := &s.batch
	var l later
	for range promptBatches {
		s.writing = true
		s.compose(b, !large)
		s.mu.Unlock()
		b.wake(&l)
		s.config.beneath.begin()
		err := s.encrypt(b)
		all := true
		if err == nil {
			all, err = s.config.beneath.endNow()
		}
		s.mu.Lock()
		s.writing = false
		if err != nil {
			b.drop()
			s.wakeWriter() // when the session ended, the writer may have found writing set, and gone to sleep
			s.mu.Unlock()
			l.hand()
			s.end(fmt.Errorf("%w: %w", ErrSessionClosed, err), byeClosed)
			return
		}
		s.rest = !all
		if s.rest || s.bye || s.idle() || !s.prompt(large) {
			break
		}
	}
	if s.idle() {
		b.drop()
	}
	if s.rest || s.bye || !s.idle() || s.held() {
		s.wakeWriter()
	}
	s.mu.Unlock()
	l.hand()
}
