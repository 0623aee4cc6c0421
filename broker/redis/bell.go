package redis

import (
	"context"
	"strconv"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/domain"
)

// bellChannel is where control planes tell each other that they appended.
const bellChannel = "tunnox:appended"

// Bell carries how far the log is between control planes. It is only for speed:
// nobody relies on hearing it, and what it carries is hearsay.
type Bell struct {
	client *goredis.Client
}

// NewBell makes a bell over a client that its caller closes.
func NewBell(client *goredis.Client) *Bell { return &Bell{client} }

// Ring says that the log is at a position. Nobody may be there to hear.
func (b *Bell) Ring(ctx context.Context, at domain.Position) error {
	return b.client.Publish(ctx, bellChannel, int64(at)).Err()
}

// Listen calls heard for each position that somebody rings with, until ctx ends.
// It connects again by itself.
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
				return nil // the connections were closed, which is the end
			}
			if position, err := strconv.ParseInt(m.Payload, 10, 64); err == nil {
				heard(domain.Position(position))
			}
		}
	}
}
