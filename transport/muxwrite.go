package transport

import (
	"fmt"
	"time"
)

// directBody is the smallest body that is written without a copy, as a TLS record of
// its own. Smaller bodies are copied together into one record.
const directBody = 4 << 10

// writePieces is how many large pieces one batch may have.
const writePieces = 4

// keptUrgent is the largest buffer for answers that a session keeps.
const keptUrgent = 4 << 10

// send sets the answers to write to b, which is s.urgent with a frame appended. The lock
// is held; release writes the answers.
func (s *muxSession) send(b []byte) {
	if s.bye {
		return // no frame may follow bye
	}
	s.urgent = b
}

// pending tells whether the stream has a frame to send. The lock is held.
func (st *muxStream) pending() bool {
	if st.gone || st.failed != nil {
		return false
	}
	return st.out.size > 0 || st.resets || (st.finAsked && !st.finSent && !st.stopGot) || st.mustStop()
}

// mustStop tells whether the peer has to be told that this side reads no more.
// The lock is held.
func (st *muxStream) mustStop() bool {
	return st.deaf && !st.finGot && !st.stopSent && !st.resets && !st.wasReset
}

// batch is the set of frames that are written at once.
type batch struct {
	scratch *segment              // holds small frames, one behind the other
	urgent  []byte                // answers that did not fit there
	direct  [writePieces]*segment // large frames
	frames  [writePieces][]byte   // the bytes of direct
	large   int                   // how many large frames there are
	hooks   []hook                // hooks of streams that have room again
	rest    bool                  // the bytes that the carrier still holds go first
	last    bool
}

// wakeWriter wakes the writer, or starts it. The lock is held.
func (s *muxSession) wakeWriter() {
	if s.running {
		s.work.Signal()
		return
	}
	s.running = true
	s.loops.Go(s.writeLoop) // safe: the reader still runs, or end has started the writer already
}

// writeLoop writes the frames that their makers did not write at once. It returns when
// there are no more: an idle session has no writer. Streams take turns of one frame. At
// the end of the session, writeLoop closes the connection.
func (s *muxSession) writeLoop() {
	b := &s.batch
	var l later
	s.mu.Lock()
	for {
		for s.writing {
			s.work.Wait()
		}
		if !s.bye && !s.rest && s.idle() {
			if s.held() {
				s.nap()
				continue
			}
			b.drop()
			s.running = false
			s.mu.Unlock()
			return
		}
		s.writing = true
		b.rest, s.rest = s.rest, false
		s.compose(b, false)
		b.last = s.bye
		s.mu.Unlock()
		b.wake(&l)
		l.hand()
		if err := s.flush(b); err != nil {
			s.end(fmt.Errorf("%w: %w", ErrSessionClosed, err), byeClosed)
			_ = s.conn.Close()
			return
		}
		if b.last {
			_ = s.conn.Close()
			return
		}
		s.mu.Lock()
		s.writing = false
	}
}

// nap waits until bulk may go on, or until there is something else to write. The lock is
// held, except during the wait.
func (s *muxSession) nap() {
	if !s.pace.asleep {
		s.pace.asleep = true
		if s.alarm == nil {
			s.alarm = time.AfterFunc(s.pace.nap(), s.rouse)
		} else {
			s.alarm.Reset(s.pace.nap())
		}
	}
	s.work.Wait()
}

// rouse lets bulk look whether it may go on.
func (s *muxSession) rouse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pace.asleep = false
	s.work.Signal()
}

// wake calls the hooks of the batch.
func (b *batch) wake(l *later) {
	for i, h := range b.hooks {
		h.wake(l)
		b.hooks[i] = nil
	}
}

// drop gives back the buffer for small frames: an idle session has none.
func (b *batch) drop() {
	if b.scratch != nil {
		b.scratch.free()
		b.scratch = nil
	}
}

// size is the number of bytes in the batch.
func (b *batch) size() int {
	n := len(b.urgent)
	if b.scratch != nil {
		n += b.scratch.len()
	}
	for _, frame := range b.frames[:b.large] {
		n += len(frame)
	}
	return n
}

// flush writes the batch and frees its buffers.
func (s *muxSession) flush(b *batch) (err error) {
	beneath := s.config.beneath
	if b.rest {
		b.rest = false
		if err := beneath.end(); err != nil {
			return err
		}
	}
	gather := beneath != nil && b.large > 0
	if gather {
		beneath.begin()
	}
	err = s.encrypt(b)
	if gather {
		if ended := beneath.end(); err == nil {
			err = ended
		}
	}
	return err
}

// encrypt hands the batch to TLS and frees its buffers.
func (s *muxSession) encrypt(b *batch) (err error) {
	write := s.conn.Write
	if w, ok := s.conn.(*webSocket); ok { // one frame of WebSocket, so that its records are full
		if err = w.begin(b.size()); err == nil {
			write = w.add
			defer func() {
				if ended := w.end(); err == nil {
					err = ended
				}
			}()
		}
	}
	if len(b.urgent) > 0 {
		if err == nil {
			_, err = write(b.urgent)
		}
		b.urgent = nil
	}
	if b.scratch != nil {
		if err == nil && b.scratch.len() > 0 {
			_, err = write(b.scratch.bytes())
		}
		b.scratch.start, b.scratch.end = 0, 0
	}
	for i, seg := range b.direct[:b.large] {
		if err == nil {
			_, err = write(b.frames[i])
		}
		seg.free()
		b.direct[i], b.frames[i] = nil, nil
	}
	b.large = 0
	return err
}

// idle tells whether there is nothing to compose. The lock is held.
func (s *muxSession) idle() bool { return len(s.urgent) == 0 && s.next() == nil }

// compose fills the batch with one record of small frames, answers first. Unless small
// is set, it adds a few large frames. The lock is held.
func (s *muxSession) compose(b *batch, small bool) {
	b.hooks = b.hooks[:0]
	if b.scratch == nil {
		b.scratch = newSegment(maxBody)
		b.scratch.start, b.scratch.end = 0, 0
	}
	if len(s.urgent) > b.scratch.room() {
		b.urgent, s.urgent = s.urgent, nil
	} else {
		b.scratch.append(s.urgent)
		s.urgent = s.urgent[:0]
		if cap(s.urgent) > keptUrgent {
			s.urgent = nil
		}
	}
	for b.large < writePieces {
		st := s.next()
		if st == nil || small && s.large(st) {
			return
		}
		n, ok := s.addFrame(st, b)
		if !ok {
			return
		}
		st.deficit -= n
		s.pace.took(n)
	}
}

// large tells whether the stream's next frame gets a record of its own. The lock is
// held.
func (s *muxSession) large(st *muxStream) bool {
	return st.out.head != nil && min(st.out.head.len(), s.pace.frame()) >= directBody
}

// addFrame adds the stream's next frame to the batch. It returns the number of bytes,
// and whether there was room. The lock is held.
func (s *muxSession) addFrame(st *muxStream, b *batch) (n int, ok bool) {
	if st.resets && st.out.size == 0 {
		return s.addReset(st, b)
	}
	h := header{kind: frameData}
	if st.out.head != nil {
		h.length = min(st.out.head.len(), s.pace.frame())
	}
	// The small frames of a batch are written before its large frames. So no small frame
	// may be added after a large one: both could belong to the same stream.
	if h.length < directBody && (b.large > 0 || b.scratch.room() < headerSize+h.length) {
		return 0, false
	}
	var seg *segment
	switch {
	case h.length == 0:
	case h.length == st.out.head.len():
		seg = st.out.pop()
	default:
		seg = newSegment(h.length)
		seg.end += st.out.read(seg.buf[seg.start : seg.start+h.length])
	}
	if st.id == 0 {
		st.announce()
		h.kind |= flagOpen
	}
	h.stream = st.id
	if st.finAsked && !st.finSent && st.out.size == 0 && !st.resets {
		st.finSent = true
		h.kind |= flagFin
	}
	if st.mustStop() {
		st.stopSent = true
		h.kind |= flagStop
	}
	switch {
	case seg == nil:
		b.scratch.end += headerSize
		putHeader(b.scratch.buf[b.scratch.end-headerSize:], h)
	case h.length < directBody:
		b.scratch.append(seg.frame(h))
		seg.free()
	default:
		b.direct[b.large], b.frames[b.large] = seg, seg.frame(h)
		b.large++
	}
	if onRoom := st.hasRoom(); onRoom != nil {
		b.hooks = append(b.hooks, onRoom)
	}
	st.mayEnd()
	return headerSize + h.length, true
}

// addReset adds a reset that follows the stream's data, and tells whether there was
// room. The lock is held.
func (s *muxSession) addReset(st *muxStream, b *batch) (n int, ok bool) {
	const size = headerSize + 4
	if b.large > 0 || b.scratch.room() < size { // or the reset would be written before a large frame
		return 0, false
	}
	b.scratch.append(appendNumber(nil, frameReset, st.id, resetInOrder))
	st.remove()
	return size, true
}
