package transport

import "sync/atomic"

// turn lets one goroutine at a time run something, and lets it know when others
// have wanted to meanwhile, so that it looks again instead of them waiting.
type turn struct {
	state atomic.Uint32
}

// States of a turn.
const (
	turnFree  = iota
	turnTaken // somebody runs
	turnAgain // and was called meanwhile
	turnOver  // nobody will run again
)

// take tells whether the caller is to run now.
func (t *turn) take() bool {
	for {
		switch t.state.Load() {
		case turnFree:
			if t.state.CompareAndSwap(turnFree, turnTaken) {
				return true
			}
		case turnTaken:
			if t.state.CompareAndSwap(turnTaken, turnAgain) {
				return false
			}
		default:
			return false
		}
	}
}

// leave ends the run. It tells false, and the run goes on, when somebody has
// called meanwhile.
func (t *turn) leave() bool {
	if t.state.CompareAndSwap(turnTaken, turnFree) {
		return true
	}
	t.state.Store(turnTaken)
	return false
}

// over ends it for good.
func (t *turn) over() { t.state.Store(turnOver) }

// streamPump moves the bytes of a stream to another, of this session or any,
// without a goroutine and without copying them: it runs in whichever goroutine of
// a session has just made it possible to go on, and never blocks.
type streamPump struct {
	turn
	f     *flow
	src   pieceSource
	dst   pieceSink
	held  *segment // taken from src, for which dst has no room
	brake heldBack
}

// piecesToPieces runs the flow between two streams.
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
	if !p.take() {
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

// move hands segments on until there is none or no room.
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

// unwatch takes the hooks off that are not nil.
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

// broken is why nothing could be written.
func (st *muxStream) broken() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.writeErr()
}

// cannotWrite marks an error, if there is one, as one of writing.
func cannotWrite(err error) error {
	if err != nil {
		err = unwritten{err}
	}
	return err
}
