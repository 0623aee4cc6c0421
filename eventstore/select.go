package eventstore

import (
	"context"

	"github.com/tunnox-net/tunnox/domain"
)

// Searcher is the part of [Store] that audits ask. Every store keeps what it
// takes to answer without reading the whole log: the records of an event stream,
// of an account, of an actor and of an event's name are found by an index.
type Searcher interface {
	// Select gives up to limit records that the query wants, in its order.
	Select(ctx context.Context, q domain.Query, limit int) ([]domain.Record, error)
	// Count gives how many records the query wants.
	Count(ctx context.Context, q domain.Query) (int64, error)
	// Holders gives who holds each of the claims, whatever Owner they name; "" = nobody.
	Holders(ctx context.Context, claims []domain.Claim) ([]domain.StreamID, error)
}
