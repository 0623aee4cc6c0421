//go:build unix

package transport

import (
	"fmt"
	"io"
	"net"
	"syscall"
)

// rawConn returns the descriptor of a plain socket, and nil for anything else. Only the
// exact types qualify: a wrapper may have a buffer of its own.
func rawConn(c net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	var err error
	switch c := c.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil // closed already; the usual read will return that error
	}
	return raw
}

// socketToPieces is the way from a socket to a stream. It waits until there is something
// to read, and only then takes a buffer; the stream gets this buffer without a copy.
// This way has no brake: a program that moves bytes for itself, such as an agent, needs
// none.
func socketToPieces(f *flow) (func(), bool) {
	to, ok := f.dst.(pieceSink)
	if !ok || f.brake != nil {
		return nil, false
	}
	raw := rawConn(f.src)
	if raw == nil {
		return nil, false
	}
	p := &pull{f: f, raw: raw, to: to, size: smallRead}
	p.try = p.tryRead
	return p.run, true
}

type pull struct {
	f    *flow
	raw  syscall.RawConn
	to   pieceSink
	try  func(fd uintptr) bool // tryRead, kept so that the function value is made once
	size int                   // size of the next read
	room int                   // how many bytes may be sent

	got segments // the bytes that were read
	err error    // the error of tryRead, io.EOF at the end
}

func (p *pull) run() {
	for {
		if err := p.step(); err != nil {
			p.got.drop()
			p.f.ended(err)
			return
		}
	}
}

func (p *pull) step() (err error) {
	// Room first: a flow that may not send must not hold a buffer.
	if p.room, err = p.to.waitRoom(1, false); err != nil {
		return unwritten{err}
	}
	if err := p.raw.Read(p.try); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if n := p.got.size; n > 0 {
		if _, err := p.to.waitRoom(n, false); err != nil {
			return unwritten{err}
		}
		if err := p.to.offerAll(&p.got); err != nil { // there is room, and this is the only writer
			return unwritten{err}
		}
		p.f.handed(n)
	}
	return p.err
}

// tryRead reads if there is something to read, and reports whether it has read. When
// there is much, it reads as many pieces as one batch may have: the next program on the
// way is then woken once for all of them.
func (p *pull) tryRead(fd uintptr) bool {
	for pieces := 1; ; pieces++ {
		seg := newSegment(p.size)
		n, err := syscall.Read(int(fd), seg.buf[seg.start:])
		for err == syscall.EINTR {
			n, err = syscall.Read(int(fd), seg.buf[seg.start:])
		}
		if n <= 0 {
			seg.free()
			switch {
			case err == syscall.EAGAIN:
				return pieces > 1
			case err != nil:
				p.err = fmt.Errorf("read: %w", err)
			default:
				p.err = io.EOF
			}
			return true
		}
		full := n == seg.room()
		p.size = nextRead(n, seg.room())
		seg.end += n
		p.got.push(seg)
		if !full || pieces == writePieces || p.got.size+maxBody > p.room {
			return true
		}
	}
}

// inlineWrite is the largest piece that a session's reader writes to a socket itself. A
// larger piece is worth a goroutine: it writes while the reader decrypts the next piece.
const inlineWrite = 4 << 10

// socketPump moves the bytes of a stream to a socket. The session's reader writes a
// small piece at once, if the socket accepts it. Everything else is written by a
// goroutine that ends when there are no more bytes.
type socketPump struct {
	turn
	f    *flow
	src  pieceSource
	now  *promptWriter
	held *segment // the rest of a piece
}

// piecesToSocket is the way from a stream to a socket.
func piecesToSocket(f *flow) (func(), bool) {
	src, ok := f.src.(pieceSource)
	if !ok || f.brake != nil {
		return nil, false
	}
	now := newPromptWriter(f.dst)
	if now == nil {
		return nil, false
	}
	p := &socketPump{f: f, src: src, now: now}
	src.watch(p, nil)
	p.wake(nil)
	return nil, true
}

func (p *socketPump) wake(l *later) {
	if !p.acquire() {
		return
	}
	for {
		more, err := p.moveSmall(l)
		switch {
		case err != nil:
			p.end(err)
			return
		case more:
			go p.run()
			return
		case p.leave():
			return
		}
	}
}

// moveSmall writes small pieces as long as the socket accepts them at once. It returns
// true if there is more, for which a goroutine has to wait.
func (p *socketPump) moveSmall(l *later) (more bool, err error) {
	for {
		p.held, err = p.src.takeAtMost(maxBody)
		if err != nil || p.held == nil {
			return false, err
		}
		if p.held.len() > inlineWrite {
			return true, nil
		}
		n, err := p.now.write(p.held.bytes())
		if n > 0 {
			p.held.start += n
			p.wrote(n, l)
		}
		if err != nil {
			return false, unwritten{err}
		}
		if p.held.len() > 0 {
			return true, nil
		}
		p.held.free()
		p.held = nil
	}
}

// run writes the waiting pieces, several at once, and returns when there are no more.
// The caller holds the pump's turn.
func (p *socketPump) run() {
	var pieces [writePieces]*segment
	var vector [writePieces][]byte
	for {
		n, err := p.gather(&pieces)
		if n == 0 {
			if err != nil {
				p.end(err)
				return
			}
			if p.leave() {
				return
			}
			continue
		}
		buffers := net.Buffers(vector[:0])
		for _, seg := range pieces[:n] {
			buffers = append(buffers, seg.bytes())
		}
		wrote, err := buffers.WriteTo(p.f.dst)
		for _, seg := range pieces[:n] {
			seg.free()
		}
		p.wrote(int(wrote), nil)
		if err != nil {
			p.end(unwritten{fmt.Errorf("write: %w", err)})
			return
		}
	}
}

// gather takes the waiting pieces. If there are none, the error says why.
func (p *socketPump) gather(pieces *[writePieces]*segment) (n int, err error) {
	if p.held != nil {
		pieces[0], p.held, n = p.held, nil, 1
	}
	for n < writePieces {
		seg, err := p.src.takeAtMost(maxBody)
		if seg == nil {
			return n, err
		}
		pieces[n] = seg
		n++
	}
	return n, nil
}

func (p *socketPump) wrote(n int, l *later) {
	p.src.consumed(n, l)
	p.f.handed(n)
}

func (p *socketPump) end(err error) {
	p.over()
	if p.held != nil {
		p.held.free()
		p.held = nil
	}
	p.src.unwatch(p, nil)
	p.f.ended(err)
}
