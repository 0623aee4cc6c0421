package audit

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/domain"
)

// ErrNoProof says that no checkpoint covers the requested range.
var ErrNoProof = errors.New("audit: no checkpoint covers this")

// Prover gives proofs from the stored tree.
type Prover struct{ seals Seals }

// NewProver makes a prover.
func NewProver(seals Seals) *Prover { return &Prover{seals} }

// Inclusion proves that the record at Position is the record with LeafHash in the tree
// of Size records (RFC 6962 §2.1.1).
type Inclusion struct {
	Position domain.Position
	Size     int64
	LeafHash tlog.Hash
	Root     tlog.Hash
	Hashes   []tlog.Hash
}

// Inclusion proves a record's place. A size of 0 means that of the last checkpoint.
func (p *Prover) Inclusion(ctx context.Context, position domain.Position, size int64) (Inclusion, error) {
	signed, err := p.signed(ctx)
	if err != nil {
		return Inclusion{}, err
	}
	if size == 0 {
		size = signed
	}
	if size > signed || position < 1 || int64(position) > size {
		return Inclusion{}, fmt.Errorf("%w: record %d among %d of %d", ErrNoProof, position, size, signed)
	}
	n, reader := int64(position)-1, hashReader(ctx, p.seals)
	leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
	if err != nil {
		return Inclusion{}, err
	}
	root, err := tlog.TreeHash(size, reader)
	if err != nil {
		return Inclusion{}, err
	}
	proof, err := tlog.ProveRecord(size, n, reader)
	if err != nil {
		return Inclusion{}, err
	}
	if err := tlog.CheckRecord(proof, size, root, n, leaf[0]); err != nil {
		return Inclusion{}, fmt.Errorf("audit: the stored tree contradicts itself: %w", err)
	}
	return Inclusion{Position: position, Size: size, LeafHash: leaf[0], Root: root, Hashes: proof}, nil
}

// Consistency proves that the tree of To records begins with the tree of From records
// (RFC 6962 §2.1.2).
type Consistency struct {
	From, To         int64
	FromRoot, ToRoot tlog.Hash
	Hashes           []tlog.Hash
}

// Consistency proves that nothing before from was changed between two checkpoints. A to
// of 0 means the size of the last one.
func (p *Prover) Consistency(ctx context.Context, from, to int64) (Consistency, error) {
	signed, err := p.signed(ctx)
	if err != nil {
		return Consistency{}, err
	}
	if to == 0 {
		to = signed
	}
	if from < 1 || from > to || to > signed {
		return Consistency{}, fmt.Errorf("%w: from %d to %d of %d", ErrNoProof, from, to, signed)
	}
	c, reader := Consistency{From: from, To: to}, hashReader(ctx, p.seals)
	if c.FromRoot, err = tlog.TreeHash(from, reader); err != nil {
		return c, err
	}
	if c.ToRoot, err = tlog.TreeHash(to, reader); err != nil {
		return c, err
	}
	if c.Hashes, err = tlog.ProveTree(to, from, reader); err != nil {
		return c, err
	}
	if err := tlog.CheckTree(c.Hashes, to, c.ToRoot, from, c.FromRoot); err != nil {
		return c, fmt.Errorf("audit: the stored tree contradicts itself: %w", err)
	}
	return c, nil
}

func (p *Prover) signed(ctx context.Context) (int64, error) {
	seal, _, err := p.seals.LastSeal(ctx)
	return seal.Size, err
}
