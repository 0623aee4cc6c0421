package transport

import (
	"sync"
	"sync/atomic"
	"time"
)

// Brake limits the rate of all splices that share it, both directions together. The
// zero Brake and a nil Brake limit nothing, and cost one atomic load for each piece
// that is moved.
//
// Bytes are paid for after they have passed, so a rate far below the size of one read
// makes a splice slow and does no other harm. After a piece, a splice waits until the
// rate has paid for this piece and for all bytes that passed before it. So the
// splices take turns.
type Brake struct {
	rate   atomic.Int64 // bytes per second; 0 = holds nothing back
	waited atomic.Bool

	mu     sync.Mutex
	passed int64     // all bytes so far; guarded by mu
	paid   float64   // bytes paid for until at; at most the slack above passed; guarded by mu
	at     time.Time // time of the last payment; guarded by mu
}

const (
	// brakeSlack is how much lost time the splices may make up for, after a pause or
	// a late timer. It is also the length of the longest burst.
	brakeSlack = 200 * time.Millisecond
	// brakePiece is the largest piece, as time at the present rate. Small pieces make
	// the output smooth, and let many splices share a low rate fairly.
	brakePiece = 20 * time.Millisecond
	// brakeNap is the longest wait before a splice looks again: the rate may have
	// risen, or one of its ends may have failed.
	brakeNap = 100 * time.Millisecond
)

// Limit sets the rate in bytes per second from now on; 0 means no limit.
func (b *Brake) Limit(bytesPerSecond int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.rate.Load()
	if was == bytesPerSecond {
		return
	}
	b.settle(was)
	if was == 0 { // bytes that passed without a limit are not paid for
		b.paid, b.at = float64(b.passed), time.Now()
	}
	b.rate.Store(max(0, bytesPerSecond))
}

// Limited reports whether there is a limit now.
func (b *Brake) Limited() bool { return b.braking() }

// Waited reports whether a splice has had to wait since the last call of Waited.
func (b *Brake) Waited() bool { return b.waited.Load() && b.waited.Swap(false) }

// braking reports whether there is a rate.
func (b *Brake) braking() bool { return b != nil && b.rate.Load() > 0 }

// most is how many bytes may move at once; maxBody when there is no rate.
func (b *Brake) most() int {
	if !b.braking() {
		return maxBody
	}
	return int(min(max(1, b.rate.Load()/int64(time.Second/brakePiece)), maxBody))
}

// settle pays for the time that has passed. The caller holds the lock.
func (b *Brake) settle(rate int64) {
	now := time.Now()
	paid := b.paid + now.Sub(b.at).Seconds()*float64(rate)
	b.paid, b.at = min(paid, float64(b.passed)+float64(rate)*brakeSlack.Seconds()), now
}

// pass counts n bytes as passed and returns the turn to call wait with. A piece may
// be larger than most allows, because it was taken before the rate fell. It then
// costs only as much as the largest piece of the new rate: otherwise every splice
// could wait for hours behind it.
func (b *Brake) pass(n int) (turn int64) {
	n = min(n, b.most())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(b.rate.Load()) // first, or the time of a pause would pay for the bytes after it
	b.passed += int64(n)
	return b.passed
}

// wait returns the time until the splice with this turn may go on, or until it should
// call wait again; 0 means that it may go on now.
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

// pause makes the flow wait after n bytes. It returns the error of an end that failed
// during the wait. Some kinds of ends cannot tell that they have failed: the flow
// notices those when the wait is over.
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

// failed is the error of an end that can no longer be used, if the end can tell.
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

// unreadable is the error that a read would return, apart from io.EOF.
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

// cut copies n bytes off the first waiting piece. It returns nil when there is no
// piece, or when the piece has n bytes or fewer.
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

// heldBack is the part of a pump that waits for a brake without using a goroutine.
type heldBack struct {
	turn   int64 // 0: the pump does not wait
	asleep atomic.Bool
}

// held reports whether the pump must wait, and sets the timer that wakes it.
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
