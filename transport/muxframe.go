package transport

import (
	"encoding/binary"
	"fmt"
)

// The multiplexer's frames; wire/SPEC.md, "Frames", says the same in words. Each begins
// with a header of 8 bytes, big endian:
//
//	 0        1        3                        8
//	+--------+--------+------------------------+
//	| kind   | length | stream                 |  then length bytes of body
//	+--------+--------+------------------------+
//
// The low four bits of kind are one of the values below, the high four are flags
// of a data frame.
const (
	frameData   = 0x0 // body: bytes of the stream
	frameWindow = 0x1 // body: uint32, the number of further bytes that may be sent on the stream
	frameReset  = 0x2 // body: uint32 code; both directions of the stream have ended
	frameTaken  = 0x3 // stream 0, body: uint32, the number of further streams that may be opened
	framePing   = 0x4 // stream 0, body: 8 bytes that the pong repeats
	framePong   = 0x5 // stream 0
	frameBye    = 0x6 // stream 0, body: uint32 code; the session ends

	flagOpen = 0x10 // the first frame of its stream
	flagFin  = 0x20 // the sender writes no more on the stream
	flagStop = 0x40 // the sender reads no more from the stream

	kindMask = 0x0f
	flagMask = 0xf0
)

// Limits that both ends know.
const (
	headerSize = 8
	// maxBody makes header and body together fill one TLS record.
	maxBody = 16384 - headerSize
	// startWindow is how many bytes may be sent on a stream before any frameWindow.
	startWindow = 64 << 10
	// backlog is how many streams may be opened before any frameTaken.
	backlog = 256
	// maxStreamID is the last id: an id is never used twice in a session.
	maxStreamID = 1<<40 - 1
)

// Codes of frameReset.
const (
	resetAsked   = 0 // the sender's program called Reset
	resetTooMany = 1 // more streams than the receiver of the open allows
	resetInOrder = 2 // the reset comes after the stream's data, which must still be read
)

// Codes of frameBye.
const (
	byeClosed   = 0 // the sender's program called Close
	byeProtocol = 1 // the receiver broke these rules
	byeDead     = 2 // the receiver was silent for too long
)

// header is a frame's first 8 bytes.
type header struct {
	kind   byte // includes the flags
	length int
	stream uint64
}

// appendHeader appends the header to b.
func appendHeader(b []byte, h header) []byte {
	var raw [headerSize]byte
	putHeader(raw[:], h)
	return append(b, raw[:]...)
}

// putHeader writes the header to b[:headerSize].
func putHeader(b []byte, h header) {
	binary.BigEndian.PutUint64(b, h.stream)
	b[0] = h.kind
	binary.BigEndian.PutUint16(b[1:], uint16(h.length))
}

// parseHeader reads b[:headerSize] and checks everything that does not depend on the
// streams.
func parseHeader(b []byte) (header, error) {
	h := header{
		kind:   b[0],
		length: int(binary.BigEndian.Uint16(b[1:])),
		stream: binary.BigEndian.Uint64(b) & maxStreamID,
	}
	kind, flags := h.kind&kindMask, h.kind&flagMask
	ofStream, length := false, 4
	switch kind {
	case frameData:
		ofStream, length = true, -1
		if flags&^(flagOpen|flagFin|flagStop) != 0 {
			return h, fmt.Errorf("a data frame with the flags %#x", flags)
		}
		if h.length > maxBody {
			return h, fmt.Errorf("a data frame of %d bytes", h.length)
		}
	case frameWindow, frameReset:
		ofStream = true
	case frameTaken, frameBye:
	case framePing, framePong:
		length = 8
	default:
		return h, fmt.Errorf("a frame of the unknown kind %#x", kind)
	}
	switch {
	case kind != frameData && flags != 0:
		return h, fmt.Errorf("a frame of kind %#x with the flags %#x", kind, flags)
	case length >= 0 && h.length != length:
		return h, fmt.Errorf("a frame of kind %#x with %d bytes", kind, h.length)
	case ofStream != (h.stream != 0):
		return h, fmt.Errorf("a frame of kind %#x with the stream %d", kind, h.stream)
	}
	return h, nil
}

// appendNumber appends a frame whose body is one uint32.
func appendNumber(b []byte, kind byte, stream uint64, n uint32) []byte {
	b = appendHeader(b, header{kind: kind, length: 4, stream: stream})
	return binary.BigEndian.AppendUint32(b, n)
}

// appendEcho appends a ping or pong.
func appendEcho(b []byte, kind byte, n uint64) []byte {
	b = appendHeader(b, header{kind: kind, length: 8})
	return binary.BigEndian.AppendUint64(b, n)
}
