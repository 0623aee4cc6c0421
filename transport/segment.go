package transport

import "sync"

// segment is a piece of a stream's data, in a pooled buffer. The bytes before start leave
// room for the header of the next frame. So a piece that was received on one session can
// be sent on another session without a copy.
type segment struct {
	next       *segment
	buf        []byte
	start, end int
	class      int
}

// segmentSizes are the sizes of the buffers of segments. A received frame takes the
// smallest buffer that can hold it. So the memory for a slow reader is at most twice its
// window, whatever the sizes of the sender's frames.
var segmentSizes = [...]int{2 << 10, 4 << 10, 8 << 10, 16 << 10}

var segmentPools [len(segmentSizes)]sync.Pool

// newSegment returns an empty segment with room for n bytes; n is at most maxBody.
func newSegment(n int) *segment {
	class := 0
	for segmentSizes[class] < n+headerSize {
		class++
	}
	if s, ok := segmentPools[class].Get().(*segment); ok {
		return s
	}
	return &segment{buf: make([]byte, segmentSizes[class]), class: class, start: headerSize, end: headerSize}
}

// free gives the segment back to the pool. Nobody may use it afterwards.
func (s *segment) free() {
	s.next, s.start, s.end = nil, headerSize, headerSize
	segmentPools[s.class].Put(s)
}

func (s *segment) len() int      { return s.end - s.start }
func (s *segment) bytes() []byte { return s.buf[s.start:s.end] }
func (s *segment) room() int     { return len(s.buf) - s.end }

// append copies as many bytes of b as there is room for, and returns their number.
func (s *segment) append(b []byte) int {
	n := copy(s.buf[s.end:], b)
	s.end += n
	return n
}

// frame puts the header in front of the bytes and returns both.
func (s *segment) frame(h header) []byte {
	putHeader(s.buf[s.start-headerSize:], h)
	return s.buf[s.start-headerSize : s.end]
}

// segments is a queue of segments.
type segments struct {
	head, tail *segment
	size       int // bytes in all
}

func (q *segments) push(s *segment) {
	if q.tail == nil {
		q.head = s
	} else {
		q.tail.next = s
	}
	q.tail = s
	q.size += s.len()
}

func (q *segments) pop() *segment {
	s := q.head
	q.head = s.next
	if q.head == nil {
		q.tail = nil
	}
	s.next = nil
	q.size -= s.len()
	return s
}

// give puts the segment into the queue, which then owns it. If the segment is mostly empty
// and the last segment of the queue has room, give copies the bytes there, so that small
// pieces do not use a buffer each.
func (q *segments) give(s *segment) {
	if s.len() <= len(s.buf)/2 && q.tail != nil && q.tail.room() >= s.len() {
		q.add(s.bytes())
		s.free()
		return
	}
	q.push(s)
}

// add copies b to the end of the queue. It fills the last segment first, so that many
// small pieces do not use a buffer each.
func (q *segments) add(b []byte) {
	for len(b) > 0 {
		if q.tail == nil || q.tail.room() == 0 {
			q.push(newSegment(min(len(b), maxBody)))
		}
		n := q.tail.append(b)
		q.size += n
		b = b[n:]
	}
}

// read copies bytes from the front to b, and frees the segments that are empty then.
func (q *segments) read(b []byte) (n int) {
	for n < len(b) && q.head != nil {
		m := copy(b[n:], q.head.bytes())
		q.head.start += m
		q.size -= m
		n += m
		if q.head.len() == 0 {
			q.pop().free()
		}
	}
	return n
}

// drop frees all segments.
func (q *segments) drop() {
	for q.head != nil {
		q.pop().free()
	}
}

// skip frees n bytes from the front.
func (q *segments) skip(n int) {
	for n > 0 {
		m := min(n, q.head.len())
		q.head.start += m
		q.size -= m
		n -= m
		if q.head.len() == 0 {
			q.pop().free()
		}
	}
}
