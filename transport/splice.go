package transport

import (
	"sync"
	"sync/atomic"
	"time"
)

// Count has the functions that a splice calls with the number of bytes it has just
// moved, one function for each direction. The goroutines that move the bytes call them,
// so they must not block. A nil function counts nothing.
type Count struct {
	AToB, BToA func(n int)
	Brake      *Brake // limits the rate of both directions; nil means no limit
}

// Splice joins a and b in both directions, waits until both directions have ended, and
// closes a and b. The end of one side's data closes only the write side of the other.
// If one side cannot be read, Splice resets it, and then resets the other side after
// the bytes that came before. If one side cannot be written, Splice still carries the
// bytes that this side sends, to their end. Splice returns the first error, with the
// numbers of bytes moved. Until a splice has ended in order, closing its socket is a
// reset, whoever closes it: when a process is killed, its peer must not believe that
// the data is complete.
//
// Splice removes the deadlines that were set on a and b before.
//
// While no bytes flow, Splice has no buffer. For TCP connections and for streams of
// this package's multiplexer it has no goroutine but the caller's either. To end a
// splice from outside, Reset one of its ends.
func Splice(a, b Duplex, count Count) (aToB, bToA int64, err error) {
	done := make(chan struct{})
	s := newSplice(a, b, count, func() { close(done) })
	wait, waitToo := s.start()
	if waitToo != nil {
		go waitToo()
	}
	if wait != nil {
		wait() // the caller's goroutine has nothing else to do
	}
	<-done
	return s.close()
}

// Join is Splice for a caller that does not wait. Join calls done once, in a goroutine
// of its own, with the results of Splice. While no bytes flow between two streams of
// this package's multiplexer, there is no goroutine at all. A goroutine would be most
// of the cost of an idle connection at a forwarder.
func Join(a, b Duplex, count Count, done func(aToB, bToA int64, err error)) {
	var s *splice
	s = newSplice(a, b, count, func() { go func() { done(s.close()) }() })
	wait, waitToo := s.start()
	if wait != nil {
		go wait()
	}
	if waitToo != nil {
		go waitToo()
	}
}

// splice is one call of Splice or Join.
type splice struct {
	a, b        Duplex
	brake       *Brake
	forth, back *flow
	left        atomic.Int32 // flows that have not ended
	done        func()       // called when both have

	once sync.Once
	err  error // the first error; read after done
}

func newSplice(a, b Duplex, count Count, done func()) *splice {
	s := &splice{a: a, b: b, brake: count.Brake, done: done}
	s.left.Store(2)
	s.forth = &flow{splice: s, src: a, dst: b, count: count.AToB}
	s.back = &flow{splice: s, src: b, dst: a, count: count.BToA}
	return s
}

// start begins both flows. Some flows need a goroutine: they wait in system calls, or
// have ends of a kind that this package does not know. start returns a function to run
// for each of them: wait is nil if neither flow needs one, waitToo if only one does.
func (s *splice) start() (wait, waitToo func()) {
	_ = s.a.SetDeadline(time.Time{})
	_ = s.b.SetDeadline(time.Time{})
	Unfinished(s.a)
	Unfinished(s.b)
	wait, waitToo = s.forth.start(), s.back.start()
	if wait == nil {
		return waitToo, nil
	}
	return wait, waitToo
}

// close closes both ends after both flows have ended, and returns the results.
func (s *splice) close() (aToB, bToA int64, err error) {
	for _, end := range []Duplex{s.a, s.b} {
		finished(end) // an end that did not end in order was reset before
		_ = end.Close()
	}
	return s.forth.moved.Load(), s.back.moved.Load(), s.err
}

// flow is one direction of a splice.
type flow struct {
	*splice
	src, dst Duplex
	count    func(int)
	moved    atomic.Int64
	breaks   atomic.Bool // the flow resets dst after the bytes it has written
	torn     atomic.Bool // the other flow found src reset; reads of src may then show an end instead
}

// ways lists the ways to move bytes, the best first. Each way looks at the kinds of the
// two ends. It begins the flow, or leaves the flow to the next way. If it returns a
// function, that function moves the bytes and returns when the flow has ended. To add a
// way for other kinds of ends, add a line here and a file.
var ways = []func(f *flow) (wait func(), begun bool){
	piecesToPieces,
	piecesToPrompt,
	promptToPieces,
	promptToPrompt,
	piecesToSocket,
	socketToPieces,
}

// start begins the flow. If it returns a function, that function moves the bytes and
// returns when the flow has ended.
func (f *flow) start() func() {
	for _, way := range ways {
		if wait, begun := way(f); begun {
			return wait
		}
	}
	return f.copy
}

// handed counts n bytes that dst has accepted.
func (f *flow) handed(n int) {
	f.moved.Add(int64(n))
	if f.count != nil {
		f.count(n)
	}
}

// copy moves bytes between ends of any kind. Its buffer is small while few bytes come,
// and large while many come.
func (f *flow) copy() {
	size := smallRead
	for {
		if size == maxBody && !f.brake.braking() && (batches(f.src) || batches(f.dst)) {
			n, err := f.copyBatch()
			if size = maxBody; n < copied {
				size = smallRead
			}
			if err != nil {
				f.ended(err)
				return
			}
			continue
		}
		most := min(f.brake.most(), copied)
		seg := newSegment(min(size, most))
		n, err := f.src.Read(seg.buf[seg.start:min(len(seg.buf), seg.start+most)])
		size = nextRead(n, seg.room())
		if n > 0 {
			seg.end += n
			m, werr := f.dst.Write(seg.bytes())
			f.handed(m)
			if werr != nil {
				err = unwritten{werr}
			}
		}
		seg.free()
		if err == nil && f.brake.braking() {
			err = f.pause(n)
		}
		if err != nil {
			f.ended(err)
			return
		}
	}
}

// copied is the largest piece of a copy: what package seal makes a record of that is one
// frame. A longer piece would be two records, one of them with a few bytes.
const copied = maxBody - 22

// Batcher is an end that moves several pieces at once for less than one by one.
type Batcher interface{ Batches() bool }

func batches(end Duplex) bool {
	b, ok := end.(Batcher)
	return ok && b.Batches()
}

// batched is how many bytes a copy moves at once to or from a Batcher.
const batched = 4 * copied

var batchPool = sync.Pool{New: func() any { return new([batched]byte) }}

// copyBatch moves as many bytes as there are, up to a batch, and gives their number.
func (f *flow) copyBatch() (n int, err error) {
	b := batchPool.Get().(*[batched]byte)
	defer batchPool.Put(b)
	n, err = f.src.Read(b[:])
	if n > 0 {
		m, werr := f.dst.Write(b[:n])
		f.handed(m)
		if werr != nil {
			err = unwritten{werr}
		}
	}
	return n, err
}

// smallRead is the size of a read when few bytes are expected.
const smallRead = 2<<10 - headerSize

// nextRead is the size of the next read, after a read of size room returned n bytes.
func nextRead(n, room int) int {
	switch {
	case n == room:
		return maxBody
	case n <= smallRead:
		return smallRead
	}
	return maxBody
}
