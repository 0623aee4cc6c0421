package main

import (
	"context"
	"errors"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/projections"
)

// views stores views of clients that control planes gave, for other forwarders.
type views interface {
	Kept(ctx context.Context, clientID int64) (domain.ClientView, bool)
	Keep(ctx context.Context, v domain.ClientView) error
	Forget(ctx context.Context) error
}

// keptViews are the read models and, behind them, the views that control planes gave
// while there were no read models.
type keptViews struct {
	rows forwarder.Lookup
	kept views
}

// ClientView implements forwarder.Lookup. A stored view is used only if the caller
// knows the minimum position: the view was true at its own position, and stays so.
func (k keptViews) ClientView(ctx context.Context, clientID int64, min domain.Position) (domain.ClientView, error) {
	v, err := k.rows.ClientView(ctx, clientID, min)
	if min == 0 || !errors.Is(err, projections.ErrUnavailable) {
		return v, err
	}
	if kept, ok := k.kept.Kept(ctx, clientID); ok && kept.Position >= min {
		return kept, nil
	}
	return v, err
}

// IngressView implements forwarder.Lookup. No view is stored: a forwarder asks only
// when it starts.
func (k keptViews) IngressView(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error) {
	return k.rows.IngressView(ctx, what, min)
}
