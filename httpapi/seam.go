package httpapi

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Executor decides commands and writes what they come to.
type Executor interface {
	// Submit decides and appends, or returns a *[domain.Error].
	Submit(ctx context.Context, s domain.Submission) (domain.Receipt, error)
	// NextID draws the next id of a sequence.
	NextID(ctx context.Context, s domain.Sequence) (int64, error)
}

// History reads the log.
type History interface {
	// ReadStream gives up to limit records of a stream with a version above after.
	ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error)
	// ReadAll gives up to limit records with a position above after, in order.
	ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error)
}

// Presence knows which clients are connected.
type Presence interface {
	// Lookup gives what is known of each client, in order.
	Lookup(ctx context.Context, clientIDs ...int64) ([]ClientPresence, error)
}

// ClientPresence is what is known of one client's connection.
type ClientPresence struct {
	Online        bool
	Node          string    // node that holds the session, "" when offline
	LastSeen      time.Time // zero = never
	AgentVersion  string    // of the connected agent
	ConfigVersion int64     // configuration version the agent has applied
}

// Reader looks up read models. A row that is not there is reported by found.
type Reader interface {
	User(ctx context.Context, id int64) (row projections.UserRow, found bool, err error)
	Client(ctx context.Context, id int64) (row projections.ClientRow, found bool, err error)
	Mapping(ctx context.Context, id int64) (row projections.MappingRow, found bool, err error)
	Quota(ctx context.Context, account int64) (row projections.QuotaRow, found bool, err error)
	// Users and the others give up to limit rows with an id above after, rising,
	// and whether there are more.
	Users(ctx context.Context, after int64, limit int) (rows []projections.UserRow, more bool, err error)
	Clients(ctx context.Context, of Owner, after int64, limit int) (rows []projections.ClientRow, more bool, err error)
	Mappings(ctx context.Context, of Owner, after int64, limit int) (rows []projections.MappingRow, more bool, err error)
	// Quotas gives the rows of accounts, in order; a zero row where there is none.
	Quotas(ctx context.Context, accounts ...int64) ([]projections.QuotaRow, error)
	// Wait returns once the read models show position p, or with the context's error.
	Wait(ctx context.Context, p domain.Position) error
}

// Owner narrows a list to what belongs to a user or touches a client; the zero
// value is everything.
type Owner struct {
	UserID   int64
	ClientID int64
}
