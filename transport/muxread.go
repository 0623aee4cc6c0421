package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"
)

// errProtocol means that the peer broke the rules for frames.
var errProtocol = errors.New("the peer broke the protocol")

// readLoop reads frames until the connection ends. It never waits for a stream: the
// window has allowed every byte that the peer sends, so there is room for it.
func (s *muxSession) readLoop() {
	from := &records{Conn: s.conn}
	r := newReader(from)
	for {
		if beneath := s.config.beneath; beneath != nil && from.drained && r.Buffered() == 0 {
			freeReader(r) // an idle session needs no buffer to wait
			beneath.await()
			r = newReader(from)
		}
		err := s.readFrame(r)
		if err == nil {
			continue
		}
		code := uint32(byeClosed)
		if errors.Is(err, errProtocol) {
			code = byeProtocol
		}
		if errors.Is(err, io.EOF) {
			// The connection was cut, for example because the peer's process was
			// killed. The streams return this error from Read. It must not be EOF,
			// which would mean that all the data has come.
			err = io.ErrUnexpectedEOF
		}
		freeReader(r)
		s.late.write() // data that came before the end must still be delivered
		s.end(fmt.Errorf("%w: %w", ErrSessionClosed, err), code)
		return
	}
}

// readers is a pool of read buffers. Only a session with something to read has one.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}

func newReader(from io.Reader) *bufio.Reader {
	r := readers.Get().(*bufio.Reader)
	r.Reset(from)
	return r
}

func freeReader(r *bufio.Reader) {
	r.Reset(nil)
	readers.Put(r)
}

func (s *muxSession) readFrame(r *bufio.Reader) error {
	if r.Buffered() == 0 {
		// The clock is read once for each batch, and after the wait: a time from before
		// the wait would be wrong.
		if _, err := r.Peek(1); err != nil {
			return err
		}
		s.heard.Store(int64(time.Since(s.began)))
	}
	raw, err := r.Peek(headerSize)
	if err != nil {
		return err
	}
	h, err := parseHeader(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	if err := s.guest.received(h); err != nil {
		return err
	}
	_, _ = r.Discard(headerSize) // the header was peeked
	if h.kind&kindMask == frameData {
		return s.readData(r, h)
	}
	raw, err = r.Peek(h.length) // at most 8 bytes, which parseHeader has checked
	if err != nil {
		return err
	}
	switch h.kind {
	case framePing:
		return s.gotPing(binary.BigEndian.Uint64(raw), r)
	case framePong:
		s.gotPong(binary.BigEndian.Uint64(raw))
	case frameWindow:
		err = s.gotWindow(h.stream, binary.BigEndian.Uint32(raw))
	case frameReset:
		s.gotReset(h.stream, binary.BigEndian.Uint32(raw))
	case frameTaken:
		err = s.gotTaken(binary.BigEndian.Uint32(raw))
	case frameBye:
		return fmt.Errorf("%w with code %d", errBye, binary.BigEndian.Uint32(raw))
	}
	_, _ = r.Discard(h.length)
	return err
}

// readData reads the body of a data frame and hands it to its stream.
func (s *muxSession) readData(r *bufio.Reader, h header) error {
	st, err := s.receiver(h)
	if err != nil {
		return err
	}
	if st == nil { // the stream has ended at this side
		_, err := r.Discard(h.length)
		return err
	}
	if h.length <= readBuffer {
		body, err := r.Peek(h.length)
		if err != nil {
			return err
		}
		s.mu.Lock()
		if !st.deaf {
			st.in.add(body)
		}
		_, _ = r.Discard(h.length)
		s.delivered(st, h)
		return nil
	}
	seg := newSegment(h.length)
	if _, err := io.ReadFull(r, seg.buf[seg.start:seg.start+h.length]); err != nil {
		seg.free()
		return err
	}
	seg.end = seg.start + h.length
	s.mu.Lock()
	if st.deaf {
		seg.free()
	} else {
		st.in.give(seg)
	}
	s.delivered(st, h)
	return nil
}

// delivered handles the flags of a data frame, after its body was read. The lock is
// held at the call and released at the return.
func (s *muxSession) delivered(st *muxStream, h header) {
	st.finGot = st.finGot || h.kind&flagFin != 0
	if h.kind&flagStop != 0 {
		st.stopGot = true
		st.out.drop()
		st.writable.Broadcast()
	}
	st.mayEnd()
	st.readable.Broadcast()
	onRead, onRoom := st.onRead, st.onRoom
	stopped := st.stopGot
	var onOpen func(Stream)
	if h.kind&flagOpen != 0 && s.err == nil {
		if onOpen = s.onOpen; onOpen != nil {
			s.noteTaken()
		} else {
			s.waiting = append(s.waiting, st)
			s.tellArrived()
		}
	}
	s.release(&s.late)
	if onOpen != nil {
		onOpen(st)
	}
	if onRead != nil {
		onRead.wake(&s.late)
	}
	if stopped && onRoom != nil {
		onRoom.wake(&s.late)
	}
}

// receiver returns the stream of a data frame. It makes the stream if the frame opens
// it, and takes the body off the window. It returns nil if the stream has ended.
func (s *muxSession) receiver(h header) (*muxStream, error) {
	s.mu.Lock()
	defer s.release(&s.late)
	st := s.streams[h.stream]
	ours := h.stream&1 == s.nextID&1
	if h.kind&flagOpen != 0 {
		if ours || h.stream <= s.lastPeer {
			return nil, fmt.Errorf("%w: stream %d opened again", errProtocol, h.stream)
		}
		s.lastPeer = h.stream
		if s.peers >= s.config.MaxStreams {
			s.noteTaken() // no Accept will return this stream
			s.send(appendNumber(s.urgent, frameReset, h.stream, resetTooMany))
			return nil, nil
		}
		if len(s.waiting) >= backlog {
			return nil, fmt.Errorf("%w: more than %d streams wait to be accepted", errProtocol, backlog)
		}
		st = newMuxStream(s, h.stream)
		st.theirs = true
		if s.err == nil {
			s.streams[h.stream] = st
			s.peers++
		}
	} else if st == nil {
		if (ours && h.stream >= s.nextID) || (!ours && h.stream > s.lastPeer) {
			return nil, fmt.Errorf("%w: data on stream %d, which nobody opened", errProtocol, h.stream)
		}
		return nil, nil
	}
	if st.finGot && (h.length > 0 || h.kind&flagStop == 0) {
		return nil, fmt.Errorf("%w: data behind the end of stream %d", errProtocol, h.stream)
	}
	if h.length > st.allowed {
		return nil, fmt.Errorf("%w: more than its window on stream %d", errProtocol, h.stream)
	}
	st.allowed -= h.length
	return st, nil
}

func (s *muxSession) gotWindow(id uint64, n uint32) error {
	s.mu.Lock()
	st := s.streams[id]
	if st == nil {
		s.mu.Unlock()
		return nil
	}
	if int64(st.credit)+int64(n) > math.MaxInt32 {
		s.mu.Unlock()
		return fmt.Errorf("%w: a window of over 2 GiB on stream %d", errProtocol, id)
	}
	st.credit += int(n)
	onRoom := st.hasRoom()
	s.release(&s.late)
	if onRoom != nil {
		onRoom.wake(&s.late)
	}
	return nil
}

func (s *muxSession) gotReset(id uint64, code uint32) {
	s.mu.Lock()
	st := s.streams[id]
	if st == nil {
		s.mu.Unlock()
		return
	}
	onRead, onRoom := st.onRead, st.onRoom
	if code == resetInOrder && !st.resets {
		st.wasReset, st.stopGot = true, true
		st.out.drop()
		st.readable.Broadcast()
		st.writable.Broadcast()
		st.mayEnd() // the reader still gets the data that came before
	} else {
		st.fail(ErrReset)
		st.remove()
	}
	s.mu.Unlock()
	for _, h := range []hook{onRead, onRoom} {
		if h != nil {
			h.wake(&s.late)
		}
	}
}

func (s *muxSession) gotTaken(n uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(n) > int64(s.unaccepted) {
		return fmt.Errorf("%w: %d streams taken of %d", errProtocol, n, s.unaccepted)
	}
	s.letOpen(int(n))
	return nil
}

func (s *muxSession) gotPing(n uint64, r *bufio.Reader) error {
	_, _ = r.Discard(8)
	s.mu.Lock()
	defer s.release(&s.late)
	if len(s.urgent) > maxUrgent {
		return fmt.Errorf("%w: it asks and does not read the answers", errProtocol)
	}
	s.send(appendEcho(s.urgent, framePong, n))
	return nil
}

func (s *muxSession) gotPong(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pong, ok := s.pings[n]
	switch {
	case ok:
		delete(s.pings, n)
		close(pong)
	case s.probing && n == s.probe:
		s.probing = false
	default:
		return
	}
	s.rtt = time.Since(s.began) - time.Duration(n)
	s.pace.roundTrip(s.rtt)
}
