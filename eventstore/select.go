package eventstore

import (
	"context"

	"github.com/tunnox-net/tunnox/domain"
)

// Searcher is the part of a [Store] that audits use. Every store has indexes, so that
// it need not read the whole log: it finds the records of an event stream, of an
// account, of an actor and of an event name by an index.
type Searcher interface {
	// Select gives up to limit records that match the query, in the query's order.
	Select(ctx context.Context, q domain.Query, limit int) ([]domain.Record, error)
	// Count gives the number of records that match the query.
	Count(ctx context.Context, q domain.Query) (int64, error)
	// Holders gives the holder of each of the claims, whatever Owner they name; "" =
	// nobody.
	Holders(ctx context.Context, claims []domain.Claim) ([]domain.StreamID, error)
}
