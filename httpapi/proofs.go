package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// Auditor proves what the log holds.
type Auditor interface {
	// Checkpoint gives a signed checkpoint of all that is in the log now, or
	// [ErrAlarm] when the log is not what was signed before.
	Checkpoint(ctx context.Context) (Checkpoint, error)
	// Inclusion proves the place of a record among the first size, 0 = all that
	// were signed. It is [ErrNoProof] where no checkpoint covers that.
	Inclusion(ctx context.Context, position domain.Position, size int64) (InclusionProof, error)
	// Consistency proves that the first from records of the first to are what they
	// were; 0 = all that were signed. It is [ErrNoProof] likewise.
	Consistency(ctx context.Context, from, to int64) (ConsistencyProof, error)
}

// What an [Auditor] says instead of proving.
var (
	ErrNoProof = errors.New("httpapi: no checkpoint covers that")
	ErrAlarm   = errors.New("httpapi: the log is not what was signed")
)

// Checkpoint says, signed, what the first Size records of the log are.
type Checkpoint struct {
	Log         string    `json:"log" doc:"The name of the log" example:"tunnox-5e884898da28"`
	Size        int64     `json:"size" doc:"The number of records that it covers" example:"1042"`
	RootHash    []byte    `json:"root_hash" doc:"The root of the Merkle tree over them (RFC 6962)" example:"yRUtSw/zYGHFChbcrVYhB0RIV0M2XuKcJg0dHYmuEsM="`
	SignedAt    time.Time `json:"signed_at" doc:"When it was signed" example:"2026-01-02T15:04:05Z"`
	Checkpoint  string    `json:"checkpoint" doc:"The signed note (C2SP tlog-checkpoint). Keep it where the operators of the server cannot change it" example:"tunnox-5e884898da28\n1042\nyRUtSw/zYGHFChbcrVYhB0RIV0M2XuKcJg0dHYmuEsM=\n..."`
	VerifierKey string    `json:"verifier_key" doc:"The public key of the signature. Get it once in another way and compare" example:"tunnox-5e884898da28+ab12cd34+AbCd..."`
}

// InclusionProof is the way from a record to a root (RFC 6962 §2.1.1).
type InclusionProof struct {
	Position domain.Position `json:"position" doc:"The record; its index in the tree is one less" example:"42"`
	Size     int64           `json:"size" doc:"The number of records in the tree" example:"1042"`
	LeafHash []byte          `json:"leaf_hash" doc:"The leaf hash of the record" example:"yRUtSw/zYGHFChbcrVYhB0RIV0M2XuKcJg0dHYmuEsM="`
	RootHash []byte          `json:"root_hash" doc:"The root of the tree" example:"yRUtSw/zYGHFChbcrVYhB0RIV0M2XuKcJg0dHYmuEsM="`
	Hashes   [][]byte        `json:"hashes" nullable:"false" doc:"The audit path, from the leaf up"`
}

// ConsistencyProof shows that one tree begins with another (RFC 6962 §2.1.2).
type ConsistencyProof struct {
	From     int64    `json:"from" doc:"The number of records in the older tree" example:"900"`
	To       int64    `json:"to" doc:"The number of records in the newer tree" example:"1042"`
	FromRoot []byte   `json:"from_root_hash" doc:"The root of the older tree" example:"yRUtSw/zYGHFChbcrVYhB0RIV0M2XuKcJg0dHYmuEsM="`
	ToRoot   []byte   `json:"to_root_hash" doc:"The root of the newer tree" example:"yRUtSw/zYGHFChbcrVYhB0RIV0M2XuKcJg0dHYmuEsM="`
	Hashes   [][]byte `json:"hashes" nullable:"false" doc:"The proof"`
}

const (
	codeNoProof    domain.Code = "no_proof"    // no checkpoint covers what was asked for
	codeAuditAlarm domain.Code = "audit_alarm" // the log is not what was signed
)

type inclusionInput struct {
	Position int64 `query:"position" required:"true" minimum:"1" doc:"The record" example:"42"`
	Size     int64 `query:"size" minimum:"1" doc:"The number of records in the tree. The default and the maximum are the size of the last checkpoint" example:"1042"`
}

type consistencyInput struct {
	From int64 `query:"from" required:"true" minimum:"1" doc:"The number of records in the older tree" example:"900"`
	To   int64 `query:"to" minimum:"1" doc:"The number of records in the newer tree. The default and the maximum are the size of the last checkpoint" example:"1042"`
}

func (a *api) registerProofs() {
	op := func(path, id, summary string) huma.Operation {
		return operation(http.MethodGet, "/audit/"+path, id, "events", summary, http.StatusUnprocessableEntity, http.StatusNotFound)
	}
	huma.Register(a.huma, op("checkpoint", "get-checkpoint", "Sign what the log holds now"), func(ctx context.Context, _ *struct{}) (*struct{ Body Checkpoint }, error) {
		c, err := proven(a, func() (Checkpoint, error) { return a.config.Auditor.Checkpoint(ctx) })
		return c, a.unproven(ctx, err)
	})
	huma.Register(a.huma, op("proof/inclusion", "prove-inclusion", "Prove that a record is in the log"), func(ctx context.Context, in *inclusionInput) (*struct{ Body InclusionProof }, error) {
		p, err := proven(a, func() (InclusionProof, error) {
			return a.config.Auditor.Inclusion(ctx, domain.Position(in.Position), in.Size)
		})
		return p, a.unproven(ctx, err)
	})
	huma.Register(a.huma, op("proof/consistency", "prove-consistency", "Prove that nothing was changed between two checkpoints"), func(ctx context.Context, in *consistencyInput) (*struct{ Body ConsistencyProof }, error) {
		p, err := proven(a, func() (ConsistencyProof, error) { return a.config.Auditor.Consistency(ctx, in.From, in.To) })
		return p, a.unproven(ctx, err)
	})
}

// proven asks for a proof, if there is somebody to ask.
func proven[T any](a *api, ask func() (T, error)) (*struct{ Body T }, error) {
	if a.config.Auditor == nil {
		return nil, ErrNoProof
	}
	proof, err := ask()
	if err != nil {
		return nil, err
	}
	return &struct{ Body T }{proof}, nil
}

// unproven turns what an auditor said into the answer.
func (a *api) unproven(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoProof):
		return problem(http.StatusNotFound, codeNoProof, "There is no checkpoint that covers this. Ask for /audit/checkpoint first, which signs all there is.")
	case errors.Is(err, ErrAlarm):
		a.logger.ErrorContext(ctx, "the log is not what was signed", "request", tracked(ctx).id, "error", err)
		return problem(http.StatusServiceUnavailable, codeAuditAlarm, "The log is not what was signed before, so nothing is signed now. Run tunnoxd audit verify.")
	}
	return a.unreadable(ctx, err)
}
