package projections

import (
	"context"
	"fmt"

	"github.com/tunnox-net/tunnox/domain"
)

// Who somebody is, and what they may do, is believed from the log only. Read models
// may be kept where others can write, a Redis that forwarders use for example: a
// forged row of a key would be a key.

// Streams gives the records of one event stream. Every eventstore.Store is one.
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

// BelieveLog has the reader fold users, keys and logins from the log whenever one of
// them is asked for by its id. What was folded once is remembered as other rows are.
// It is called before the reader is used.
func (r *Reader) BelieveLog(log Streams) { r.streams = log }

// folded gives a row from its event stream; ok is false for one that is not live.
// It is the fold of the log up to at, or later.
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

// rowOf gives what a read model says of a row that is one of its own.
func rowOf(pointer any) row { return pointer.(row) }
