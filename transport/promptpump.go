package transport

import "errors"

// promptSink moves the bytes of a stream to a Prompt, without a goroutine. What
// has come together goes on together, because a Prompt, which is not this
// package's, may take a message for each time it is given something.
type promptSink struct {
	turn
	f     *flow
	src   *muxStream
	dst   Prompt
	held  segments // taken from src, and not by dst
	brake heldBack
}

func startPromptSink(f *flow, src *muxStream, dst Prompt) {
	p := &promptSink{f: f, src: src, dst: dst}
	src.watch(p, nil)
	dst.Watch(nil, p.write)
	p.write()
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
	if !p.take() {
		return
	}
	var l later // what the source is given back is written once
	for {
		if err := p.move(&l); err != nil {
			p.end(err)
			break
		}
		if p.leave() {
			break
		}
	}
	l.write()
}

// promptPieces is how many pieces are handed on at once.
const promptPieces = 8

// move hands pieces on until there is none or no room.
func (p *promptSink) move(l *later) error {
	var pieces [promptPieces][]byte
	for {
		if p.brake.held(p.f.brake, p) {
			return p.f.failed()
		}
		n, err := p.gather(&pieces)
		if n == 0 {
			if err == nil {
				_, err = p.dst.WriteNow(nil) // whether it still can be written
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
			return err
		}
		if p.held.size > 0 {
			return nil
		}
	}
}

// gather takes what waits, behind what is held. The error says why there is none.
func (p *promptSink) gather(pieces *[promptPieces][]byte) (n int, err error) {
	for seg := p.held.head; seg != nil; seg = seg.next {
		pieces[n] = seg.bytes()
		n++
	}
	most := promptPieces
	if p.f.brake.braking() {
		most = 1 // what passes at once is what the brake lets pass at once
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
	dst   *muxStream
	held  *segment // read from src, for which dst has no room
	size  int      // of the next read
	brake heldBack
}

func startPromptSource(f *flow, src Prompt, dst *muxStream) {
	p := &promptSource{f: f, src: src, dst: dst, size: smallRead}
	dst.watch(nil, p)
	src.Watch(func() { p.wake(nil) }, nil)
	p.wake(nil)
}

// wake is given no later by the Prompt's goroutine, which writes to the stream's
// session what it brings: it has nothing else to do.
func (p *promptSource) wake(by *later) {
	if !p.take() {
		return
	}
	var l later
	write := l.writeAll
	if by != nil {
		write = l.write
	}
	for {
		if err := p.move(&l); err != nil {
			write()
			p.end(err)
			return
		}
		if p.leave() {
			break
		}
	}
	write()
}

// move hands on what can be read until there is nothing or no room.
func (p *promptSource) move(l *later) error {
	for {
		if p.brake.held(p.f.brake, p) {
			return p.f.failed()
		}
		seg := p.held
		p.held = nil
		if seg == nil {
			var err error
			if seg, err = p.read(); err != nil {
				return err
			}
			if seg == nil {
				return p.dst.broken()
			}
		}
		n := seg.len()
		ok, err := p.dst.offer(seg, l)
		if err != nil {
			seg.free()
			return err
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

// read gives a piece of what has come, or nil.
func (p *promptSource) read() (*segment, error) {
	seg := newSegment(p.size)
	room := seg.buf[seg.start:]
	n, err := p.src.ReadNow(room[:min(len(room), p.f.brake.most())])
	if n == 0 {
		seg.free()
		return nil, err
	}
	p.size = nextRead(n, seg.room())
	seg.end += n
	return seg, nil
}

func (p *promptSource) end(err error) {
	p.over()
	if p.held != nil {
		p.held.free()
		p.held = nil
	}
	p.dst.unwatch(nil, p)
	if errors.Is(err, ErrStopped) {
		go p.f.ended(err) // reads, and throws away what comes
		return
	}
	p.f.ended(err)
}
