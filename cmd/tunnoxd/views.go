package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/projections"
)

// keptFor is how long a view that a control plane had to give is kept for other
// forwarders: about as long as read models take to be built anew.
const keptFor = time.Minute

// keptViews are the read models, and behind them the views that control planes
// gave while there were none. So the forwarders that agents come back to after a
// flush do not all ask for the same.
type keptViews struct {
	rows  forwarder.Lookup
	redis *redis.Client
}

func keptKey(clientID int64) string { return "tunnox:view:" + strconv.FormatInt(clientID, 10) }

// ClientView implements forwarder.Lookup. A kept view counts only where the caller
// knows how new it must be: it was true at its position, and nobody takes it back.
func (k keptViews) ClientView(ctx context.Context, clientID int64, min domain.Position) (domain.ClientView, error) {
	v, err := k.rows.ClientView(ctx, clientID, min)
	if min == 0 || !errors.Is(err, projections.ErrUnavailable) {
		return v, err
	}
	text, getErr := k.redis.Get(ctx, keptKey(clientID)).Bytes()
	if getErr != nil {
		return v, err // none is kept, or Redis is away, which err says
	}
	var kept domain.ClientView
	if json.Unmarshal(text, &kept) != nil || kept.Client.State.ID != clientID || kept.Position < min {
		return v, err
	}
	return kept, nil
}

// Keep is for control.LookupConfig.
func (k keptViews) Keep(ctx context.Context, v domain.ClientView) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the view of a client: %w", err)
	}
	if err := k.redis.Set(ctx, keptKey(v.Client.State.ID), text, keptFor).Err(); err != nil {
		return fmt.Errorf("keep the view of a client: %w", err)
	}
	return nil
}
