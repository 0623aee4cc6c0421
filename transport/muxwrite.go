package transport

import "fmt"

// directBody is from which size on a body is written from where it lies, as a
// TLS record of its own. Smaller ones are copied together into one record.
const directBody = 4 << 10

// writePieces is how many large pieces are written at once.
const writePieces = 4

// keptUrgent is how much memory for answers a session keeps.
const keptUrgent = 4 << 10

// send makes b, which is s.urgent with a frame appended, the answers to write.
// The lock is held.
func (s *muxSession) send(b []byte) {
	if s.bye {
		return // nothing goes behind the last frame
	}
	s.urgent = b
	s.work.Signal()
}

// queue puts the stream at the end of the writer's queue, if it has anything to
// send and is not there already. The lock is held.
func (s *muxSession) queue(st *muxStream) {
	if st.queued || !st.pending() {
		return
	}
	st.queued = true
	if s.last == nil {
		s.first = st
		s.work.Signal()
	} else {
		s.last.next = st
	}
	s.last = st
}

// pending tells whether the stream has a frame to send. The lock is held.
func (st *muxStream) pending() bool {
	if st.gone || st.failed != nil {
		return false
	}
	return st.out.size > 0 || (st.finAsked && !st.finSent && !st.stopGot) || st.mustStop()
}

// mustStop tells whether the peer has to be told that this side reads no more.
// The lock is held.
func (st *muxStream) mustStop() bool { return st.deaf && !st.finGot && !st.stopSent }

// batch is what the writer writes at once.
type batch struct {
	scratch *segment              // holds small frames, one behind the other
	urgent  []byte                // answers that did not fit there
	direct  [writePieces]*segment // large frames
	frames  [writePieces][]byte   // of direct
	large   int                   // how many
	hooks   []hook                // of streams that have room again
	last    bool
}

// writeLoop writes what there is to write, until the session has ended. Streams
// take turns of one frame. It owns the write side of the connection and closes
// the connection.
func (s *muxSession) writeLoop() {
	defer func() { _ = s.conn.Close() }()
	var b batch
	for {
		s.compose(&b)
		for i, h := range b.hooks {
			h.wake()
			b.hooks[i] = nil
		}
		if err := s.flush(&b); err != nil {
			s.end(fmt.Errorf("%w: %w", ErrSessionClosed, err), byeClosed)
			return
		}
		if b.last {
			return
		}
	}
}

// flush writes the batch and frees its buffers.
func (s *muxSession) flush(b *batch) (err error) {
	beneath := s.config.beneath
	gather := beneath != nil && b.large > 0
	if gather {
		beneath.begin()
	}
	if len(b.urgent) > 0 {
		_, err = s.conn.Write(b.urgent)
		b.urgent = nil
	}
	if b.scratch != nil {
		if err == nil && b.scratch.len() > 0 {
			_, err = s.conn.Write(b.scratch.bytes())
		}
		b.scratch.start, b.scratch.end = 0, 0
	}
	for i, seg := range b.direct[:b.large] {
		if err == nil {
			_, err = s.conn.Write(b.frames[i])
		}
		seg.free()
		b.direct[i], b.frames[i] = nil, nil
	}
	b.large = 0
	if gather {
		if ended := beneath.end(); err == nil {
			err = ended
		}
	}
	return err
}

// compose waits for work and fills the batch with one record's worth of frames,
// answers first, and a few large frames.
func (s *muxSession) compose(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.hooks = b.hooks[:0]
	for len(s.urgent) == 0 && s.first == nil && !s.bye {
		if b.scratch != nil { // an idle session holds no buffer
			b.scratch.free()
			b.scratch = nil
		}
		s.work.Wait()
	}
	if b.scratch == nil {
		b.scratch = newSegment(maxBody)
		b.scratch.start, b.scratch.end = 0, 0
	}
	b.last = s.bye
	if len(s.urgent) > b.scratch.room() {
		b.urgent, s.urgent = s.urgent, nil
	} else {
		b.scratch.append(s.urgent)
		s.urgent = s.urgent[:0]
		if cap(s.urgent) > keptUrgent {
			s.urgent = nil
		}
	}
	for s.first != nil && b.large < writePieces {
		if !s.addFrame(s.first, b) {
			return
		}
		st := s.first
		s.first = st.next
		if s.first == nil {
			s.last = nil
		}
		st.next, st.queued = nil, false
		s.queue(st)
	}
}

// addFrame adds the stream's next frame to the batch. It tells whether there was
// room. The lock is held.
func (s *muxSession) addFrame(st *muxStream, b *batch) bool {
	if !st.pending() {
		return true
	}
	h := header{kind: frameData}
	if st.out.head != nil {
		h.length = st.out.head.len()
	}
	// Small frames are written before the large ones of a batch, so none may follow
	// a large one: it could be of the same stream.
	if h.length < directBody && (b.large > 0 || b.scratch.room() < headerSize+h.length) {
		return false
	}
	var seg *segment
	if h.length > 0 {
		seg = st.out.pop()
	}
	if st.id == 0 {
		st.announce()
		h.kind |= flagOpen
	}
	h.stream = st.id
	if st.finAsked && !st.finSent && st.out.size == 0 {
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
	return true
}
