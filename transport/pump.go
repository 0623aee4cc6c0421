package transport

import "sync/atomic"

// turn lets one goroutine at a time run a pump. Other goroutines that want to run the
// pump at the same time do not wait: they tell the running goroutine, which then looks
// again.
type turn struct {
	state atomic.Uint32
}

// States of a turn.
const (
	turnFree    = iota
	turnRunning // a goroutine runs
	turnAgain   // a goroutine runs, and another has called acquire since
	turnOver    // no goroutine will run again
)

// acquire reports whether the caller must run now.
func (t *turn) acquire() bool {
	for {
		switch t.state.Load() {
		case turnFree:
			if t.state.CompareAndSwap(turnFree, turnRunning) {
				return true
			}
		case turnRunning:
			if t.state.CompareAndSwap(turnRunning, turnAgain) {
				return false
			}
		default:
			return false
		}
	}
}

// leave ends the run. If another goroutine has called acquire since, leave returns
// false, and the caller must look again.
func (t *turn) leave() bool {
	if t.state.CompareAndSwap(turnRunning, turnFree) {
		return true
	}
	t.state.Store(turnRunning)
	return false
}

// over ends the turn for good.
func (t *turn) over() { t.state.Store(turnOver) }

// streamPump moves the bytes of a stream to another stream, of the same or another
// session, without a goroutine and without a copy. When a goroutine of a session makes
// progress possible, the pump runs in that goroutine. It never blocks.
type streamPump struct {
	turn
	f     *flow
	src   pieceSource
	dst   pieceSink
	held  *segment // a piece taken from src, for which dst has no room
	brake heldBack
}

// piecesToPieces is the way between two streams.
func piecesToPieces(f *flow) (func(), bool) {
	src, from := f.src.(pieceSource)
	dst, to := f.dst.(pieceSink)
	if !from || !to {
		return nil, false
	}
	p := &streamPump{f: f, src: src, dst: dst}
	src.watch(p, nil)
	dst.watch(nil, p)
	p.wake(nil)
	return nil, true
}

func (p *streamPump) wake(l *later) {
	if !p.acquire() {
		return
	}
	for {
		if err := p.move(l); err != nil {
			p.end(err)
			return
		}
		if p.leave() {
			return
		}
	}
}

// move hands on segments until there are no more, or no room.
func (p *streamPump) move(l *later) error {
	for {
		if p.brake.held(p.f.brake, p) {
			return p.f.failed()
		}
		seg := p.held
		p.held = nil
		if seg == nil {
			var err error
			if seg, err = p.src.takeAtMost(p.f.brake.most()); err != nil {
				return err
			}
			if seg == nil {
				return cannotWrite(p.dst.broken())
			}
		}
		n := seg.len()
		ok, err := p.dst.offer(seg, l)
		if err != nil {
			seg.free()
			return unwritten{err}
		}
		if !ok {
			p.held = seg
			return nil
		}
		p.src.consumed(n, l)
		p.f.handed(n)
		if p.f.brake.braking() {
			p.brake.turn = p.f.brake.pass(n)
		}
	}
}

func (p *streamPump) end(err error) {
	p.over()
	if p.held != nil {
		p.held.free()
		p.held = nil
	}
	p.src.unwatch(p, nil)
	p.dst.unwatch(nil, p)
	p.f.ended(err)
}

// watch sets the hooks that are not nil.
func (st *muxStream) watch(onRead, onRoom hook) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if onRead != nil {
		st.onRead = onRead
	}
	if onRoom != nil {
		st.onRoom = onRoom
	}
}

// unwatch removes the hooks that are not nil.
func (st *muxStream) unwatch(onRead, onRoom hook) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if onRead != nil && st.onRead == onRead {
		st.onRead = nil
	}
	if onRoom != nil && st.onRoom == onRoom {
		st.onRoom = nil
	}
}

// broken is the error that a write would return.
func (st *muxStream) broken() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.writeErr()
}

// cannotWrite marks an error, if there is one, as the error of a write.
func cannotWrite(err error) error {
	if err != nil {
		err = unwritten{err}
	}
	return err
}
