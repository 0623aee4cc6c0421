package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // for messages that are not frames
	"google.golang.org/grpc/mem"

	"github.com/tunnox-net/tunnox/bridge/bridgepb"
)

// The fields of bridgepb.Frame, as protobuf tags. Every frame has exactly one field.
const (
	tagData  = 1<<3 | 2 // wire type 2: length and bytes
	tagGrant = 2 << 3   // wire type 0: varint
	tagEnd   = 3 << 3   // wire type 0
)

const (
	// maxData is the most bytes that one frame carries. Large frames cost fewer
	// allocations and wake-ups for each byte. Other streams on the connection wait no
	// longer for them, because HTTP/2 interleaves pieces of 16 KiB anyway.
	maxData = 128 << 10
	// maxFrame bounds a received frame: maxData, its tag and its length.
	maxFrame = maxData + 1 + binary.MaxVarintLen32
	// dataHead is the space that a data frame keeps for its tag and length.
	dataHead = 1 + 3
	// partSize is how much of a frame is in one buffer. gRPC frees buffers while it
	// writes pieces of 16 KiB, so the next frame can be built at the same time.
	partSize = 16 << 10
	// frameHead is the number of bytes that gRPC puts before a frame.
	frameHead = 5
	// smallFrame is the buffer size for small frames. It is above gRPC's threshold of 1
	// KiB: below the threshold gRPC does not report when a buffer is free.
	smallFrame = 4 << 10
)

// errFrame: the peer sent bytes that are not a frame.
var errFrame = errors.New("bridge: malformed frame")

// codec encodes frames itself and leaves other messages (those of the health service)
// to protobuf. The bytes are the same as protobuf would write, so the codec has
// protobuf's name.
type codec struct{ other encoding.CodecV2 }

func newCodec() codec { return codec{other: encoding.GetCodecV2("proto")} }

// Name is the content subtype.
func (codec) Name() string { return "proto" }

// Marshal hands over the buffer of an outgoing frame. gRPC frees the buffer after it
// has written the bytes.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(outgoing); ok {
		return f.buffers, nil
	}
	return c.other.Marshal(v)
}

// Unmarshal keeps references to the received bytes and does not copy them.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		return f.read(data)
	}
	return c.other.Unmarshal(data, v)
}

// outgoing is an encoded frame.
type outgoing struct{ buffers mem.BufferSlice }

// frame is a received frame.
type frame struct {
	data  []piece // references; the owner of the frame frees them
	size  int     // number of bytes in data
	grant uint64
	end   bridgepb.End
}

// piece is a part of received bytes. It is valid until its buffer is freed.
type piece struct {
	bytes  []byte
	buffer mem.Buffer
}

// read decodes one frame: one protobuf field and nothing else.
func (f *frame) read(data mem.BufferSlice) error {
	*f = frame{data: f.data[:0]}
	var head [1 + binary.MaxVarintLen64]byte
	n := data.CopyTo(head[:])
	if n == 0 {
		return fmt.Errorf("%w: empty", errFrame)
	}
	value, used := binary.Uvarint(head[1:n])
	if used <= 0 {
		return fmt.Errorf("%w: no number after the tag", errFrame)
	}
	used++
	rest := data.Len() - used
	switch head[0] {
	case tagData:
		if value == 0 || value > maxData || uint64(rest) != value {
			return fmt.Errorf("%w: a length of %d with %d bytes left", errFrame, value, rest)
		}
		f.size = rest
		f.keep(data, used)
		return nil
	case tagGrant:
		f.grant = value
		if value == 0 || value > maxGrant {
			return fmt.Errorf("%w: a grant of %d", errFrame, value)
		}
	case tagEnd:
		f.end = bridgepb.End(value)
		if value == 0 || value > uint64(bridgepb.End_END_RESET_IN_ORDER) {
			return fmt.Errorf("%w: unknown end %d", errFrame, value)
		}
	default:
		return fmt.Errorf("%w: unknown tag %d", errFrame, head[0])
	}
	if rest != 0 {
		return fmt.Errorf("%w: %d bytes after the field", errFrame, rest)
	}
	return nil
}

// keep keeps references to all bytes after the first skip bytes.
func (f *frame) keep(data mem.BufferSlice, skip int) {
	for _, b := range data {
		bytes := b.ReadOnlyData()
		if skip >= len(bytes) {
			skip -= len(bytes)
			continue
		}
		b.Ref()
		f.data = append(f.data, piece{bytes: bytes[skip:], buffer: b})
		skip = 0
	}
}

// free frees the received buffers.
func (f *frame) free() {
	for i := range f.data {
		f.data[i].buffer.Free()
		f.data[i] = piece{}
	}
	f.data, f.size = f.data[:0], 0
}

// appendDataHead appends the tag and the length of a data frame of n bytes.
func appendDataHead(b []byte, n int) []byte {
	return binary.AppendUvarint(append(b, tagData), uint64(n))
}

func appendGrant(b []byte, n int) []byte {
	return binary.AppendUvarint(append(b, tagGrant), uint64(n))
}

func appendEnd(b []byte, end bridgepb.End) []byte {
	return binary.AppendUvarint(append(b, tagEnd), uint64(end))
}
