package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres/internal/queries"
)

// patient lifts the time-outs for short statements in a transaction that waits for a
// file.
const patient = `SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = '5min'`

// Archive implements [eventstore.Archive], in one snapshot.
func (s *Store) Archive(ctx context.Context, visit func(eventstore.ArchiveItem) error) error {
	var visiting error // an error of the caller, not of the database
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, patient); err != nil {
			return err
		}
		q := s.q.WithTx(tx)
		position, err := q.Position(ctx)
		if err != nil {
			return err
		}
		kept := func(item eventstore.ArchiveItem) error { visiting = visit(item); return visiting }
		if err := kept(eventstore.ArchivedHead{Position: domain.Position(position)}); err != nil {
			return err
		}
		return archiver(ctx, q).Each(ctx, kept)
	})
	if visiting != nil {
		return visiting
	}
	if err != nil {
		return failure(ctx, "read the whole log", err)
	}
	return nil
}

func archiver(ctx context.Context, q *queries.Queries) eventstore.Archiver {
	return eventstore.Archiver{
		Records: func(after domain.Position, limit int) ([]eventstore.ArchivedRecord, error) {
			rows, err := q.ReadLeaves(ctx, queries.ReadLeavesParams{After: int64(after), Count: int32(limit)})
			return archived(rows, err, func(r queries.EsRecord) eventstore.ArchivedRecord {
				return eventstore.ArchivedRecord{Position: domain.Position(r.Position), Stream: domain.StreamID(r.Stream), Version: domain.Version(r.Version),
					Owner: r.Owner, Name: r.Name, Schema: int(r.Schema), ID: r.EventID, Data: r.Data, Meta: r.Meta,
					RecordedMicros: r.RecordedAt.UnixMicro(), Leaf: [32]byte(r.LeafHash)}
			})
		},
		Seals: func(after int64, limit int) ([]eventstore.Seal, error) { return readSeals(ctx, q, after, limit) },
		Streams: func(after domain.StreamID, limit int) ([]eventstore.ArchivedStream, error) {
			rows, err := q.ArchiveStreams(ctx, queries.ArchiveStreamsParams{After: string(after), Count: int32(limit)})
			return archived(rows, err, func(r queries.EsStream) eventstore.ArchivedStream {
				return eventstore.ArchivedStream{Stream: domain.StreamID(r.Stream),
					StreamState: eventstore.StreamState{Version: domain.Version(r.Version), Closed: r.Closed}}
			})
		},
		Claims: func(after eventstore.ClaimName, limit int) ([]eventstore.ArchivedClaim, error) {
			rows, err := q.ArchiveClaims(ctx, queries.ArchiveClaimsParams{Scope: after.Scope, Value: after.Value, Count: int32(limit)})
			return archived(rows, err, func(r queries.EsClaim) eventstore.ArchivedClaim {
				return eventstore.ArchivedClaim{Claim: domain.Claim{Scope: r.Scope, Value: r.Value, Owner: domain.StreamID(r.Owner)}}
			})
		},
		Keys: func(after eventstore.KeyName, limit int) ([]eventstore.ArchivedKey, error) {
			rows, err := q.ArchiveKeys(ctx, queries.ArchiveKeysParams{Scope: after.Scope, Key: after.Key, Count: int32(limit)})
			return archived(rows, err, func(r queries.EsKey) eventstore.ArchivedKey {
				k := eventstore.ArchivedKey{KeyName: eventstore.KeyName{Scope: r.Scope, Key: r.Key}, CreatedMicros: r.CreatedAt.UnixMicro(),
					KeyUse: eventstore.KeyUse{First: domain.Position(r.FirstPosition), Last: domain.Position(r.LastPosition), Subject: domain.StreamID(r.Subject)}}
				copy(k.Hash[:], r.Hash)
				return k
			})
		},
		DataKeys: func(after int64, limit int) ([]eventstore.ArchivedDataKey, error) {
			rows, err := q.ArchiveDataKeys(ctx, queries.ArchiveDataKeysParams{After: after, Count: int32(limit)})
			return archived(rows, err, func(r queries.EsDataKey) eventstore.ArchivedDataKey {
				return eventstore.ArchivedDataKey{Account: r.Account, Key: r.Key}
			})
		},
	}
}

func archived[R, V any](rows []R, err error, each func(R) V) ([]V, error) {
	if err != nil {
		return nil, err
	}
	values := make([]V, len(rows))
	for i, r := range rows {
		values[i] = each(r)
	}
	return values, nil
}

// Restore implements [eventstore.Archive]. It holds the head, so that nobody
// appends to a log that is being filled.
func (s *Store) Restore(ctx context.Context, fill func(put func(eventstore.ArchiveItem) error) error) error {
	var filling error // an error of the source, not of the database
	var head domain.Position
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, patient); err != nil {
			return err
		}
		q := s.q.WithTx(tx)
		position, err := q.LockHead(ctx)
		if err != nil {
			return err
		}
		used, err := q.Used(ctx)
		if err != nil {
			return err
		}
		if position != 0 || used.Bool {
			filling = eventstore.ErrNotEmpty
			return filling
		}
		r := restoring{ctx: ctx, tx: tx, q: q, last: eventstore.LastIDs{}, rows: map[string][][]any{}}
		var writing error
		filling = fill(func(item eventstore.ArchiveItem) error {
			writing = r.put(item)
			return writing
		})
		if writing != nil {
			filling = nil
			return writing
		}
		if filling != nil {
			return filling
		}
		head = r.head
		return r.finish()
	})
	if filling != nil {
		return filling
	}
	if err != nil {
		return failure(ctx, "fill the log", err)
	}
	s.signal.Raise(head)
	return nil
}

// restoring collects rows and copies them, one table at a time.
type restoring struct {
	ctx  context.Context
	tx   pgx.Tx
	q    *queries.Queries
	head domain.Position
	last eventstore.LastIDs
	rows map[string][][]any // by table
}

// columns gives the columns of the tables that are filled.
var columns = map[string][]string{
	"records":   {"position", "stream", "version", "owner", "name", "schema", "event_id", "data", "meta", "leaf_hash", "recorded_at"},
	"seals":     {"size", "before", "first_hash", "hashes", "note", "sealed_at"},
	"streams":   {"stream", "version", "closed"},
	"claims":    {"scope", "value", "owner"},
	"keys":      {"scope", "key", "hash", "first_position", "last_position", "subject", "created_at"},
	"data_keys": {"account", "key"},
}

const restorePage = 1000

func (r *restoring) put(item eventstore.ArchiveItem) error {
	switch v := item.(type) {
	case eventstore.ArchivedHead:
		r.head = v.Position
		return nil
	case eventstore.ArchivedRecord:
		return r.row("records", int64(v.Position), string(v.Stream), int64(v.Version), v.Owner, v.Name, int16(v.Schema), [16]byte(v.ID),
			v.Data, v.Meta, v.Leaf[:], time.UnixMicro(v.RecordedMicros))
	case eventstore.Seal:
		return r.row("seals", v.Size, v.Before, v.FirstHash, v.Hashes, v.Note, v.SealedAt)
	case eventstore.ArchivedStream:
		r.last.Note(v.Stream)
		return r.row("streams", string(v.Stream), int64(v.Version), v.Closed)
	case eventstore.ArchivedClaim:
		return r.row("claims", v.Scope, v.Value, string(v.Owner))
	case eventstore.ArchivedKey:
		return r.row("keys", v.Scope, v.Key, v.Hash[:], int64(v.First), int64(v.Last), string(v.Subject), time.UnixMicro(v.CreatedMicros))
	case eventstore.ArchivedDataKey:
		return r.row("data_keys", v.Account, v.Key)
	}
	return fmt.Errorf("eventstore: this store cannot restore a %T", item)
}

func (r *restoring) row(table string, values ...any) error {
	r.rows[table] = append(r.rows[table], values)
	if len(r.rows[table]) < restorePage {
		return nil
	}
	return r.flush(table)
}

func (r *restoring) flush(table string) error {
	if len(r.rows[table]) == 0 {
		return nil
	}
	_, err := r.tx.CopyFrom(r.ctx, pgx.Identifier{"es", table}, columns[table], pgx.CopyFromRows(r.rows[table]))
	r.rows[table] = r.rows[table][:0]
	if err != nil {
		return fmt.Errorf("table %s: %w", table, err)
	}
	return nil
}

func (r *restoring) finish() error {
	for table := range columns {
		if err := r.flush(table); err != nil {
			return err
		}
	}
	for sequence, set := range map[domain.Sequence]func(context.Context, int64) error{
		domain.SequenceUser: r.q.RestoreUserIDs, domain.SequenceClient: r.q.RestoreClientIDs, domain.SequenceMapping: r.q.RestoreMappingIDs,
	} {
		if last := r.last[string(sequence)]; last >= sequence.First() {
			if err := set(r.ctx, last); err != nil {
				return err
			}
		}
	}
	return r.q.SetHead(r.ctx, int64(r.head))
}
