package logproof

import (
	"encoding/binary"
	"errors"

	"golang.org/x/mod/sumdb/tlog"
)

// Seen is the checkpoint that an agent has seen last, as it tells a peer in a handshake.
// The zero Seen is none.
type Seen struct {
	Origin string    `json:"origin"` // the name of the log, at most 200 bytes
	Size   int64     `json:"size"`
	Root   tlog.Hash `json:"root"`
}

// maxOrigin bounds the name of a log in a handshake, in bytes.
const maxOrigin = 200

// Seen gives the newest proven checkpoint for a peer.
func (k Known) Seen() Seen {
	c, err := k.checkpoint()
	if err != nil || c.Size == 0 || len(c.Origin) > maxOrigin {
		return Seen{}
	}
	return Seen{c.Origin, c.Size, c.Root}
}

// Append appends 8 bytes of the size, the root, and the name, to b. None appends nothing.
func (s Seen) Append(b []byte) []byte {
	if s.Size == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, uint64(s.Size))
	return append(append(b, s.Root[:]...), s.Origin...)
}

// ParseSeen reads what Append wrote.
func ParseSeen(b []byte) (Seen, error) {
	if len(b) == 0 {
		return Seen{}, nil
	}
	const head = 8 + tlog.HashSize
	if len(b) <= head || len(b) > head+maxOrigin {
		return Seen{}, errors.New("logproof: this is not a checkpoint of a peer")
	}
	s := Seen{Origin: string(b[head:]), Size: int64(binary.BigEndian.Uint64(b)), Root: tlog.Hash(b[8:head])}
	if s.Size < 1 {
		return Seen{}, errors.New("logproof: a peer's checkpoint has no size")
	}
	return s, nil
}
