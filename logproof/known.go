package logproof

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Kind is the kind of what is wrong with a proof.
type Kind string

// The kinds.
const (
	OtherSigner  Kind = "other_signer"  // another key signed than the one that is known
	OtherLog     Kind = "other_log"     // it is a checkpoint of a log with another name
	SmallerLog   Kind = "smaller_log"   // records that were shown before are gone
	DifferentLog Kind = "different_log" // records that were shown before, to this agent or to a peer, are others now
	ForgedProof  Kind = "forged_proof"  // the record is not in the log, or is not that of the key
	OldKey       Kind = "old_key"       // a newer key of the client was proven before
)

// Fault says what is wrong with what a server has shown. It is an error.
type Fault struct {
	Kind   Kind   `json:"kind"`
	Detail string `json:"detail"`
}

// Error implements error.
func (f *Fault) Error() string { return fmt.Sprintf("%s [%s]", f.Detail, f.Kind) }

func fault(k Kind, format string, args ...any) *Fault {
	return &Fault{Kind: k, Detail: fmt.Sprintf(format, args...)}
}

// Known is what an agent knows of its server's log. The zero Known knows nothing: it takes
// the signer of the first proof for the right one. A Known is not changed in place.
type Known struct {
	Of         string        `json:"of,omitempty"`         // whose knowledge this is; this package keeps it and does not look at it
	Signer     string        `json:"signer,omitempty"`     // verifier key: name+hash+base64
	Checkpoint string        `json:"checkpoint,omitempty"` // the newest that was proven, as signed
	Keys       map[int64]Key `json:"keys,omitempty"`       // by client: the newest that was proven
	Fits       []Seen        `json:"fits,omitempty"`       // what peers have seen of this very log, the latest first
}

// maxFits bounds the checkpoints of peers that are remembered.
const maxFits = 256

// Key is a client's key that was proven.
type Key struct {
	Key      []byte `json:"key"`    // X25519, 32 bytes
	Number   int64  `json:"number"` // counts the client's keys from 1
	Position int64  `json:"position"`
}

// Answer is what a server shows, all under one checkpoint.
type Answer struct {
	Signer     string // used if no signer is known
	Checkpoint string
	// Grown proves that the log begins with the one that is known: hashes of 32 bytes.
	Grown []byte
	Keys  []KeyProof
}

// KeyProof proves a key.
type KeyProof struct {
	ClientID int64
	Number   int64
	Position int64
	Record   []byte // the content of the leaf
	Path     []byte // hashes of 32 bytes
}

// Equal tells whether both know the same.
func (k Known) Equal(other Known) bool {
	return k.Of == other.Of && k.Signer == other.Signer && k.Checkpoint == other.Checkpoint && slices.Equal(k.Fits, other.Fits) &&
		maps.EqualFunc(k.Keys, other.Keys, func(a, b Key) bool {
			return a.Number == b.Number && a.Position == b.Position && bytes.Equal(a.Key, b.Key)
		})
}

// Size gives the number of records of the newest proven checkpoint, 0 = none.
func (k Known) Size() int64 {
	c, err := k.checkpoint()
	if err != nil {
		return 0
	}
	return c.Size
}

// checkpoint opens the stored checkpoint.
func (k Known) checkpoint() (Checkpoint, error) {
	if k.Checkpoint == "" {
		return Checkpoint{}, nil
	}
	verifier, err := note.NewVerifier(k.Signer)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the signer of the log that is stored here: %w", err)
	}
	return OpenCheckpoint(k.Checkpoint, []note.Verifier{verifier})
}

// Accept verifies an answer: the signature, that the log begins with the one that is
// known, and each key. It gives what is known now. The error is a [*Fault] if the server
// has shown something wrong; then nothing of the answer is taken over. A key whose proof is
// wrong is a Fault of the whole answer too: an honest server sends none.
func (k Known) Accept(a Answer) (Known, error) {
	was, err := k.checkpoint()
	if err != nil {
		return k, err
	}
	next := Known{Of: k.Of, Signer: k.Signer, Checkpoint: a.Checkpoint, Keys: maps.Clone(k.Keys)}
	if next.Signer == "" {
		next.Signer = a.Signer
	}
	verifier, err := note.NewVerifier(next.Signer)
	if err != nil {
		return k, fmt.Errorf("the server names no key of its log: %w", err)
	}
	c, err := OpenCheckpoint(a.Checkpoint, []note.Verifier{verifier})
	switch {
	case errors.Is(err, ErrUnknownKey):
		return k, fault(OtherSigner, "the server's log is signed by another key than %s+%08x, which signed it before", verifier.Name(), verifier.KeyHash())
	case err != nil:
		return k, fault(ForgedProof, "the checkpoint cannot be read: %v", err)
	}
	if err := grown(was, c, a.Grown); err != nil {
		return k, err
	}
	for _, proof := range a.Keys {
		key, err := included(c, proof)
		if err != nil {
			return k, err
		}
		before := next.Keys[proof.ClientID]
		switch {
		case key.Number < before.Number:
			return k, fault(OldKey, "key %d of client %d is offered, but key %d was proven before", key.Number, proof.ClientID, before.Number)
		case key.Number == before.Number && !bytes.Equal(key.Key, before.Key):
			return k, fault(DifferentLog, "the log has two keys with number %d of client %d", key.Number, proof.ClientID)
		}
		if next.Keys == nil {
			next.Keys = map[int64]Key{}
		}
		next.Keys[proof.ClientID] = key
	}
	for _, seen := range k.Fits {
		if seen.Size <= was.Size { // of a larger one it is not known whether it fits to what came now
			next.Fits = append(next.Fits, seen)
		}
	}
	return next, nil
}

// Fit tells whether a peer's checkpoint is known to be one of this log.
func (k Known) Fit(peer Seen) bool { return slices.Contains(k.Fits, peer) || peer == k.Seen() }

// Compare tells whether the log that a peer has seen, at its checkpoint, is the one that is
// known here. path proves that the larger of the two begins with the smaller: hashes of 32
// bytes, of the server. It gives what is known now. The error is a [*Fault] if the logs are
// two. No signature is needed: the path alone leads from the one root to the other.
func (k Known) Compare(peer Seen, path []byte) (Known, error) {
	c, err := k.checkpoint()
	if err != nil {
		return k, err
	}
	if c.Size == 0 || peer.Size == 0 {
		return k, errors.New("logproof: nothing is known of the log to compare with a peer's")
	}
	seen := Checkpoint{Origin: peer.Origin, Size: peer.Size, Root: peer.Root}
	first, then := seen, c
	if first.Size > then.Size {
		first, then = then, first
	}
	if grown(first, then, path) != nil {
		return k, fault(DifferentLog, "the server shows different logs: this agent has seen %d records of the log %.80q, the agent at the other end %d records of %.80q, and one does not begin with the other",
			c.Size, c.Origin, peer.Size, peer.Origin)
	}
	next := k
	next.Fits = append([]Seen{peer}, k.Fits...)
	next.Fits = next.Fits[:min(len(next.Fits), maxFits)]
	return next, nil
}

// grown checks that the log of checkpoint c begins with that of was.
func grown(was, c Checkpoint, path []byte) error {
	switch {
	case was.Size == 0:
		return nil
	case was.Origin != c.Origin:
		return fault(OtherLog, "the server shows the log %.80q; it was the log %.80q before", c.Origin, was.Origin)
	case c.Size < was.Size:
		return fault(SmallerLog, "the server shows a log of %d records, but it had %d before", c.Size, was.Size)
	case c.Size == was.Size:
		if c.Root != was.Root {
			return fault(DifferentLog, "the server shows another log of %d records than before", c.Size)
		}
		return nil
	}
	proof, err := hashes(path)
	if err == nil {
		err = tlog.CheckTree(proof, c.Size, c.Root, was.Size, was.Root)
	}
	if err != nil {
		return fault(DifferentLog, "the server cannot prove that its log of %d records begins with the %d records that were shown before", c.Size, was.Size)
	}
	return nil
}

// included checks a key's proof.
func included(c Checkpoint, p KeyProof) (Key, error) {
	bad := func(err error) error {
		return fault(ForgedProof, "the proof of key %d of client %d is not valid: %v", p.Number, p.ClientID, err)
	}
	if p.Position < 1 || p.Position > c.Size {
		return Key{}, bad(fmt.Errorf("record %d of %d", p.Position, c.Size))
	}
	path, err := hashes(p.Path)
	if err != nil {
		return Key{}, bad(err)
	}
	if err := tlog.CheckRecord(path, c.Size, c.Root, p.Position-1, tlog.RecordHash(p.Record)); err != nil {
		return Key{}, bad(err)
	}
	key, number, err := keyOf(p.Record, p.ClientID)
	if err != nil {
		return Key{}, bad(err)
	}
	if number != p.Number {
		return Key{}, bad(fmt.Errorf("the record is that of key %d", number))
	}
	return Key{Key: key, Number: number, Position: p.Position}, nil
}

// hashes splits a proof. A proof of a log of 2^62 records has 62 hashes.
func hashes(b []byte) ([]tlog.Hash, error) {
	if len(b)%tlog.HashSize != 0 || len(b) > 2*64*tlog.HashSize {
		return nil, errors.New("it is not a list of hashes")
	}
	list := make([]tlog.Hash, 0, len(b)/tlog.HashSize)
	for ; len(b) > 0; b = b[tlog.HashSize:] {
		list = append(list, tlog.Hash(b[:tlog.HashSize]))
	}
	return list, nil
}
