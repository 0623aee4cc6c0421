package eventstore

import (
	"errors"
	"time"
)

// ErrSealed is returned when the Merkle tree is extended from a size that it does not
// have any more: another sealer was first.
var ErrSealed = errors.New("eventstore: the tree was extended by another")

// Seal is one extension of the Merkle tree over the records: the hashes that the
// records Before+1 to Size add, and the signed checkpoint of the resulting tree. A
// store keeps it without looking into it; package audit makes and checks it.
type Seal struct {
	Before, Size int64 // records under the tree, before and after
	// Hashes are the stored hashes of golang.org/x/mod/sumdb/tlog, in its order, 32
	// bytes each; the first has the number FirstHash.
	FirstHash int64
	Hashes    []byte
	Note      string // the signed checkpoint
	SealedAt  time.Time
}
