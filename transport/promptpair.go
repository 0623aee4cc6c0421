package transport

// promptPump moves the bytes of a Prompt to another, without a goroutine. It copies
// them, because both have buffers of their own.
type promptPump struct {
	turn
	f        *flow
	src, dst Prompt
	held     *segment // read from src, for which dst has no room
	size     int      // of the next read
	brake    heldBack
}

// promptToPrompt runs the flow between two ends of any carriers.
func promptToPrompt(f *flow) (func(), bool) {
	src, from := f.src.(Prompt)
	dst, to := f.dst.(Prompt)
	if !from || !to {
		return nil, false
	}
	p := &promptPump{f: f, src: src, dst: dst, size: smallRead}
	run := func() { p.wake(nil) }
	dst.Watch(nil, run)
	src.Watch(run, nil)
	run()
	return nil, true
}

func (p *promptPump) wake(*later) {
	if !p.take() {
		return
	}
	for {
		if err := p.move(); err != nil {
			p.end(err)
			return
		}
		if p.leave() {
			return
		}
	}
}

// move hands on what can be read until there is nothing or no room.
func (p *promptPump) move() error {
	for {
		if p.brake.held(p.f.brake, p) {
			return p.f.failed()
		}
		if p.held == nil {
			seg, err := readNow(p.src, &p.size, p.f.brake.most())
			if err != nil {
				return err
			}
			if seg == nil {
				_, err := p.dst.WriteNow(nil) // whether it still can be written
				return cannotWrite(err)
			}
			p.held = seg
		}
		n, err := p.dst.WriteNow([][]byte{p.held.bytes()})
		if n > 0 {
			p.held.start += n
			p.f.handed(n)
			if p.f.brake.braking() {
				p.brake.turn = p.f.brake.pass(n)
			}
		}
		if err != nil {
			return unwritten{err}
		}
		if p.held.len() > 0 {
			return nil
		}
		p.held.free()
		p.held = nil
	}
}

func (p *promptPump) end(err error) {
	p.over()
	if p.held != nil {
		p.held.free()
		p.held = nil
	}
	if isUnwritten(err) {
		go p.f.ended(err) // reads, and throws away what comes
		return
	}
	p.f.ended(err)
}

// readNow gives a piece of at most so many bytes of what has come, or nil. size is
// what a read is expected to give, and is kept for the next.
func readNow(src Prompt, size *int, most int) (*segment, error) {
	seg := newSegment(*size)
	room := seg.buf[seg.start:]
	n, err := src.ReadNow(room[:min(len(room), most)])
	if n == 0 {
		seg.free()
		return nil, err
	}
	*size = nextRead(n, seg.room())
	seg.end += n
	return seg, nil
}
