package httpapi

import (
	"context"

	"github.com/tunnox-net/tunnox/projections"
)

// Keys, shares, invitations, webhooks and domains belong to a user each. They are listed
// and shown in one way.

// ownedInput asks for a page of what users own.
type ownedInput struct {
	PageInput
	OwnerFilter
}

// listOwned gives a page of what one user owns, or of what all users own. of is the index of
// one user, read reads the rows of an index.
func listOwned[R, T any](ctx context.Context, a *api, in *ownedInput, all projections.Index, of func(user int64) projections.Index,
	read func(ctx context.Context, index projections.Index, after int64, limit int) (rows []R, next int64, err error), body func(R) T) (*pageAnswer[T], error) {
	if err := a.shows(ctx, in.MinPosition); err != nil {
		return nil, err
	}
	index := all
	if owner, ok, err := in.owner(ctx); err != nil {
		return nil, err
	} else if ok {
		index = of(owner)
	}
	rows, next, err := read(ctx, index, in.After, in.Limit)
	if err != nil {
		return nil, a.unlisted(ctx, err)
	}
	return pageOf(rows, next, body), nil
}

// oneAnswer is the answer of a read of one resource.
type oneAnswer[T any] struct {
	ReadAnswer
	Body T
}

// answerOne answers with one resource, or that the asker has it already. tag is its ETag.
func answerOne[T any](in *oneInput, tag string, body T) (*oneAnswer[T], error) {
	answer, err := in.tagged(tag)
	if err != nil {
		return nil, err
	}
	return &oneAnswer[T]{answer, body}, nil
}
