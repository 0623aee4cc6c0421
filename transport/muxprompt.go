package transport

import "fmt"

// Small frames are written by the goroutine that has them, if the connection
// takes them without anybody waiting; what it does not take, and what is large,
// is the writer's. A sleeping writer would have to be woken for each of them,
// which on a byte's way through three programs is most of the time it takes.

// promptBatches is how many batches somebody writes who came to write one. What
// others add meanwhile is better gathered by the writer.
const promptBatches = 4

// later are sessions with something to write, noted by a goroutine that has more
// to do before: the reader handles all that has come, and then writes once to
// each session it has given something.
type later struct{ sessions []*muxSession }

// manyLater is how many sessions are noted at most.
const manyLater = 64

func (l *later) add(s *muxSession) {
	for _, other := range l.sessions {
		if other == s {
			return
		}
	}
	l.sessions = append(l.sessions, s)
}

// write writes what was put off.
func (l *later) write() {
	for i, s := range l.sessions {
		l.sessions[i] = nil
		s.mu.Lock()
		s.release(nil)
	}
	l.sessions = l.sessions[:0]
}

// hand leaves what was put off to the writers.
func (l *later) hand() {
	for i, s := range l.sessions {
		l.sessions[i] = nil
		s.mu.Lock()
		if !s.writing && !s.idle() {
			s.work.Signal()
		}
		s.mu.Unlock()
	}
	l.sessions = l.sessions[:0]
}

// release gives the lock back, and sees to what there is to write: whoever writes
// comes to it, or it is put off to l, or written now where that needs no waiting,
// or left to the writer.
func (s *muxSession) release(l *later) {
	switch {
	case s.writing || s.idle():
	case s.rest || s.bye || !s.prompt():
		s.work.Signal()
	case l == nil:
		s.writeNow() // gives the lock back
		return
	default:
		l.add(s)
		if len(l.sessions) == manyLater {
			s.mu.Unlock()
			l.write()
			return
		}
	}
	s.mu.Unlock()
}

// prompt tells whether what is next can be written without waiting. The lock is
// held.
func (s *muxSession) prompt() bool {
	if s.config.beneath == nil || s.config.beneath.now == nil || len(s.urgent) > keptUrgent {
		return false
	}
	return len(s.urgent) > 0 || !s.first.large()
}

// writeNow writes small frames as far as the connection takes them at once, and
// leaves the rest to the writer. The lock is held, and given back.
func (s *muxSession) writeNow() {
	b := &s.batch
	var l later
	for range promptBatches {
		s.writing = true
		s.compose(b, true)
		s.mu.Unlock()
		b.wake(&l)
		s.config.beneath.begin()
		err := s.write(b)
		all := true
		if err == nil {
			all, err = s.config.beneath.endNow()
		}
		s.mu.Lock()
		s.writing = false
		if err != nil {
			b.drop()
			s.work.Signal() // it may have seen writing when the session ended
			s.mu.Unlock()
			l.hand()
			s.end(fmt.Errorf("%w: %w", ErrSessionClosed, err), byeClosed)
			return
		}
		s.rest = !all
		if s.rest || s.bye || s.idle() || !s.prompt() {
			break
		}
	}
	if s.idle() {
		b.drop()
	}
	if s.rest || s.bye || !s.idle() {
		s.work.Signal()
	}
	s.mu.Unlock()
	l.hand()
}
