package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// Limits of a message's body in bytes. They are checked before anything is
// allocated, so that a length from a stranger costs nothing.
const (
	// MaxHandshake bounds control messages until Welcome has been sent or
	// received: an unauthenticated peer can make this side hold no more.
	MaxHandshake = 4 << 10
	// MaxControl bounds control messages after that.
	MaxControl = 1 << 20
	// MaxOpen bounds Open and Opened. A handshake of package seal has 1,300 bytes.
	MaxOpen = 4 << 10
)

// Sizes of the length before a body, big endian.
const (
	controlPrefix = 4
	openPrefix    = 2
)

// AppendControl appends the message in its frame to b. It fails, with b as it
// was, when the message is larger than MaxControl.
func AppendControl(b []byte, m *wirepb.Control) ([]byte, error) {
	return appendFrame(b, m, controlPrefix, MaxControl)
}

// WriteControl writes the message with one call of Write.
func WriteControl(w io.Writer, m *wirepb.Control) error {
	return writeFrame(w, m, controlPrefix, MaxControl)
}

// ReadControl reads one control message of at most limit bytes, MaxHandshake or
// MaxControl, and not one byte more than it. The error is io.EOF only when
// nothing of the message had come, and wraps Malformed when what came is none.
func ReadControl(r io.Reader, limit int) (*wirepb.Control, error) {
	m := new(wirepb.Control)
	if err := readFrame(r, m, controlPrefix, limit); err != nil {
		return nil, err
	}
	return m, nil
}

// AppendOpen appends the Open in its frame to b, so that the first data can
// follow in the same write.
func AppendOpen(b []byte, m *wirepb.Open) ([]byte, error) {
	return appendFrame(b, m, openPrefix, MaxOpen)
}

// WriteOpen writes the Open with one call of Write.
func WriteOpen(w io.Writer, m *wirepb.Open) error {
	return writeFrame(w, m, openPrefix, MaxOpen)
}

// ReadOpen reads the Open that begins a stream, and not one byte of the data
// behind it. Errors are as with ReadControl.
func ReadOpen(r io.Reader) (*wirepb.Open, error) {
	m := new(wirepb.Open)
	if err := readFrame(r, m, openPrefix, MaxOpen); err != nil {
		return nil, err
	}
	return m, nil
}

// AppendOpened appends the yes to b, so that the first data can follow in the
// same write.
func AppendOpened(b []byte) []byte {
	return append(b, 0, 0) // an empty message: code "" is yes
}

// WriteOpened answers Open: yes when err is nil, otherwise the code and message
// of the Refusal or Code in err. For an error without a code the answer is Internal and
// the sentence of Internal, because the peer may not be allowed to know the error's text.
func WriteOpened(w io.Writer, err error) error {
	m := new(wirepb.Opened)
	if err != nil {
		r := refusalOf(err)
		m.Code, m.Message, m.SealLeast = string(r.Code), clip(r.Message, 1<<10), r.Least
	}
	return writeFrame(w, m, openPrefix, MaxOpen)
}

// WriteOpenedSealed answers yes with the second message of the agents' handshake; nil
// is none.
func WriteOpenedSealed(w io.Writer, seal []byte) error {
	return WriteYes(w, &wirepb.Opened{Seal: seal})
}

// WriteYes answers Open with an Opened that has no code.
func WriteYes(w io.Writer, m *wirepb.Opened) error { return writeFrame(w, m, openPrefix, MaxOpen) }

// ReadOpened reads the answer to Open, and not one byte of the data behind it.
// The error is a *Refusal when the answer is no.
func ReadOpened(r io.Reader) error {
	_, err := ReadOpenedSealed(r)
	return err
}

// ReadOpenedSealed is ReadOpened with the second message of the agents' handshake; nil
// when there is none.
func ReadOpenedSealed(r io.Reader) (seal []byte, err error) {
	m, err := ReadYes(r)
	return m.GetSeal(), err
}

// ReadYes is ReadOpened with all that the answer says.
func ReadYes(r io.Reader) (*wirepb.Opened, error) {
	m := new(wirepb.Opened)
	if err := readFrame(r, m, openPrefix, MaxOpen); err != nil {
		return nil, err
	}
	if m.Code == "" {
		return m, nil
	}
	refusal := Refuse(Code(m.Code))
	if m.Message != "" {
		refusal.Message = m.Message
	}
	refusal.Least = m.SealLeast
	return nil, refusal
}

func appendFrame(b []byte, m proto.Message, prefix, limit int) ([]byte, error) {
	start := len(b)
	out := append(b, make([]byte, prefix)...)
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(out, m)
	if err != nil {
		return b, fmt.Errorf("encode message: %w", err)
	}
	size := len(out) - start - prefix
	if size > limit {
		return b, fmt.Errorf("encode message: %d bytes are more than the %d allowed", size, limit)
	}
	switch prefix {
	case controlPrefix:
		binary.BigEndian.PutUint32(out[start:], uint32(size))
	default:
		binary.BigEndian.PutUint16(out[start:], uint16(size))
	}
	return out, nil
}

func writeFrame(w io.Writer, m proto.Message, prefix, limit int) error {
	b, err := appendFrame(nil, m, prefix, limit)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

func readFrame(r io.Reader, m proto.Message, prefix, limit int) error {
	var head [controlPrefix]byte
	if _, err := io.ReadFull(r, head[:prefix]); err != nil {
		return err // io.EOF and io.ErrUnexpectedEOF tell the two ends apart
	}
	var size uint32
	switch prefix {
	case controlPrefix:
		size = binary.BigEndian.Uint32(head[:])
	default:
		size = uint32(binary.BigEndian.Uint16(head[:]))
	}
	if uint64(size) > uint64(limit) {
		return fmt.Errorf("read message: %d bytes are more than the %d allowed: %w", size, limit, Malformed)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read message: %w", err)
	}
	if err := proto.Unmarshal(body, m); err != nil {
		// The decoder's text varies between builds on purpose; only the fact counts.
		return fmt.Errorf("read message: %w", Malformed)
	}
	return nil
}

// clip shortens s to at most n bytes without cutting a character in two.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
