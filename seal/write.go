package seal

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// Write makes records of b and gives them to the carrier. Bytes that were counted will
// be sent, also after a deadline.
func (s *stream) Write(b []byte) (n int, err error) {
	s.wmu.Lock()
	defer s.unlock()
	for s.late && s.werr == nil {
		s.landed.Wait()
	}
	if s.werr != nil {
		return 0, s.werr
	}
	for {
		if err := s.push(); err != nil {
			return n, err
		}
		// Nothing is sealed that is not to be sent: the deadline may have passed.
		if err := s.writable(); err != nil || len(b) == 0 {
			return n, s.failed(err)
		}
		m, err := s.gather(b[:min(len(b), batch*sentContent)])
		if err != nil {
			return n, err
		}
		err = s.push()
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			n += m // they are on their way, or wait
		}
		if b = b[m:]; err != nil || len(b) == 0 {
			return n, err
		}
	}
}

// gather makes records of b behind those that wait.
func (s *stream) gather(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		content := b[n:min(len(b), n+sentContent)]
		err = s.add(content, len(b)-n)
		n += len(content)
	}
	return n, err
}

// add makes one record behind those that wait. more is how many bytes will be added with
// it, for the choice of a buffer.
func (s *stream) add(content []byte, more int) error {
	if s.out.number >= rekeyAfter {
		s.room(overhead + len(keyUpdate) + overhead + more)
		s.append(kindRekey, []byte(keyUpdate))
		if err := s.out.next(); err != nil {
			s.werr = err
			return err
		}
	}
	s.room(overhead + len(content))
	s.append(kindData, content)
	s.moved(len(content), &s.given)
	return nil
}

// room makes room behind what waits.
func (s *stream) room(n int) {
	switch {
	case s.pending == nil:
		s.pending = newBuffer(n)
	case s.pending.end+n > len(s.pending.b):
		s.pending = s.pending.move(s.pending.end - s.pending.start + n)
	}
}

func (s *stream) append(k kind, content []byte) {
	s.pending.end = len(s.out.seal(s.pending.b[:s.pending.end], k, content))
}

// push gives the carrier what waits, and waits for room.
func (s *stream) push() error {
	if s.pending == nil {
		return nil
	}
	s.blocking.Store(true) // before ending is looked at, as finish does it the other way round
	if s.ending.Load() {
		s.blocking.Store(false)
		return net.ErrClosed
	}
	n, err := s.carry(s.pending.bytes())
	s.blocking.Store(false)
	err = s.took(n, err)
	switch {
	case s.pending == nil:
	case s.prompt != nil:
		if failed := s.hand(); failed != nil { // has the hook called when there is room
			return failed
		}
	default:
		s.late = true
		go s.finishLate()
	}
	return err
}

// took takes what the carrier has taken from what waits.
func (s *stream) took(n int, err error) error {
	s.pending.start += n
	switch {
	case s.pending.start == s.pending.end:
		s.pending.free()
		s.pending = nil
		s.arrive()
	case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		s.pending.free()
		s.pending = nil
		err = s.unwritten(err)
		if s.werr == nil {
			s.werr = err
		}
	}
	return err
}

// WriteNow makes records of as many pieces as the carrier has room for, and of some more,
// which wait.
func (s promptStream) WriteNow(pieces [][]byte) (n int, err error) {
	s.wmu.Lock()
	defer s.unlock()
	if s.werr != nil {
		return 0, s.werr
	}
	if err := s.hand(); err != nil || len(pieces) == 0 {
		return 0, err
	}
	for s.pending == nil && len(pieces) > 0 {
		size, m, took := 0, 0, 0
		for took < len(pieces) && took < batch && len(pieces[took]) <= maxContent {
			size += overhead + len(pieces[took])
			took++
		}
		if took == 0 { // a long piece
			m, err = s.gather(pieces[0][:min(len(pieces[0]), batch*sentContent)])
			pieces[0] = pieces[0][m:]
		} else {
			s.room(size)
			for _, piece := range pieces[:took] {
				if len(piece) > 0 && err == nil {
					err = s.add(piece, size)
				}
				m += len(piece)
			}
			pieces = pieces[took:]
		}
		if err == nil {
			err = s.hand()
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// hand gives the carrier what waits, as far as it has room.
func (s *stream) hand() error {
	if s.late {
		return nil
	}
	if s.pending == nil {
		_, err := s.prompt.WriteNow(nil)
		return s.failed(err)
	}
	s.vector[0] = s.pending.bytes()
	to := s.prompt.WriteNow
	if s.wlane != nil {
		to = s.wlane.WriteNow
	}
	n, err := to(s.vector[:])
	s.vector[0] = nil
	err = s.took(n, err)
	if s.pending == nil && s.then != nil {
		s.then()
		s.then = nil
	}
	return err
}

// hasRoom is the carrier's hook.
func (s *stream) hasRoom() {
	s.heed()
	s.roomy.Store(true)
	if s.wmu.TryLock() {
		s.unlock()
	}
	if do := s.onRoom.Load(); do != nil {
		(*do)()
	}
}

// unlock unlocks the write side. What waits goes first if the carrier has had room since
// it was locked.
func (s *stream) unlock() {
	for {
		if s.roomy.Swap(false) && s.pending != nil && !s.late && s.prompt != nil {
			_ = s.hand() // an error is kept
		}
		s.wmu.Unlock()
		if !s.roomy.Load() || !s.wmu.TryLock() {
			return
		}
	}
}

// finish ends the write side with a last record behind the data, and then does what is
// left to do with the carrier. It does not wait: a goroutine does, where that is needed.
func (s *stream) finish(k kind, content []byte, then func()) {
	s.ending.Store(true)
	switch {
	case s.blocking.Load(): // a writer waits: what it writes will not come whole
		then()
	case s.wmu.TryLock():
		s.finishLocked(k, content, then)
		s.unlock()
	default:
		go func() {
			s.wmu.Lock()
			s.finishLocked(k, content, then)
			s.unlock()
		}()
	}
}

func (s *stream) finishLocked(k kind, content []byte, then func()) {
	if s.werr != nil { // it has ended
		if s.pending == nil {
			then()
		} else if before := s.then; before != nil {
			s.then = func() { before(); then() }
		} else {
			s.then = then
		}
		return
	}
	if s.late { // of a Write whose deadline passed
		go func() {
			s.wmu.Lock()
			defer s.unlock()
			for s.late {
				s.landed.Wait()
			}
			s.finishLocked(k, content, then)
		}()
		return
	}
	s.werr = net.ErrClosed
	if k == kindReset {
		s.werr = transport.ErrReset
	}
	s.then = then
	if s.next != nil { // the record belongs behind the move, on the lane
		s.last = &last{k, content}
		s.late = true
		go s.finishLate()
		return
	}
	s.room(overhead + len(content))
	s.append(k, content)
	if s.prompt != nil {
		if err := s.hand(); err != nil && s.pending == nil {
			then()
			s.then = nil
		}
	}
	if s.pending != nil {
		s.late = true
		go s.finishLate()
	}
}

// finishLate writes what waits and does what is left to do. Deadlines are for writes, and
// these bytes count as written.
func (s *stream) finishLate() {
	for {
		var n int
		err := os.ErrDeadlineExceeded
		for waiting := s.pending.bytes(); errors.Is(err, os.ErrDeadlineExceeded) && len(waiting) > 0; waiting = waiting[n:] {
			_ = s.SetWriteDeadline(time.Time{})
			n, err = s.carry(waiting)
		}
		s.wmu.Lock()
		s.pending.free()
		s.pending = nil
		if err == nil && s.arrive() && s.last != nil {
			s.room(overhead + len(s.last.content))
			s.append(s.last.kind, s.last.content)
			s.last = nil
			s.wmu.Unlock()
			continue
		}
		s.late = false
		if err != nil {
			if err = s.unwritten(err); s.werr == nil {
				s.werr = err
			}
		}
		if s.then != nil {
			s.then()
			s.then = nil
		}
		if s.prompt == nil {
			s.landed.Broadcast()
		}
		s.unlock()
		return
	}
}

// CloseWrite ends the write side. The end is a record, so that nobody else can make it.
func (s *stream) CloseWrite() error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.finish(kindEnd, nil, s.closeWrite)
	return nil
}

// Close ends both sides. The peer still gets the bytes that were written.
func (s *stream) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.stopReading()
	s.finish(kindEnd, nil, s.close)
	return nil
}

// ResetInOrder ends both sides: the read side at once, the write side behind the bytes
// that were written.
func (s *stream) ResetInOrder() error { return s.ResetWith(0) }

// ResetWith is ResetInOrder with a code for the peer.
func (s *stream) ResetWith(code uint32) error {
	err := transport.ErrReset
	s.failure.CompareAndSwap(nil, &err)
	s.finish(kindReset, binary.BigEndian.AppendUint32(nil, code), s.resetInOrder)
	s.stopReading()
	return nil
}

// stopReading wakes who reads, and gives back what was not read.
func (s *stream) stopReading() {
	_ = s.StopRead() // an error means that it has ended
	if s.rmu.TryLock() {
		s.drop()
		s.rmu.Unlock()
	}
}
