package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/domain"
)

// ViewsLife is how long a view that a control plane had to give is kept for other
// forwarders: about as long as read models take to be built anew.
const ViewsLife = time.Minute

// Views keeps views of clients that a control plane gave beside the read models, for
// other forwarders to find while there are none. So the forwarders that agents come back to after a flush
// do not all ask a control plane for the same.
type Views struct {
	client goredis.UniversalClient
	trust  attest.Trust
}

// NewViews makes the store of views over a client that its caller closes.
func NewViews(client goredis.UniversalClient, trust attest.Trust) *Views {
	return &Views{client, trust}
}

// generationKey names the log that kept views are of. Views of a log that was taken
// back must not be given for one of the log as it is, whatever their position.
const generationKey = "tunnox:views"

func viewKey(generation string, clientID int64) string {
	return "tunnox:view:" + generation + strconv.FormatInt(clientID, 10)
}

// generation is "" until the first Forget, and after a flush, which took all views.
func (v *Views) generation(ctx context.Context) (string, error) {
	g, err := v.client.Get(ctx, generationKey).Result()
	if errors.Is(err, goredis.Nil) {
		return "", nil
	}
	return g, err
}

// Forget has nobody find the views that were kept.
func (v *Views) Forget(ctx context.Context) error {
	if err := v.client.Set(ctx, generationKey, rand.Text()+":", 0).Err(); err != nil {
		return fmt.Errorf("forget kept views: %w", err)
	}
	return nil
}

// Kept gives the view of a client that a control plane kept; ok is false when there
// is none that can be read.
func (v *Views) Kept(ctx context.Context, clientID int64) (kept domain.ClientView, ok bool) {
	generation, err := v.generation(ctx)
	if err != nil {
		return kept, false
	}
	text, err := v.client.Get(ctx, viewKey(generation, clientID)).Bytes()
	if err != nil {
		return kept, false // none is kept, or Redis is away
	}
	kept, err = viewOf(ctx, v.trust.Verifier, generation, text)
	return kept, err == nil && kept.Client.State.ID == clientID
}

// Keep keeps a view for forwarders. It needs the key.
func (v *Views) Keep(ctx context.Context, view domain.ClientView) error {
	if v.trust.Key == nil {
		return errReadOnly
	}
	generation, err := v.generation(ctx)
	if err != nil {
		return fmt.Errorf("keep the view of a client: %w", err)
	}
	text, err := attestedView(v.trust.Key, generation, view)
	if err != nil {
		return err
	}
	if err := v.client.Set(ctx, viewKey(generation, view.Client.State.ID), text, ViewsLife).Err(); err != nil {
		return fmt.Errorf("keep the view of a client: %w", err)
	}
	return nil
}
