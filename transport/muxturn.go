package transport

// streamQueue is a queue of streams.
type streamQueue struct{ first, last *muxStream }

func (q *streamQueue) push(st *muxStream) {
	st.next = nil
	if q.first == nil {
		q.first = st
	} else {
		q.last.next = st
	}
	q.last = st
}

func (q *streamQueue) pop() {
	st := q.first
	if q.first = st.next; q.first == nil {
		q.last = nil
	}
	st.next = nil
}

// The queue that a stream is in.
const (
	notQueued = iota
	isFresh
	isBulk
)

// queue puts the stream into the fresh queue, if it has something to send and is in no
// queue. The lock is held; release writes the frames.
func (s *muxSession) queue(st *muxStream) {
	if st.queued != notQueued || !st.pending() {
		return
	}
	st.queued, st.deficit = isFresh, s.pace.frame()+headerSize
	s.fresh.push(st)
}

// next returns the stream whose turn it is, or nil if no stream may write now. A stream
// with nothing more to send stays in the bulk queue for one round. Otherwise a stream
// that sends a little at a time would be fresh each time. The lock is held.
func (s *muxSession) next() *muxStream {
	for {
		q := &s.fresh
		if q.first == nil {
			q = &s.bulk
		}
		st := q.first
		switch {
		case st == nil:
			return nil
		case !st.pending():
			q.pop()
			if st.queued = notQueued; q == &s.fresh && s.bulk.first != nil && !st.gone {
				st.queued = isBulk
				s.bulk.push(st)
			}
		case q == &s.bulk && s.pace.shut():
			return nil
		case st.deficit <= 0:
			q.pop()
			st.deficit += s.pace.frame() + headerSize
			st.queued = isBulk
			s.bulk.push(st)
		default:
			return st
		}
	}
}

// held tells whether everything left to write is bulk that has to wait. The lock is
// held.
func (s *muxSession) held() bool {
	return s.bulk.first != nil && s.next() == nil && s.bulk.first != nil
}
