package httpapi

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/webhook"
)

// Executor decides commands and writes what they come to.
type Executor interface {
	// Submit decides and appends, or returns a *[domain.Error].
	Submit(ctx context.Context, s domain.Submission) (domain.Receipt, error)
	// Preview tells what Submit would answer, and writes nothing.
	Preview(ctx context.Context, s domain.Submission) (domain.Receipt, error)
	// KeyUsed tells whether an idempotency key was used.
	KeyUsed(ctx context.Context, scope, key string) (bool, error)
	// NextID draws the next id of a sequence.
	NextID(ctx context.Context, s domain.Sequence) (int64, error)
}

// History reads the log.
type History interface {
	// ReadStream gives up to limit records of a stream with a version above after.
	ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error)
	// ReadAll gives up to limit records with a position above after, in order.
	ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error)
	// Holder gives the stream that holds a claim, "" when nobody does.
	Holder(ctx context.Context, scope, value string) (domain.StreamID, error)
}

// Search finds records of the log and follows it.
type Search interface {
	// Select gives up to limit records that the query wants, in its order.
	Select(ctx context.Context, q domain.Query, limit int) ([]domain.Record, error)
	// Count gives how many records the query wants.
	Count(ctx context.Context, q domain.Query) (int64, error)
	// Wait returns once the log reaches beyond after, or with the context's error.
	Wait(ctx context.Context, after domain.Position) error
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
	Transport     string    // the carrier of the session, "" when offline or not known
	Protocols     []string  // what the connected agent carries
	ConfigVersion int64     // configuration version the agent has applied
	Sessions      []ClientSession
}

// ClientSession is one of a client's sessions, at most one at each node.
type ClientSession struct {
	Node  string
	Epoch int64 // later sessions of a client have higher ones
}

// Reader looks up read models; it is a *[projections.Reader]. Its parts are declared for
// those who need one of them. A row that is not there is not ok. A list gives up to limit
// rows with an id above after, rising, and what to pass as after for the next page, 0 at
// the end.
type Reader interface {
	UserRows
	ClientRows
	MappingRows
	QuotaRows
	KeyRows
	LoginRows
	ShareRows
	InviteRows
	DomainRows
	WebhookRows
	Freshness
}

// UserRows reads users.
type UserRows interface {
	User(ctx context.Context, id int64) (row projections.UserRow, ok bool, err error)
	UserNamed(ctx context.Context, name string) (row projections.UserRow, ok bool, err error)
	Users(ctx context.Context, after int64, limit int) (rows []projections.UserRow, next int64, err error)
}

// ClientRows reads clients.
type ClientRows interface {
	Client(ctx context.Context, id int64) (row projections.ClientRow, ok bool, err error)
	Clients(ctx context.Context, index projections.Index, after int64, limit int) (rows []projections.ClientRow, next int64, err error)
}

// MappingRows reads mappings.
type MappingRows interface {
	Mapping(ctx context.Context, id int64) (row projections.MappingRow, ok bool, err error)
	Mappings(ctx context.Context, index projections.Index, after int64, limit int) (rows []projections.MappingRow, next int64, err error)
}

// QuotaRows reads quotas.
type QuotaRows interface {
	Quota(ctx context.Context, account int64) (row projections.QuotaRow, ok bool, err error)
	// Quotas gives the rows of accounts that exist, in order.
	Quotas(ctx context.Context, accounts ...int64) ([]projections.QuotaRow, error)
}

// KeyRows reads API keys.
type KeyRows interface {
	Key(ctx context.Context, id int64) (row projections.KeyRow, ok bool, err error)
	Keys(ctx context.Context, index projections.Index, after int64, limit int) (rows []projections.KeyRow, next int64, err error)
}

// LoginRows reads logins.
type LoginRows interface {
	Login(ctx context.Context, id int64) (row projections.LoginRow, ok bool, err error)
}

// ShareRows reads shares.
type ShareRows interface {
	Share(ctx context.Context, id int64) (row projections.ShareRow, ok bool, err error)
	Shares(ctx context.Context, index projections.Index, after int64, limit int) (rows []projections.ShareRow, next int64, err error)
}

// InviteRows reads invitations.
type InviteRows interface {
	Invite(ctx context.Context, id int64) (row projections.InviteRow, ok bool, err error)
	Invites(ctx context.Context, index projections.Index, after int64, limit int) (rows []projections.InviteRow, next int64, err error)
}

// DomainRows reads domains of users' own.
type DomainRows interface {
	Domain(ctx context.Context, id int64) (row projections.DomainRow, ok bool, err error)
	Domains(ctx context.Context, index projections.Index, after int64, limit int) (rows []projections.DomainRow, next int64, err error)
}

// WebhookRows reads webhooks.
type WebhookRows interface {
	Webhook(ctx context.Context, id int64) (row projections.WebhookRow, ok bool, err error)
	Webhooks(ctx context.Context, index projections.Index, after int64, limit int) (rows []projections.WebhookRow, next int64, err error)
}

// Freshness waits for read models.
type Freshness interface {
	// Wait returns once the read models show position p, or with an error.
	Wait(ctx context.Context, p domain.Position) error
	// WaitRow returns once reads of single resources show position p, which may be
	// before lists do.
	WaitRow(ctx context.Context, p domain.Position) error
}

// Past gives read models as of positions the log has.
type Past interface {
	At(ctx context.Context, p domain.Position) (*projections.Reader, error)
}

// Usage tells what was used; it is a [usage.Store].
type Usage interface {
	// Months gives what accounts have used in the month of t.
	Months(ctx context.Context, t time.Time, accounts ...int64) (map[int64]usage.Traffic, error)
	// Series gives the buckets from from until to that are not empty, in order.
	Series(ctx context.Context, of usage.Subject, step usage.Step, from, to time.Time) ([]usage.Bucket, error)
	// Live gives the streams that are open now, of accounts, clients or mappings.
	Live(ctx context.Context, now time.Time, of usage.Kind, ids ...int64) (map[int64]int64, error)
	// Rates gives what flows now through all forwarders.
	Rates(ctx context.Context, now time.Time) (usage.Rates, error)
}

// Webhooks knows their secrets, and what is on its way to them.
type Webhooks interface {
	// Secret gives the secret of a webhook's generation, as its receiver is given it.
	Secret(webhook, generation int64) string
	// List gives deliveries of a webhook with an id below before, the newest first.
	List(ctx context.Context, webhook, before int64, limit int) ([]webhook.Delivery, error)
	// Add has something sent at once.
	Add(ctx context.Context, d webhook.Delivery) (webhook.Delivery, error)
	// Redeliver has a delivery sent again at once, or gives [webhook.ErrNone].
	Redeliver(ctx context.Context, webhook, id int64, now time.Time) (webhook.Delivery, error)
}
