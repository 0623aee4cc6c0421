package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // messages that are not frames
	"google.golang.org/grpc/mem"

	"github.com/tunnox-net/tunnox/bridge/bridgepb"
)

// The fields of bridgepb.Frame, as protobuf tags. Every frame is one field.
const (
	tagData  = 1<<3 | 2 // length and bytes
	tagGrant = 2 << 3   // varint, which is 0
	tagEnd   = 3 << 3   // varint
)

const (
	// maxData is the most bytes one frame carries. Larger frames cost fewer
	// allocations and wake-ups for each byte, and let others of the connection
	// wait no longer, because HTTP/2 interleaves in pieces of 16 KiB anyway.
	maxData = 128 << 10
	// maxFrame bounds a frame received: maxData, its tag and its length.
	maxFrame = maxData + 1 + binary.MaxVarintLen32
	// dataHead is the room a data frame keeps for its tag and length.
	dataHead = 1 + 3
	// partSize is how much of a frame is in one buffer. gRPC gives buffers back as
	// it writes pieces of 16 KiB, so that the next frame can be made meanwhile.
	partSize = 16 << 10
	// frameHead is what gRPC puts before a frame.
	frameHead = 5
	// smallFrame is the buffer of frames that need no large one: more than gRPC's
	// threshold of 1 KiB, below which it does not tell when a buffer is free.
	smallFrame = 4 << 10
)

// errFrame: the peer sent what is no frame.
var errFrame = errors.New("bridge: malformed frame")

// codec passes frames through and leaves other messages (the health service's)
// to protobuf. The bytes are what protobuf would write, so that it has its name.
type codec struct{ other encoding.CodecV2 }

func newCodec() codec { return codec{other: encoding.GetCodecV2("proto")} }

// Name is the content subtype.
func (codec) Name() string { return "proto" }

// Marshal gives an outgoing frame's own buffer away: gRPC frees it when the
// bytes are on their way.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(outgoing); ok {
		return f.buffers, nil
	}
	return c.other.Marshal(v)
}

// Unmarshal keeps references to what was received, without a copy.
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
	data  []piece // references; whoever takes them frees them
	size  int     // of data
	grant uint64
	end   bridgepb.End
}

// piece is a part of received bytes, alive until its buffer is freed.
type piece struct {
	bytes  []byte
	buffer mem.Buffer
}

// read decodes one frame, which is one protobuf field and nothing else.
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
			return fmt.Errorf("%w: %d bytes of data in %d", errFrame, value, rest)
		}
		f.size = rest
		f.keep(data, used)
		return nil
	case tagGrant:
		f.grant = value
		if value == 0 || value > maxGrant {
			return fmt.Errorf("%w: grant of %d", errFrame, value)
		}
	case tagEnd:
		f.end = bridgepb.End(value)
		if value == 0 || value > uint64(bridgepb.End_END_RESET_IN_ORDER) {
			return fmt.Errorf("%w: end %d", errFrame, value)
		}
	default:
		return fmt.Errorf("%w: tag %d", errFrame, head[0])
	}
	if rest != 0 {
		return fmt.Errorf("%w: %d bytes behind it", errFrame, rest)
	}
	return nil
}

// keep takes references to the bytes behind the first skip ones.
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

// free gives back what was received.
func (f *frame) free() {
	for i := range f.data {
		f.data[i].buffer.Free()
		f.data[i] = piece{}
	}
	f.data, f.size = f.data[:0], 0
}

// appendDataHead begins a frame of n bytes.
func appendDataHead(b []byte, n int) []byte {
	return binary.AppendUvarint(append(b, tagData), uint64(n))
}

func appendGrant(b []byte, n int) []byte {
	return binary.AppendUvarint(append(b, tagGrant), uint64(n))
}

func appendEnd(b []byte, end bridgepb.End) []byte {
	return binary.AppendUvarint(append(b, tagEnd), uint64(end))
}
