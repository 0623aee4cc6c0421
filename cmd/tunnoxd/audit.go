package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/mod/sumdb/note"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/wholefile"
)

// The files of the audit in the data directory.
const (
	auditKeyFile        = "audit-key"        // signs checkpoints; 0600
	auditPublicFile     = "audit-key.pub"    // its public half, for verifiers
	auditTrustedFile    = "audit-trusted"    // public keys of other control planes, and former ones
	auditCheckpointFile = "audit-checkpoint" // the last known checkpoint
)

// provable is a store as both stores are: a log with a tree over it that can be moved,
// and keys that can be erased.
type provable interface {
	eventstore.PersonalStore
	eventstore.Archive
	audit.Log
	CanAppend(ctx context.Context) error
}

// loadAuditKey gives the key that signs checkpoints. It makes one when nothing was ever
// signed. A log with checkpoints needs the key that signed them; a new key would only
// be refused.
func loadAuditKey(ctx context.Context, dir *dataDir, log audit.Log) (*audit.Key, error) {
	key, err := audit.LoadKey(dir.file(auditKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		_, signed, err := log.LastSeal(ctx)
		if err != nil || signed {
			return nil, err
		}
		if key, err = audit.CreateKey(dir.file(auditKeyFile)); err != nil {
			return nil, err
		}
		return key, wholefile.Write(dir.file(auditPublicFile), []byte(key.VerifierKey()+"\n"), 0o644)
	}
	return key, err
}

// readVerifiers reads public keys from a file; none if there is no file.
func readVerifiers(path string) ([]note.Verifier, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys, err := audit.ParseVerifiers(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// startAudit signs the log and watches it.
func (p *process) startAudit(ctx context.Context, log audit.Log) (*auditor, error) {
	key, err := loadAuditKey(ctx, p.dir, log)
	if err != nil {
		return nil, err
	}
	trusted, err := readVerifiers(p.dir.file(auditTrustedFile))
	if err != nil {
		return nil, err
	}
	last, err := os.ReadFile(p.dir.file(auditCheckpointFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	part := p.log.With("part", "audit")
	a := &auditor{prover: audit.NewProver(log)}
	if key != nil {
		a.key = key.VerifierKey()
	} else {
		part.Warn("there is no " + auditKeyFile + " here and the log has checkpoints: this process signs none; copy the file from the control plane that does")
	}
	a.sealer, err = audit.NewSealer(log, audit.SealerOptions{
		Key: key, Trusted: trusted, Last: string(last),
		Keep: func(signed string) error {
			return wholefile.Write(p.dir.file(auditCheckpointFile), []byte(signed), 0o600)
		},
		Metrics: audit.NewMetrics(p.registry), Logger: part,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.dir.file(auditCheckpointFile), err)
	}
	p.run("audit", a.sealer.Run)
	return a, nil
}

// auditor answers the API's questions with the sealer and the stored tree.
type auditor struct {
	sealer *audit.Sealer
	prover *audit.Prover
	key    string
}

// Checkpoint implements [httpapi.Auditor].
func (a *auditor) Checkpoint(ctx context.Context) (httpapi.Checkpoint, error) {
	c, err := a.sealer.Seal(ctx)
	if err == nil {
		err = a.sealer.Check(ctx)
	}
	if err == nil && c.Size == 0 {
		err = audit.ErrNoProof
	}
	return httpapi.Checkpoint{Log: c.Origin, Size: c.Size, RootHash: c.Root[:], SignedAt: c.At, Checkpoint: c.Note, VerifierKey: a.key}, outward(err)
}

// Inclusion implements [httpapi.Auditor].
func (a *auditor) Inclusion(ctx context.Context, position domain.Position, size int64) (httpapi.InclusionProof, error) {
	p, err := a.prover.Inclusion(ctx, position, size)
	return httpapi.InclusionProof{Position: p.Position, Size: p.Size, LeafHash: p.LeafHash[:], RootHash: p.Root[:], Hashes: bytesOf(p.Hashes)}, outward(err)
}

// Consistency implements [httpapi.Auditor].
func (a *auditor) Consistency(ctx context.Context, from, to int64) (httpapi.ConsistencyProof, error) {
	p, err := a.prover.Consistency(ctx, from, to)
	return httpapi.ConsistencyProof{From: p.From, To: p.To, FromRoot: p.FromRoot[:], ToRoot: p.ToRoot[:], Hashes: bytesOf(p.Hashes)}, outward(err)
}

func bytesOf[H ~[32]byte](hashes []H) [][]byte {
	list := make([][]byte, len(hashes))
	for i := range hashes {
		h := [32]byte(hashes[i])
		list[i] = h[:]
	}
	return list
}

// outward gives the API's error for a missing proof.
func outward(err error) error {
	if _, ok := errors.AsType[*audit.Alarm](err); ok {
		return fmt.Errorf("%w: %w", httpapi.ErrAlarm, err)
	}
	if errors.Is(err, audit.ErrNoProof) {
		return fmt.Errorf("%w: %w", httpapi.ErrNoProof, err)
	}
	return err
}
