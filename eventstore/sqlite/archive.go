package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite/internal/queries"
)

// Archive implements [eventstore.Archive], in one snapshot.
func (s *Store) Archive(ctx context.Context, visit func(eventstore.ArchiveItem) error) (err error) {
	tx, err := s.reader.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return failure(ctx, "read the whole log", err)
	}
	defer func() {
		if e := tx.Rollback(); !errors.Is(e, sql.ErrTxDone) {
			err = errors.Join(err, e)
		}
	}()
	q := s.read.WithTx(tx)
	position, err := q.Position(ctx)
	if err != nil {
		return failure(ctx, "read the whole log", err)
	}
	if err := visit(eventstore.ArchivedHead{Position: domain.Position(position)}); err != nil {
		return err
	}
	return archiver(ctx, q).Each(ctx, visit)
}

func archiver(ctx context.Context, q *queries.Queries) eventstore.Archiver {
	return eventstore.Archiver{
		Records: func(after domain.Position, limit int) ([]eventstore.ArchivedRecord, error) {
			rows, err := q.ReadLeaves(ctx, queries.ReadLeavesParams{Position: int64(after), Limit: int64(limit)})
			if err != nil {
				return nil, failure(ctx, "read the records of the log", err)
			}
			records := make([]eventstore.ArchivedRecord, len(rows))
			for i, r := range rows {
				if len(r.EventID) != len(domain.EventID{}) {
					return nil, fmt.Errorf("eventstore: record %d has an event id of %d bytes", r.Position, len(r.EventID))
				}
				records[i] = eventstore.ArchivedRecord{Position: domain.Position(r.Position), Stream: domain.StreamID(r.Stream), Version: domain.Version(r.Version),
					Owner: r.Owner, Name: r.Name, Schema: int(r.Schema), ID: domain.EventID(r.EventID), Data: []byte(r.Data), Meta: []byte(r.Meta),
					RecordedMicros: r.RecordedAt, Leaf: [32]byte(r.LeafHash)}
			}
			return records, nil
		},
		Seals: func(after int64, limit int) ([]eventstore.Seal, error) {
			seals, err := readSeals(ctx, q, after, limit)
			if err != nil {
				return nil, failure(ctx, "read the checkpoints", err)
			}
			return seals, nil
		},
		Streams: func(after domain.StreamID, limit int) ([]eventstore.ArchivedStream, error) {
			rows, err := q.ArchiveStreams(ctx, queries.ArchiveStreamsParams{Stream: string(after), Limit: int64(limit)})
			return archived(ctx, "event streams", rows, err, func(r queries.Stream) eventstore.ArchivedStream {
				return eventstore.ArchivedStream{Stream: domain.StreamID(r.Stream),
					StreamState: eventstore.StreamState{Version: domain.Version(r.Version), Closed: r.Closed}}
			})
		},
		Claims: func(after eventstore.ClaimName, limit int) ([]eventstore.ArchivedClaim, error) {
			rows, err := q.ArchiveClaims(ctx, queries.ArchiveClaimsParams{Scope: after.Scope, Scope_2: after.Value, Limit: int64(limit)})
			return archived(ctx, "claims", rows, err, func(r queries.Claim) eventstore.ArchivedClaim {
				return eventstore.ArchivedClaim{Claim: domain.Claim{Scope: r.Scope, Value: r.Value, Owner: domain.StreamID(r.Owner)}}
			})
		},
		Keys: func(after eventstore.KeyName, limit int) ([]eventstore.ArchivedKey, error) {
			rows, err := q.ArchiveKeys(ctx, queries.ArchiveKeysParams{Scope: after.Scope, Scope_2: after.Key, Limit: int64(limit)})
			return archived(ctx, "idempotency keys", rows, err, func(r queries.Key) eventstore.ArchivedKey {
				k := eventstore.ArchivedKey{KeyName: eventstore.KeyName{Scope: r.Scope, Key: r.Key}, CreatedMicros: r.CreatedAt,
					KeyUse: eventstore.KeyUse{First: domain.Position(r.FirstPosition), Last: domain.Position(r.LastPosition), Subject: domain.StreamID(r.Subject)}}
				copy(k.Hash[:], r.Hash)
				return k
			})
		},
		DataKeys: func(after int64, limit int) ([]eventstore.ArchivedDataKey, error) {
			rows, err := q.ArchiveDataKeys(ctx, queries.ArchiveDataKeysParams{Account: after, Limit: int64(limit)})
			return archived(ctx, "data keys", rows, err, func(r queries.DataKey) eventstore.ArchivedDataKey {
				return eventstore.ArchivedDataKey{Account: r.Account, Key: r.Key}
			})
		},
	}
}

func archived[R, V any](ctx context.Context, what string, rows []R, err error, each func(R) V) ([]V, error) {
	if err != nil {
		return nil, failure(ctx, "read the "+what+" of the log", err)
	}
	values := make([]V, len(rows))
	for i, r := range rows {
		values[i] = each(r)
	}
	return values, nil
}

// Restore implements [eventstore.Archive].
func (s *Store) Restore(ctx context.Context, fill func(put func(eventstore.ArchiveItem) error) error) error {
	var filling error // an error of the source, not of the database
	var head domain.Position
	err := s.writeAlone(ctx, "fill the log", func() (err error) {
		tx, err := s.writer.BeginTx(ctx, nil) // immediate
		if err != nil {
			return err
		}
		defer func() {
			if e := tx.Rollback(); !errors.Is(e, sql.ErrTxDone) {
				err = errors.Join(err, e)
			}
		}()
		q := s.write.WithTx(tx)
		position, err := q.Position(ctx)
		if err != nil {
			return err
		}
		used, err := q.Used(ctx)
		if err != nil {
			return err
		}
		if position != 0 || used.Bool {
			filling = eventstore.ErrNotEmpty
			return nil
		}
		var writing error
		filling = fill(func(item eventstore.ArchiveItem) error {
			if h, ok := item.(eventstore.ArchivedHead); ok {
				head = h.Position
			}
			writing = restore(ctx, q, item)
			return writing
		})
		if writing != nil {
			filling = nil
			return writing
		}
		if filling != nil {
			return nil
		}
		if err := q.SetPosition(ctx, int64(head)); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		return s.count(ctx)
	})
	return errors.Join(filling, err)
}

func restore(ctx context.Context, q *queries.Queries, item eventstore.ArchiveItem) error {
	switch v := item.(type) {
	case eventstore.ArchivedHead:
		return nil
	case eventstore.ArchivedRecord:
		return q.InsertRecord(ctx, queries.InsertRecordParams{Position: int64(v.Position), Stream: string(v.Stream), Version: int64(v.Version),
			Owner: v.Owner, Name: v.Name, Schema: int64(v.Schema), EventID: v.ID[:], Data: string(v.Data), Meta: string(v.Meta),
			LeafHash: v.Leaf[:], RecordedAt: v.RecordedMicros})
	case eventstore.Seal:
		return q.InsertSeal(ctx, sealRow(v))
	case eventstore.ArchivedStream:
		return q.InsertStream(ctx, queries.InsertStreamParams{Stream: string(v.Stream), Version: int64(v.Version), Closed: v.Closed})
	case eventstore.ArchivedClaim:
		return q.InsertClaim(ctx, queries.InsertClaimParams{Scope: v.Scope, Value: v.Value, Owner: string(v.Owner)})
	case eventstore.ArchivedKey:
		return q.InsertKey(ctx, queries.InsertKeyParams{Scope: v.Scope, Key: v.Key, Hash: v.Hash[:], FirstPosition: int64(v.First),
			LastPosition: int64(v.Last), Subject: string(v.Subject), CreatedAt: v.CreatedMicros})
	case eventstore.ArchivedDataKey:
		if v.Key == nil {
			return q.EraseDataKey(ctx, v.Account)
		}
		return q.MakeDataKey(ctx, queries.MakeDataKeyParams{Account: v.Account, Key: v.Key})
	}
	return fmt.Errorf("eventstore: this store cannot restore a %T", item)
}
