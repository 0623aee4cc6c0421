package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/domain"
)

// ViewsLife is how long a view that a control plane had to give is kept for other
// forwarders: about as long as read models take to be built anew.
const ViewsLife = time.Minute

// Views keeps views of clients beside the read models, for forwarders to share
// while there are none. So the forwarders that agents come back to after a flush
// do not all ask a control plane for the same.
type Views struct {
	client goredis.UniversalClient
}

// NewViews makes the store of views over a client that its caller closes.
func NewViews(client goredis.UniversalClient) *Views { return &Views{client} }

func viewKey(clientID int64) string { return "tunnox:view:" + strconv.FormatInt(clientID, 10) }

// Kept gives the view of a client that somebody kept; ok is false when there is
// none that can be read.
func (v *Views) Kept(ctx context.Context, clientID int64) (kept domain.ClientView, ok bool) {
	text, err := v.client.Get(ctx, viewKey(clientID)).Bytes()
	if err != nil {
		return kept, false // none is kept, or Redis is away
	}
	ok = json.Unmarshal(text, &kept) == nil && kept.Client.State.ID == clientID
	return kept, ok
}

// Keep keeps a view for others.
func (v *Views) Keep(ctx context.Context, view domain.ClientView) error {
	text, err := json.Marshal(view)
	if err != nil {
		return fmt.Errorf("encode the view of a client: %w", err)
	}
	if err := v.client.Set(ctx, viewKey(view.Client.State.ID), text, ViewsLife).Err(); err != nil {
		return fmt.Errorf("keep the view of a client: %w", err)
	}
	return nil
}
