package audit

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// KeyProver proves to agents that the log has the keys of other agents, in the form that
// package logproof verifies.
type KeyProver struct {
	log    Log
	sealer *Sealer
	signer string // verifier key; "" = this process signs nothing
}

// NewKeyProver makes a prover. signer is the verifier key that signs checkpoints. An agent
// that knows no log yet takes it for the right one.
func NewKeyProver(log Log, sealer *Sealer, signer string) *KeyProver {
	return &KeyProver{log, sealer, signer}
}

// Prove proves keys, of which client, number and position are given, and that the log only
// grew: from known records, and between known and seen; 0 = no question. If a key is newer
// than the last checkpoint, it has the log sealed, so that nobody waits for the next seal.
// A key that no checkpoint covers is left out. So is a proof about more records than were
// signed; for the agent that is a log that has lost records.
func (p *KeyProver) Prove(ctx context.Context, known, seen int64, keys []domain.KeyProof) (*domain.KeyProofs, error) {
	seal, ok, err := p.log.LastSeal(ctx)
	if err != nil {
		return nil, err
	}
	newest := domain.Position(1) // of an empty tree there is no checkpoint
	for _, key := range keys {
		newest = max(newest, key.Position)
	}
	if !ok || seal.Size < int64(newest) {
		if _, err := p.sealer.Seal(ctx); err != nil {
			return nil, err
		}
		if seal, ok, err = p.log.LastSeal(ctx); err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, ErrNoProof
	}
	reader := hashReader(ctx, p.log)
	answer := &domain.KeyProofs{Signer: p.signer, Checkpoint: seal.Note}
	if answer.Grown, err = growth(reader, known, seal.Size, seal.Size); err != nil {
		return nil, err
	}
	if answer.Between, err = growth(reader, min(known, seen), max(known, seen), seal.Size); err != nil {
		return nil, err
	}
	for _, key := range keys {
		if int64(key.Position) > seal.Size {
			continue
		}
		if err := p.include(ctx, reader, &key, seal); err != nil {
			return nil, err
		}
		answer.Keys = append(answer.Keys, key)
	}
	return answer, nil
}

// include adds record and path to a key.
func (p *KeyProver) include(ctx context.Context, reader tlog.HashReader, key *domain.KeyProof, seal eventstore.Seal) error {
	leaves, err := p.log.Leaves(ctx, key.Position-1, 1)
	if err != nil {
		return err
	}
	if len(leaves) != 1 || leaves[0].Position != key.Position {
		return fmt.Errorf("audit: record %d is missing", key.Position)
	}
	path, err := tlog.ProveRecord(seal.Size, int64(key.Position)-1, reader)
	if err != nil {
		return err
	}
	key.Record, key.Path = leaves[0].Content, joined(path)
	return nil
}

// growth proves that the first to records begin with the first from; nil where there is
// nothing to prove, or nothing to prove it with.
func growth(reader tlog.HashReader, from, to, signed int64) ([]byte, error) {
	if from < 1 || from >= to || to > signed {
		return nil, nil
	}
	path, err := tlog.ProveTree(to, from, reader)
	return joined(path), err
}

func joined(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}
