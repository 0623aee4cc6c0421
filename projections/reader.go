package projections

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Index names a list of ids.
type Index string

func numbered(name string, id int64) Index { return Index(name + ":" + strconv.FormatInt(id, 10)) }

// waitLimit bounds a read's wait for a position, so that a stopped projector costs a
// reader two seconds and not the whole time of its request.
const waitLimit = 2 * time.Second

// Reader gives typed reads of a store's read models. Its methods may be called
// concurrently. Values behind pointers in rows are shared and must not be changed.
type Reader struct {
	store   Store
	streams Streams // nil: identities are read from the store too
	kept    *kept   // nil: every read asks the store
}

// NewReader makes a reader of a store.
func NewReader(store Store) *Reader { return &Reader{store: store} }

// Position gives the checkpoint of the read models.
func (r *Reader) Position(ctx context.Context) (domain.Position, error) {
	c, err := r.store.Checkpoint(ctx)
	return c.Position, err
}

// Wait returns when the read models have reached p: at once if they already have. After
// two seconds it gives up with [ErrStale].
func (r *Reader) Wait(ctx context.Context, p domain.Position) error {
	if p <= 0 {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	err := r.store.Wait(bounded, p)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w %d", ErrStale, p)
	}
	return err
}

func decodeRow[R any](key Key, value []byte) (row R, err error) {
	if err := json.Unmarshal(value, &row); err != nil {
		return row, fmt.Errorf("read model row %s-%d: %w", key.Kind, key.ID, err)
	}
	return row, nil
}

// list reads a page of ids and then their rows. A row that disappeared in between is
// left out: it was deleted, which the next read would show too.
func list[R any](ctx context.Context, store Store, kind Kind, index Index, after int64, limit int) (rows []R, next int64, err error) {
	if limit <= 0 {
		return nil, 0, fmt.Errorf("list %s: limit %d is not positive", index, limit)
	}
	ids, err := store.List(ctx, string(index), after, limit+1)
	if err != nil {
		return nil, 0, err
	}
	if len(ids) > limit {
		ids = ids[:limit]
		next = ids[limit-1]
	}
	rows, err = getAll[R](ctx, store, kind, ids)
	if err != nil {
		return nil, 0, err
	}
	// The row itself decides: others may have written to an index.
	rows = slices.DeleteFunc(rows, func(r R) bool { return !slices.Contains(rowOf(&r).indexes(), index) })
	return rows, next, nil
}

// getAll gives the rows that exist, in order of ids.
func getAll[R any](ctx context.Context, store Store, kind Kind, ids []int64) ([]R, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	keys := make([]Key, len(ids))
	for i, id := range ids {
		keys[i] = Key{kind, id}
	}
	values, err := store.Get(ctx, keys...)
	if err != nil {
		return nil, err
	}
	rows := make([]R, 0, len(ids))
	for i, value := range values {
		if value == nil {
			continue
		}
		row, err := decodeRow[R](keys[i], value)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}
