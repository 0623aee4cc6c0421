package transport

import "fmt"

// Small frames are written by the goroutine that has them, if the connection
// takes them without anybody waiting; what it does not take, and what is large,
// is the writer's. A sleeping writer would have to be woken for each of them,
// which on a byte's way through three programs is most of the time it takes.

// promptBatches is how many batches somebody writes who came to write one. What
// others add meanwhile is better gathered by the writer.
const promptBatches = 4

// later is what a goroutine notes that has more to do before: the reader handles
// all that has come, and then writes once to each place it has given something.
type later struct{ list []postponed }

// postponed has something to write.
type postponed interface {
	write() // at once, as far as that needs no waiting
	hand()  // leaves it to another goroutine
}

// manyLater is how much is noted at most.
const manyLater = 64

// add notes p. It tells false when it is time to write.
func (l *later) add(p postponed) bool {
	for _, other := range l.list {
		if other == p {
			return true
		}
	}
	l.list = append(l.list, p)
	return len(l.list) < manyLater
}

// write writes what was put off. Nothing is put off by that.
func (l *later) write() {
	for i, p := range l.list {
		l.list[i] = nil
		p.write()
	}
	l.list = l.list[:0]
}

// writeAll is write for a goroutine that is no session's reader, and may take its
// time.
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

// hand leaves what was put off to others.
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

// release gives the lock back, and sees to what there is to write: whoever writes
// comes to it, or it is put off to l, or written now where that needs no waiting,
// or left to the writer.
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
		s.writeNow(false) // gives the lock back
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

// prompt tells whether what is next can be written without waiting. The lock is
// held.
func (s *muxSession) prompt(large bool) bool {
	if s.config.beneath == nil || s.config.beneath.now == nil || len(s.urgent) > keptUrgent {
		return false
	}
	return large || len(s.urgent) > 0 || !s.large(s.next())
}

// releaseAll is release for a goroutine that is no session's reader and has nothing
// else to do: it writes large frames too, which would otherwise take another
// goroutine to be woken for each batch.
func (s *muxSession) releaseAll() {
	if s.writing || s.idle() || s.rest || s.bye || !s.prompt(true) {
		s.release(nil)
		return
	}
	s.writeNow(true)
}

// writeNow writes small frames as far as the connection takes them at once, and
// leaves the rest to the writer. The lock is held, and given back.
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
			s.wakeWriter() // it may have seen writing when the session ended
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
