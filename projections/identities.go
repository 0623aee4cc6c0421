package projections

import (
	"context"
	"fmt"

	"github.com/tunnox-net/tunnox/domain"
)

// Identities and rights are read from the log only. Read models may be stored where
// others can write, for example in a Redis that forwarders use: a forged row of a key
// would be a key.

// Streams gives the records of one event stream. Every eventstore.Store implements it.
type Streams interface {
	// ReadStream gives up to limit records of a stream with a version above after.
	ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error)
}

// identities are the kinds whose single rows a reader folds from the log.
var identities = map[Kind]func(id int64) domain.StreamID{
	Users:   domain.UserStream,
	APIKeys: domain.KeyStream,
	Logins:  domain.LoginStream,
}

// streamPage is how many records of one event stream are read at a time.
const streamPage = 500

// BelieveLog makes the reader fold users, keys and logins from the log whenever one of
// them is read by its id. The folds are cached as other rows are. Call it before the
// reader is used.
func (r *Reader) BelieveLog(log Streams) { r.streams = log }

// folded gives a row from its event stream; ok is false if the row is not live. It is
// the fold of the log up to at, or later.
func (r *Reader) folded(ctx context.Context, key Key, into row) (at domain.Position, ok bool, err error) {
	if r.kept != nil {
		at = r.kept.known()
	}
	stream := identities[key.Kind](key.ID)
	versions := into.versions()
	for {
		records, err := r.streams.ReadStream(ctx, stream, versions.Version, streamPage)
		if err != nil {
			return 0, false, fmt.Errorf("%w: read event stream %s: %w", ErrUnavailable, stream, err)
		}
		for i := range records {
			event, err := records[i].Event()
			if err != nil {
				return 0, false, fmt.Errorf("record %d of %s: %w", records[i].Position, stream, err)
			}
			into.fold(event, records[i].Meta.At)
			versions.Version, versions.Position = records[i].Version, records[i].Position
		}
		if len(records) < streamPage {
			return max(at, versions.Position), into.live(), nil
		}
	}
}

// rowOf gives the row interface of a read model's row.
func rowOf(pointer any) row { return pointer.(row) }
