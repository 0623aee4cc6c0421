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

// Where a stream is queued.
const (
	notQueued = iota
	isFresh
	isBulk
)

// queue puts the stream among the fresh ones, if it has anything to send and is not
// queued. The lock is held; release writes it.
func (s *muxSession) queue(st *muxStream) {
	if st.queued != notQueued || !st.pending() {
		return
	}
	st.queued, st.deficit = isFresh, s.pace.frame()+headerSize
	s.fresh.push(st)
}

// next gives the stream whose turn it is, nil when there is none that may write now.
// A stream that has nothing more stays for a round among the others, so that it is
// not fresh each time it has a little. The lock is held.
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

// held tells whether only bulk that has to wait is left. The lock is held.
func (s *muxSession) held() bool {
	return s.bulk.first != nil && s.next() == nil && s.bulk.first != nil
}
