package seal

import (
	"encoding/binary"
	"errors"
	"io"
	"net"

	"github.com/tunnox-net/tunnox/transport"
)

// Read reads bytes from the peer, and waits if there are none.
func (s *stream) Read(b []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if len(b) == 0 {
		return s.carrier.Read(b)
	}
	for {
		if s.rlane != nil {
			n, err := s.read(true, b)
			if n > 0 || err != nil {
				return s.more(b, n), err
			}
			if err := s.rlane.AwaitRead(); err != nil {
				return 0, s.unread(err)
			}
			continue
		}
		if s.raw == nil && s.rerr == nil && !s.closed.Load() {
			// It may take long until something comes, and a buffer is not needed until then.
			n, err := s.carrier.Read(s.head[:])
			if n > 0 {
				s.raw = newBuffer(s.size)
				s.raw.end = copy(s.raw.b, s.head[:n])
			} else if err != nil {
				return 0, s.unread(err)
			}
		}
		n, err := s.read(false, b)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// more puts the contents of further records that have come behind the n bytes of b, and
// gives how many there are then.
func (s *stream) more(b []byte, n int) int {
	for n > 0 && s.rerr == nil && len(s.plain) == 0 {
		whole, err := s.whole()
		m := 0
		if err == nil {
			if whole == 0 || len(b)-n < whole-headerSize {
				break
			}
			m, _, err = s.take(whole, b[n:])
		}
		if err != nil {
			_ = s.broken(err) // kept for the next read
			break
		}
		n += m
	}
	s.release()
	return n
}

// unread gives what an error of the carrier means.
func (s *stream) unread(err error) error {
	if s.rlane != nil && errors.Is(err, transport.ErrReset) {
		return s.broken(s.failed(err)) // the carrier has not died, and must not outlive the lane
	}
	if err == io.EOF { //nolint:errorlint // as an end is given
		return s.broken(ErrTruncated)
	}
	return s.failed(err) // not kept: it may be a deadline
}

// ReadNow reads bytes that have come already.
func (s promptStream) ReadNow(b []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if len(b) == 0 {
		return s.prompt.ReadNow(b)
	}
	return s.read(true, b)
}

// read gives bytes of the next record. It gives none when the carrier gives none; with now
// it does not wait for any.
func (s *stream) read(now bool, b []byte) (int, error) {
	if s.closed.Load() {
		s.drop()
		return 0, net.ErrClosed
	}
	direct, err := 0, error(nil)
	if len(s.plain) == 0 {
		direct, err = s.record(now, b)
		if direct > 0 || err != nil {
			return direct, err
		}
	}
	n := copy(b, s.plain)
	s.plain = s.plain[n:]
	s.release()
	return n, nil
}

// fill makes plain the next content, if it has come.
func (s *stream) fill() error {
	if len(s.plain) > 0 {
		return nil
	}
	_, err := s.record(true, nil)
	return err
}

// record reads from the carrier until there is the content of a record. It puts the
// content into b if there is room, and returns its length; otherwise it is plain. There
// is none of both when the carrier gave nothing.
func (s *stream) record(now bool, b []byte) (n int, err error) {
	if s.rerr != nil {
		return 0, s.rerr
	}
	for {
		whole, err := s.whole()
		if err != nil {
			return 0, s.broken(err)
		}
		if whole > 0 {
			n, done, err := s.take(whole, b)
			if err != nil {
				return 0, s.broken(err)
			}
			if done {
				return n, nil
			}
			continue
		}
		got, err := s.receive(now)
		if err != nil {
			s.release()
			return 0, s.unread(err)
		}
		if got == 0 {
			s.release()
			return 0, nil
		}
	}
}

// broken ends the reading with what take or a fault says. Nobody reads further.
func (s *stream) broken(err error) error {
	s.drop()
	s.rerr = err
	_, reset := errors.AsType[Reset](err)
	switch {
	case err != io.EOF && !reset: //nolint:errorlint // see record
		return s.fault(err)
	case reset && s.rlane != nil: // nobody else resets the carrier
		s.failure.CompareAndSwap(nil, &err)
		go s.Reset()
	}
	return err
}

// whole gives the length of the record at the front, 0 when it has not come whole.
func (s *stream) whole() (int, error) {
	if s.raw == nil || s.raw.end-s.raw.start < headerSize {
		return 0, nil
	}
	n, err := size(s.raw.bytes())
	if err != nil || s.raw.end-s.raw.start < n {
		return 0, err
	}
	return n, nil
}

// receive reads more from the carrier.
func (s *stream) receive(now bool) (int, error) {
	if s.raw == nil {
		s.raw = newBuffer(s.size)
	}
	raw := s.raw
	if have := raw.end - raw.start; have >= headerSize {
		need, err := size(raw.bytes())
		if err != nil {
			return 0, err
		}
		if raw.start+need > len(raw.b) {
			s.raw = raw.move(need)
		}
	} else if raw.start+maxRecord > len(raw.b) && raw.start > 0 {
		s.raw = raw.move(have)
	}
	raw = s.raw
	room := raw.b[raw.end:]
	from := s.carrier.Read
	switch {
	case s.rlane != nil:
		from = s.rlane.ReadNow // Read waits elsewhere, without a buffer
	case now:
		from = s.prompt.ReadNow
	}
	n, err := from(room)
	raw.end += n
	switch {
	case n == len(room):
		s.size = largeBuffer
	case n < smallBuffer/2:
		s.size = smallBuffer
	}
	if n > 0 {
		err = nil // it comes again
	}
	return n, err
}

// take opens the record at the front. done is false when it had no content to read.
// The error is io.EOF at the end, a Reset, or ErrRecord.
func (s *stream) take(whole int, b []byte) (n int, done bool, err error) {
	record := s.raw.bytes()[:whole]
	to := record[headerSize:]
	direct := len(b) >= whole-headerSize
	if direct {
		to = b // without a copy
	}
	k, content, err := s.in.open(to, record)
	if err != nil {
		return 0, false, err
	}
	s.raw.start += whole
	switch {
	case k == kindData && len(content) > 0:
		s.moved(len(content), &s.taken)
		if direct {
			s.release()
			return len(content), true, nil
		}
		s.plain = content
		return 0, true, nil
	case k == kindEnd && len(content) == 0:
		return 0, false, io.EOF
	case k == kindReset && len(content) == 4:
		return 0, false, Reset{Code: binary.BigEndian.Uint32(content)}
	case k == kindMove && len(content) == 0:
		return 0, false, s.follow()
	case k == kindRekey && string(content) == keyUpdate:
		return 0, false, s.in.next()
	}
	return 0, false, ErrRecord
}

// release gives the buffer back when there is nothing in it.
func (s *stream) release() {
	if s.raw != nil && len(s.plain) == 0 && s.raw.start == s.raw.end {
		s.raw.free()
		s.raw = nil
	}
}

// drop gives the buffer back with what is in it.
func (s *stream) drop() {
	if s.raw != nil {
		clear(s.plain)
		s.raw.free()
		s.raw, s.plain = nil, nil
	}
}
