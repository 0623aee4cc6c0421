package transport

// promptPump moves the bytes of a Prompt to another Prompt, without a goroutine. It copies
// the bytes, because both Prompts have buffers of their own.
type promptPump struct {
	turn
	f        *flow
	src, dst Prompt
	held     *segment // a piece read from src, for which dst has no room
	size     int      // size of the next read
	brake    heldBack
}

// promptToPrompt is the way between two Prompts, of any carriers.
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
	if !p.acquire() {
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

// move hands on bytes until there are no more to read, or no room.
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
				_, err := p.dst.WriteNow(nil) // finds out whether dst can still be written
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
		go p.f.ended(err) // in a goroutine, because it may read and discard
		return
	}
	p.f.ended(err)
}

// readNow returns a piece of the bytes that have come, of most bytes at most, or nil. size
// is the number of bytes that a read is expected to return; readNow updates it for the
// next read.
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
