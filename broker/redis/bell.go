package redis

import (
	"context"
	"strconv"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/domain"
)

// bellChannel is the channel on which control planes tell each other of appends.
const bellChannel = "tunnox:appended"

// Bell tells control planes the end of the log. It is only for speed: nobody depends on
// hearing it, and its positions are unchecked.
type Bell struct {
	client *goredis.Client
}

// NewBell makes a bell over a client that its caller closes.
func NewBell(client *goredis.Client) *Bell { return &Bell{client} }

// Ring says that the log has reached a position. There may be no listener.
func (b *Bell) Ring(ctx context.Context, at domain.Position) error {
	return b.client.Publish(ctx, bellChannel, int64(at)).Err()
}

// Listen calls heard for each position of a Ring, until ctx ends. It reconnects by
// itself.
func (b *Bell) Listen(ctx context.Context, heard func(domain.Position)) error {
	subscription := b.client.Subscribe(ctx, bellChannel)
	defer subscription.Close()
	messages := subscription.Channel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-messages:
			if !ok {
				return nil // the connections were closed; that is the end
			}
			if position, err := strconv.ParseInt(m.Payload, 10, 64); err == nil {
				heard(domain.Position(position))
			}
		}
	}
}
