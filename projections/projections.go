// Package projections turns the log into read models: rows to look things up
// by, and lists to page through.
//
// Its duty: a read model equals the fold of the log up to its position. The
// [Projector] pulls records from the log by position, folds them with the
// domain's own Apply, and writes rows together with the checkpoint in one atomic
// step. Its limit: it is never asked "may I": commands are decided on event
// streams only.
//
// Rows are kept by a [Store]: projections/memory for the embedded form and for
// audits, projections/redis for a cluster; projections/projectionstest is the
// one suite.
package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/tunnox-net/tunnox/domain"
)

// Checkpoint is how far a read model has come. EventID is the id of the record
// at Position, so that a forked log is noticed.
type Checkpoint struct {
	Position domain.Position `json:"position"`
	EventID  domain.EventID  `json:"event_id"`
}

// Kind is what a row is about; it is the category of the row's event stream.
type Kind string

// The kinds of rows.
const (
	Users    Kind = domain.CategoryUser
	Clients  Kind = domain.CategoryClient
	Mappings Kind = domain.CategoryMapping
	Quotas   Kind = domain.CategoryQuota
	APIKeys  Kind = domain.CategoryKey
	Logins   Kind = domain.CategoryLogin
	Shares   Kind = domain.CategoryShare
	Invites  Kind = domain.CategoryInvite
	Domains  Kind = domain.CategoryDomain
	Webhooks Kind = domain.CategoryWebhook
)

// Key names a row.
type Key struct {
	Kind Kind
	ID   int64
}

// Row is one row as kept: its key and its value, JSON.
type Row struct {
	Key
	Value []byte
}

// Member is the membership of an id in an index, an ordered set of ids. Lists
// page through indexes by id.
type Member struct {
	Index string
	ID    int64
}

// Batch is what records From..To come to. It is applied as a whole, with the
// checkpoint, or not at all.
type Batch struct {
	From, To Checkpoint
	Put      []Row
	Delete   []Key
	Add      []Member
	Remove   []Member
}

// ErrFenced is returned by Apply when the rows are not at Batch.From, because
// another projector works on them or they were flushed, and by Switch when
// another build was switched to first. Read the checkpoint again.
var ErrFenced = errors.New("projections: read model is not at the batch's start")

// ErrBehind is returned by Switch when the version read now has come further
// than the build. Fold on and switch again.
var ErrBehind = errors.New("projections: the build is behind the version it is to replace")

// ErrUnavailable wraps failures to reach the read model. It is also what reads
// get before the first build is done, or until the next one is after a flush:
// an empty answer would say that what exists does not.
var ErrUnavailable = errors.New("projections: read model is unavailable")

// ErrForged is returned for rows that no control plane has written. It is an
// [ErrUnavailable] to readers: what is forged says nothing.
var ErrForged = fmt.Errorf("%w: they were written by somebody else", ErrUnavailable)

// ErrStale is returned when a read model did not reach a position in time.
var ErrStale = errors.New("projections: read model has not reached the position")

// ErrForked says that the log does not contain the read model's checkpoint: it
// was restored to an older state or is another log.
var ErrForked = errors.New("projections: the log does not contain the read model's checkpoint")

// Log is the log as the projector reads it. Every eventstore.Store is one.
type Log interface {
	// ReadAll gives up to limit records with a position above after, in order and
	// without holes.
	ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error)
	// Wait returns once the log reaches beyond after, or with the context's error.
	Wait(ctx context.Context, after domain.Position) error
}

// Rows is what records are folded into.
type Rows interface {
	// Checkpoint gives how far the rows have come; the zero value when new or flushed.
	Checkpoint(ctx context.Context) (Checkpoint, error)
	// Apply writes the batch if the checkpoint is Batch.From, else ErrFenced.
	Apply(ctx context.Context, b Batch) error
	// Get gives the values of the rows in order of keys, nil where there is none.
	// The values belong to the store and are not changed.
	Get(ctx context.Context, keys ...Key) ([][]byte, error)
}

// Store keeps versions of the read models, of which one is read: the methods of
// Rows, List and Wait speak of that one.
type Store interface {
	Rows
	// Read is Get with the position that the rows are at, in one step.
	Read(ctx context.Context, keys ...Key) ([][]byte, domain.Position, error)
	// List gives up to limit ids of an index above after, rising.
	List(ctx context.Context, index string, after int64, limit int) ([]int64, error)
	// Wait returns once the checkpoint's position is at least p, or with the
	// context's error.
	Wait(ctx context.Context, p domain.Position) error
	// Begin starts an empty version beside the one that is read.
	Begin(ctx context.Context) (Build, error)
}

// Build is a version of the read models that is not read yet.
type Build interface {
	Rows
	// Switch makes the build the version that is read, in one step, and drops the
	// one before. It is ErrFenced if that is not the one that was read at Begin,
	// and ErrBehind, unless anew, if that one has come further than the build.
	Switch(ctx context.Context, anew bool) error
	// Discard drops the build.
	Discard(ctx context.Context) error
}
