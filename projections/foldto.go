package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/tunnox-net/tunnox/domain"
)

// FoldTo folds the log into rows, from their checkpoint to a position of the log and no
// further: the read models as of that position.
func FoldTo(ctx context.Context, log Log, rows Rows, until domain.Position) error {
	cp, err := rows.Checkpoint(ctx)
	if err != nil {
		return err
	}
	folder := newFolder(rows)
	for cp.Position < until {
		records, err := log.ReadAll(ctx, cp.Position, int(min(foldPage, until-cp.Position)))
		if err != nil {
			return fmt.Errorf("read the log after %d: %w", cp.Position, err)
		}
		if len(records) == 0 {
			return fmt.Errorf("%w %d: the log ends at %d", ErrStale, until, cp.Position)
		}
		facts, err := decode(cp.Position, records)
		if err != nil {
			if halt, ok := errors.AsType[*haltError](err); ok {
				return halt.err
			}
			return err
		}
		batch, err := folder.fold(ctx, cp, facts)
		if err != nil {
			return err
		}
		if err := rows.Apply(ctx, batch); err != nil {
			return err
		}
		cp = batch.To
	}
	return nil
}

// foldPage is how many records FoldTo folds at a time. It is larger than a batch,
// because nobody waits for the store, and a row that changes twice in a page is written
// once.
const foldPage = 5000
