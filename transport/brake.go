package transport

import (
	"sync"
	"sync/atomic"
	"time"
)

// Brake holds the bytes of all splices that share it, both ways together, to a
// rate. The zero Brake and nil hold nothing back, and cost a load of an atomic
// for each piece that is moved.
//
// Bytes are paid for after they have passed: a rate far below the size of a read
// makes a splice slow and nothing else. Who has passed waits until the rate has
// paid for that and for all that passed before, so that splices take turns.
type Brake struct {
	rate   atomic.Int64 // bytes per second; 0 = holds nothing back
	waited atomic.Bool

	mu     sync.Mutex
	passed int64     // bytes in all; guarded by mu
	paid   float64   // of them, up to at; may run ahead by the slack; guarded by mu
	at     time.Time // guarded by mu
}

const (
	// brakeSlack is how far a pause of the splices, or a timer that is late, is
	// made up for. It is also the longest burst.
	brakeSlack = 200 * time.Millisecond
	// brakePiece is how much time's worth moves at once, so that what comes out is
	// smooth and many splices share a low rate fairly.
	brakePiece = 20 * time.Millisecond
	// brakeNap is the longest wait before somebody looks again: the rate may have
	// risen, an end may be gone.
	brakeNap = 100 * time.Millisecond
)

// Limit sets the rate in bytes per second from now on; 0 holds nothing back.
func (b *Brake) Limit(bytesPerSecond int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.rate.Load()
	if was == bytesPerSecond {
		return
	}
	b.settle(was)
	if was == 0 { // what passed unheld is not to be paid for
		b.paid, b.at = float64(b.passed), time.Now()
	}
	b.rate.Store(max(0, bytesPerSecond))
}

// Waited tells whether anything has had to wait since it was asked last.
func (b *Brake) Waited() bool { return b.waited.Load() && b.waited.Swap(false) }

// braking tells whether there is a rate.
func (b *Brake) braking() bool { return b != nil && b.rate.Load() > 0 }

// most is how many bytes may move at once; maxBody when nothing is held back.
func (b *Brake) most() int {
	if !b.braking() {
		return maxBody
	}
	return int(min(max(1, b.rate.Load()/int64(time.Second/brakePiece)), maxBody))
}

// settle pays for the time that has passed. The lock is held.
func (b *Brake) settle(rate int64) {
	now := time.Now()
	paid := b.paid + now.Sub(b.at).Seconds()*float64(rate)
	b.paid, b.at = min(paid, float64(b.passed)+float64(rate)*brakeSlack.Seconds()), now
}

// pass notes n bytes as passed and gives what wait is to be asked about. A piece
// that was larger, because it was taken before the rate fell, costs no more than
// one of now: nobody waits for hours behind it.
func (b *Brake) pass(n int) (turn int64) {
	n = min(n, b.most())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(b.rate.Load()) // before, or a pause would pay for what comes after it
	b.passed += int64(n)
	return b.passed
}

// wait tells how long it is until the turn may go on, or until it should ask
// again; 0 is now.
func (b *Brake) wait(turn int64) time.Duration {
	rate := b.rate.Load()
	if rate == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(rate)
	left := float64(turn) - b.paid
	if left <= 0 {
		return 0
	}
	b.waited.Store(true)
	return min(time.Duration(left/float64(rate)*float64(time.Second))+1, brakeNap)
}

// pause holds the flow back after n bytes. The error is that of an end which has
// failed meanwhile; an end that does not tell is found out when the wait is over.
func (f *flow) pause(n int) error {
	turn := f.brake.pass(n)
	for {
		wait := f.brake.wait(turn)
		if wait == 0 {
			return nil
		}
		time.Sleep(wait)
		if err := f.failed(); err != nil {
			return err
		}
	}
}

// failed is why one of the ends is of no use any more, as far as they can tell.
func (f *flow) failed() (err error) {
	switch from := f.src.(type) {
	case pieceSource:
		err = from.unreadable()
	case Prompt:
		_, err = from.ReadNow(nil)
	}
	if err != nil {
		return err
	}
	switch to := f.dst.(type) {
	case pieceSink:
		err = to.broken()
	case Prompt:
		_, err = to.WriteNow(nil)
	}
	return cannotWrite(err)
}

// unreadable is why nothing can be read, apart from the end.
func (st *muxStream) unreadable() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.readErr()
}

// takeAtMost is takeSegment for a piece of at most n bytes.
func (st *muxStream) takeAtMost(n int) (*segment, error) {
	if n < maxBody {
		if seg := st.cut(n); seg != nil {
			return seg, nil
		}
	}
	return st.takeSegment()
}

// cut copies n bytes off the first piece that waits, or gives nil when it is no
// larger, or there is none.
func (st *muxStream) cut(n int) *segment {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.readErr() != nil || st.in.head == nil || st.in.head.len() <= n {
		return nil
	}
	seg := newSegment(n)
	seg.end += st.in.read(seg.buf[seg.start : seg.start+n])
	return seg
}

// heldBack is the part of a pump that waits at a brake without a goroutine.
type heldBack struct {
	turn   int64 // 0: it does not wait
	asleep atomic.Bool
}

// held tells whether the pump is to wait, and sees to it that it is woken.
func (h *heldBack) held(b *Brake, p hook) bool {
	if h.turn == 0 {
		return false
	}
	wait := b.wait(h.turn)
	if wait == 0 {
		h.turn = 0
		return false
	}
	if h.asleep.CompareAndSwap(false, true) {
		time.AfterFunc(wait, func() { h.asleep.Store(false); p.wake(nil) })
	}
	return true
}
