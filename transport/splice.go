package transport

import (
	"sync"
	"sync/atomic"
	"time"
)

// Count is told how many bytes have just been handed on, each way, while they
// flow. It is called from the goroutines that move bytes and must not block. A
// nil function counts nothing.
type Count struct {
	AToB, BToA func(n int)
	Brake      *Brake // what both ways are held to; nil = nothing
}

// Splice joins a and b both ways, waits until both ways have ended, and closes
// both. The end of one side closes only the write side of the other. Where one side
// cannot be read, it is reset, and the other one too, behind what came before; where
// one cannot be written, what it still has to say is carried to its end. The first
// error is given with what had been moved. A socket is closed with a reset until its
// splice has ended in order, whoever closes it: a process that is killed must not
// look as if all had come.
//
// Deadlines that a and b come with, from whatever went before, are taken away.
//
// While nothing flows it holds no buffer and, for streams of this package's
// multiplexer and TCP connections, no goroutine but the caller's. To end it from
// outside, Reset one of the ends.
func Splice(a, b Duplex, count Count) (aToB, bToA int64, err error) {
	done := make(chan struct{})
	s := newSplice(a, b, count, func() { close(done) })
	wait, waitToo := s.start()
	if waitToo != nil {
		go waitToo()
	}
	if wait != nil {
		wait() // in the caller's goroutine, which has nothing else to do
	}
	<-done
	return s.close()
}

// Join is Splice for a caller that does not wait: done is called once, in a
// goroutine of its own, with what Splice would give. While nothing flows between
// two streams of this package's multiplexer there is no goroutine at all, which
// is most of what an idle connection would cost a forwarder.
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
	err  error // the first; read after done
}

func newSplice(a, b Duplex, count Count, done func()) *splice {
	s := &splice{a: a, b: b, brake: count.Brake, done: done}
	s.left.Store(2)
	s.forth = &flow{splice: s, src: a, dst: b, count: count.AToB}
	s.back = &flow{splice: s, src: b, dst: a, count: count.BToA}
	return s
}

// start begins both flows. A flow that waits in system calls, or is of ends that
// this package does not know, is given back to be run in a goroutine; wait is
// nil when neither is, waitToo when only one is.
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

// close closes both ends, after both flows have ended, and gives what they moved.
func (s *splice) close() (aToB, bToA int64, err error) {
	for _, end := range []Duplex{s.a, s.b} {
		finished(end) // who has not ended in order was reset
		_ = end.Close()
	}
	return s.forth.moved.Load(), s.back.moved.Load(), s.err
}

// flow is one way of a splice.
type flow struct {
	*splice
	src, dst Duplex
	count    func(int)
	moved    atomic.Int64
	breaks   atomic.Bool // it resets dst behind what it has written
	torn     atomic.Bool // src was found reset by the other flow, which may hide it here
}

// ways are how bytes can be moved, the best first. Each looks at what the two ends
// are and begins the flow, or leaves it to the next. What it gives, if anything,
// moves the bytes and returns when the flow has ended. A way for other kinds of
// ends is a line here and a file.
var ways = []func(f *flow) (wait func(), begun bool){
	piecesToPieces,
	piecesToPrompt,
	promptToPieces,
	promptToPrompt,
	piecesToSocket,
	socketToPieces,
}

// start begins the flow. What it gives, if anything, moves the bytes and returns
// when the flow has ended.
func (f *flow) start() func() {
	for _, way := range ways {
		if wait, begun := way(f); begun {
			return wait
		}
	}
	return f.copy
}

// handed counts n bytes that dst has taken.
func (f *flow) handed(n int) {
	f.moved.Add(int64(n))
	if f.count != nil {
		f.count(n)
	}
}

// copy moves bytes between ends of any kind, with a small buffer as long as
// little comes and a large one while much does.
func (f *flow) copy() {
	size := smallRead
	for {
		most := f.brake.most()
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

// smallRead is the size of a read when little is expected.
const smallRead = 2<<10 - headerSize

// nextRead is the size of the next read after one that gave n bytes of room.
func nextRead(n, room int) int {
	switch {
	case n == room:
		return maxBody
	case n <= smallRead:
		return smallRead
	}
	return maxBody
}
