// Package audit proves what the log holds.
//
// Its duty: a Merkle tree over the records (RFC 6962; leaf = position - 1, the
// leaf hash is that of [eventstore.LeafContent]) with signed checkpoints. The
// [Sealer] extends and signs it, [Prover] answers with proofs, [Verifier] finds
// the first position at which a log is not what was signed, and [Write] and
// [Read] carry a whole log through a file of which all that can be checked
// again.
//
// A checkpoint is a signed note (golang.org/x/mod/sumdb/note) whose text is that
// of C2SP tlog-checkpoint: name of the log, number of records, root hash, and
// the time it was signed. The key that signs is never in the database.
//
// Its limit: between an append and the checkpoint that covers it, a few seconds,
// who owns the database may change records unseen. What a checkpoint covers he
// can change, and is found.
package audit

import (
	"context"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// Log is a store as this package uses it; both eventstores are one.
type Log interface {
	// Head gives the checkpoint at the end of the log.
	Head(ctx context.Context) (eventstore.Checkpoint, error)
	// Leaves gives up to limit leaves with a position above after.
	Leaves(ctx context.Context, after domain.Position, limit int) ([]eventstore.Leaf, error)
	Seals
}

// Seals is where the tree is kept.
type Seals interface {
	// LastSeal gives the newest seal without its hashes; ok is false when there is none.
	LastSeal(ctx context.Context) (seal eventstore.Seal, ok bool, err error)
	// Seals gives up to limit seals with a size above after, with their hashes.
	Seals(ctx context.Context, after int64, limit int) ([]eventstore.Seal, error)
	// TreeHashes gives stored hashes by their numbers.
	TreeHashes(ctx context.Context, numbers []int64) ([][32]byte, error)
	// AppendSeal extends the tree; ErrSealed when another was first.
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
