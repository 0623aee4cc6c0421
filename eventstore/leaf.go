package eventstore

import (
	"crypto/sha256"
	"strconv"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Leaf is the part of a record with which tampering is found: the stored hash, and the
// bytes whose hash it must be.
type Leaf struct {
	Position domain.Position
	Hash     [32]byte // as stored with the record
	Content  []byte   // made now from the other columns
}

// Matches reports whether the record is unchanged since it was written.
func (l Leaf) Matches() bool { return HashLeaf(l.Content) == l.Hash }

// LeafContent gives the bytes from which a record's leaf hash is made: ten lines that
// end in "\n" and hold
//
//	tunnox-record 1
//	event stream
//	version
//	owner (account)
//	event name
//	schema
//	event id, text form
//	recorded, microseconds since 1970
//	length of data in bytes
//	length of meta in bytes
//
// followed by the stored bytes of data and of meta. Names hold no line end, so two
// different records never have the same content. The position is not part of the
// content: it is the leaf's index in the Merkle tree (position-1), so the tree proves
// where a record is.
func LeafContent(r domain.Record, meta []byte, recordedMicros int64) []byte {
	b := make([]byte, 0, 192+len(r.Data)+len(meta))
	line := func(s string) { b = append(append(b, s...), '\n') }
	line("tunnox-record 1")
	line(string(r.Stream))
	line(strconv.FormatInt(int64(r.Version), 10))
	line(strconv.FormatInt(r.Owner, 10))
	line(r.Name)
	line(strconv.Itoa(r.Schema))
	line(r.ID.String())
	line(strconv.FormatInt(recordedMicros, 10))
	line(strconv.Itoa(len(r.Data)))
	line(strconv.Itoa(len(meta)))
	b = append(b, r.Data...)
	return append(b, meta...)
}

// HashLeaf gives the leaf hash of RFC 6962 §2.1. Because of the leading zero, a leaf
// cannot be presented as an inner node of the tree.
func HashLeaf(content []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(content)
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

// RecordedNow is the clock for stores without a clock of their own, in the precision in
// which times are stored.
func RecordedNow() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
