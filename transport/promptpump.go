package transport

// promptSink moves the bytes of a stream to a Prompt, without a goroutine. It passes on
// pieces that came together in one call, because a Prompt of another package may send a
// message for each call.
type promptSink struct {
	turn
	f     *flow
	src   pieceSource
	dst   Prompt
	held  segments // pieces taken from src that dst has not taken
	brake heldBack
	l     later // sessions to write to after a run
}

// piecesToPrompt is the way from a stream to a Prompt.
func piecesToPrompt(f *flow) (func(), bool) {
	src, from := f.src.(pieceSource)
	dst, to := f.dst.(Prompt)
	if !from || !to {
		return nil, false
	}
	p := &promptSink{f: f, src: src, dst: dst}
	src.watch(p, nil)
	dst.Watch(nil, p.write)
	p.write()
	return nil, true
}

func (p *promptSink) wake(l *later) {
	if l == nil {
		p.write()
	} else if !l.add(p) {
		l.write()
	}
}

func (p *promptSink) hand() { go p.write() }

func (p *promptSink) write() {
	if !p.acquire() {
		return
	}
	for { // window frames for the source are written once after each move
		err := p.move(&p.l)
		p.l.write()
		if err != nil {
			p.end(err)
			return
		}
		if p.leave() {
			return
		}
	}
}

// promptPieces is how many pieces one call may pass on.
const promptPieces = 8

// move hands on pieces until there are no more, or no room.
func (p *promptSink) move(l *later) error {
	var pieces [promptPieces][]byte
	for {
		if p.brake.held(p.f.brake, p) {
			return p.f.failed()
		}
		n, err := p.gather(&pieces)
		if n == 0 {
			if err == nil {
				_, err = p.dst.WriteNow(nil) // finds out whether dst can still be written
				err = cannotWrite(err)
			}
			return err
		}
		took, err := p.dst.WriteNow(pieces[:n])
		clear(pieces[:n])
		if took > 0 {
			p.held.skip(took)
			p.src.consumed(took, l)
			p.f.handed(took)
			if p.f.brake.braking() {
				p.brake.turn = p.f.brake.pass(took)
			}
		}
		if err != nil {
			return unwritten{err}
		}
		if p.held.size > 0 {
			return nil
		}
	}
}

// gather takes the waiting pieces and puts them after the held ones. If there are none,
// the error says why.
func (p *promptSink) gather(pieces *[promptPieces][]byte) (n int, err error) {
	for seg := p.held.head; seg != nil; seg = seg.next {
		pieces[n] = seg.bytes()
		n++
	}
	most := promptPieces
	if p.f.brake.braking() {
		most = 1 // the brake allows one piece at a time
	}
	for n < most {
		seg, err := p.src.takeAtMost(p.f.brake.most())
		if seg == nil {
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		p.held.push(seg)
		pieces[n] = seg.bytes()
		n++
	}
	return n, nil
}

func (p *promptSink) end(err error) {
	p.over()
	p.held.drop()
	p.src.unwatch(p, nil)
	p.f.ended(err)
}

// promptSource moves the bytes of a Prompt to a stream, without a goroutine.
type promptSource struct {
	turn
	f     *flow
	src   Prompt
	dst   pieceSink
	held  *segment // a piece read from src, for which dst has no room
	size  int      // size of the next read
	brake heldBack
	l     later // sessions to write to after a run
}

// promptToPieces is the way from a Prompt to a stream.
func promptToPieces(f *flow) (func(), bool) {
	src, from := f.src.(Prompt)
	dst, to := f.dst.(pieceSink)
	if !from || !to {
		return nil, false
	}
	p := &promptSource{f: f, src: src, dst: dst, size: smallRead}
	dst.watch(nil, p)
	src.Watch(func() { p.wake(nil) }, nil)
	p.wake(nil)
	return nil, true
}

// wake gets a nil by from the goroutine of the Prompt. This goroutine has nothing else to
// do, so it writes the frames to the stream's session itself.
func (p *promptSource) wake(by *later) {
	if !p.acquire() {
		return
	}
	for {
		err := p.move(&p.l)
		if by != nil {
			p.l.write()
		} else {
			p.l.writeAll()
		}
		if err != nil {
			p.end(err)
			return
		}
		if p.leave() {
			return
		}
	}
}

// move hands on bytes until there are no more to read, or no room.
func (p *promptSource) move(l *later) error {
	for {
		if p.brake.held(p.f.brake, p) {
			return p.f.failed()
		}
		seg := p.held
		p.held = nil
		if seg == nil {
			var err error
			if seg, err = readNow(p.src, &p.size, p.f.brake.most()); err != nil {
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
		p.f.handed(n)
		if p.f.brake.braking() {
			p.brake.turn = p.f.brake.pass(n)
		}
	}
}

func (p *promptSource) end(err error) {
	p.over()
	if p.held != nil {
		p.held.free()
		p.held = nil
	}
	p.dst.unwatch(nil, p)
	if isUnwritten(err) {
		go p.f.ended(err) // in a goroutine, because it may read and discard
		return
	}
	p.f.ended(err)
}
