package datagram

import "encoding/binary"

// MaxPayload is the most bytes of a datagram in a stream. UDP itself takes 65,507 over
// IPv4 and 65,527 over IPv6.
const MaxPayload = 65535

// prefix is the length before each datagram.
const prefix = 2

// Append puts a datagram of up to MaxPayload bytes behind b, as it goes into a stream.
func Append(b, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(payload))), payload...)
}

// splitter finds the datagrams in the bytes of a stream, which come in any pieces. The
// zero value is ready.
type splitter struct {
	part []byte // of a datagram that has not come whole
}

// feed takes a piece, and calls each with every datagram that is whole now. each must
// not keep what it gets.
func (s *splitter) feed(piece []byte, each func(payload []byte)) {
	for len(s.part) > 0 && len(piece) > 0 {
		need := prefix
		if len(s.part) >= prefix {
			need += int(binary.BigEndian.Uint16(s.part))
		}
		n := min(need-len(s.part), len(piece))
		s.part, piece = append(s.part, piece[:n]...), piece[n:]
		if whole(s.part) {
			each(s.part[prefix:])
			s.part = s.part[:0]
			if cap(s.part) > 4<<10 {
				s.part = nil
			}
		}
	}
	for whole(piece) {
		end := prefix + int(binary.BigEndian.Uint16(piece))
		each(piece[prefix:end])
		piece = piece[end:]
	}
	s.part = append(s.part, piece...)
}

// whole tells whether b begins with a whole datagram.
func whole(b []byte) bool {
	return len(b) >= prefix && len(b) >= prefix+int(binary.BigEndian.Uint16(b))
}
