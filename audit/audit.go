// Package audit proves the content of the log.
//
// Its duty: a Merkle tree over the records (RFC 6962; leaf = position - 1, the leaf
// hash is that of [eventstore.LeafContent]) with signed checkpoints. The [Sealer]
// extends and signs the tree. [Prover] answers with proofs. [Verifier] finds the first
// position at which a log differs from the signed records. [Write] and [Read] carry a
// whole log through a file, from which all of this can be checked again.
//
// A checkpoint is a signed note (golang.org/x/mod/sumdb/note). Its text is that of C2SP
// tlog-checkpoint: name of the log, number of records, root hash, and the time of
// signing. The signing key is never in the database.
//
// Its limit: an append is covered by a checkpoint after a few seconds. Until then, the
// owner of the database can change its records unseen. Records under a checkpoint can
// be changed too, but the change is found.
package audit

import (
	"context"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// Log is a store as this package uses it; both event stores implement it.
type Log interface {
	// Head gives the checkpoint at the end of the log.
	Head(ctx context.Context) (eventstore.Checkpoint, error)
	// Leaves gives up to limit leaves with a position above after.
	Leaves(ctx context.Context, after domain.Position, limit int) ([]eventstore.Leaf, error)
	Seals
}

// Seals is the store of the tree.
type Seals interface {
	// LastSeal gives the newest seal without its hashes; ok is false when there is none.
	LastSeal(ctx context.Context) (seal eventstore.Seal, ok bool, err error)
	// Seals gives up to limit seals with a size above after, with their hashes.
	Seals(ctx context.Context, after int64, limit int) ([]eventstore.Seal, error)
	// TreeHashes gives stored hashes by their numbers.
	TreeHashes(ctx context.Context, numbers []int64) ([][32]byte, error)
	// AppendSeal extends the tree. It gives ErrSealed when another sealer was first.
	AppendSeal(ctx context.Context, seal eventstore.Seal) error
}

// hashReader reads stored hashes for package tlog.
func hashReader(ctx context.Context, s Seals) tlog.HashReader {
	return tlog.HashReaderFunc(func(numbers []int64) ([]tlog.Hash, error) {
		hashes, err := s.TreeHashes(ctx, numbers)
		if err != nil {
			return nil, err
		}
		out := make([]tlog.Hash, len(hashes))
		for i, h := range hashes {
			out[i] = h
		}
		return out, nil
	})
}
