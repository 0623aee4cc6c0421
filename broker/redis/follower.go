package redis

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/domain"
)

// Follower is a [broker.Follower]. Each subscription has a connection of its own.
type Follower struct {
	stream  string
	metrics *broker.Metrics
	logger  *slog.Logger
	// open makes the reader behind an entry id; a test puts another in its place.
	open func(after string) (message.Subscriber, error)
}

// NewFollower follows the feed at the server that connect names.
func NewFollower(connect *goredis.Options, o Options, logger *slog.Logger) *Follower {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	f := &Follower{stream: o.stream(), metrics: o.Metrics, logger: logger}
	f.open = func(after string) (message.Subscriber, error) { return newSubscriber(connect, after, logger), nil }
	return f
}

// Follow implements broker.Follower.
func (f *Follower) Follow(ctx context.Context, after domain.Position) (broker.Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Behind POSITION-0 come the control entries of that position, and then POSITION+1.
	reader, err := f.open(fmt.Sprintf("%d-0", after))
	if err != nil {
		return nil, fmt.Errorf("feed: follow: %w", err)
	}
	s := &subscription{follower: f, reader: reader, position: after, ended: make(chan struct{})}
	life, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if s.messages, err = reader.Subscribe(life, f.stream); err != nil {
		cancel()
		return nil, fmt.Errorf("feed: follow: %w", err)
	}
	return s, nil
}

// subscription is a [broker.Subscription].
type subscription struct {
	follower *Follower
	reader   message.Subscriber
	messages <-chan *message.Message
	position domain.Position
	gap      bool // a gap was met; it stays

	cancel  context.CancelFunc
	endOnce sync.Once
	ended   chan struct{}
}

// Next implements broker.Subscription.
func (s *subscription) Next(ctx context.Context) (broker.Entry, error) {
	if s.gap {
		return broker.Entry{}, broker.ErrGap
	}
	for {
		select {
		case <-s.ended: // first, so that nothing is delivered after Close
			return broker.Entry{}, broker.ErrClosed
		default:
		}
		select {
		case m, ok := <-s.messages:
			if !ok {
				return broker.Entry{}, broker.ErrClosed
			}
			e, deliver, err := s.check(m)
			m.Ack()
			if deliver || err != nil {
				s.follower.metrics.Delivered(e, err)
				return e, err
			}
		case <-s.ended:
			return broker.Entry{}, broker.ErrClosed
		case <-ctx.Done():
			return broker.Entry{}, ctx.Err()
		}
	}
}

// check decides what a message is to this follower: the next entry, one to pass
// over, or a gap.
func (s *subscription) check(m *message.Message) (e broker.Entry, deliver bool, err error) {
	e, err = decode(m)
	if err != nil {
		return s.poison(m, err)
	}
	switch {
	case e.Prev > s.position:
		s.gap = true
		return broker.Entry{}, false, broker.ErrGap
	case e.Record == nil && e.Position == s.position:
		return e, true, nil
	case e.Position <= s.position:
		return e, false, nil
	}
	s.position = e.Position
	return e, true, nil
}

// poison judges what somebody else has put on the stream. In the place of a
// record it hides that record, which is a gap; elsewhere it is passed over.
func (s *subscription) poison(m *message.Message, cause error) (broker.Entry, bool, error) {
	id := m.Metadata.Get(metaID)
	s.follower.logger.Error("feed entry is not ours", "entry_id", id, "error", cause, "unmarshal", m.Metadata.Get(metaPoison))
	position, record, err := parseID(id)
	if err == nil && record && position > s.position {
		s.gap = true
		return broker.Entry{}, false, broker.ErrGap
	}
	return broker.Entry{}, false, nil
}

// Close implements broker.Subscription.
func (s *subscription) Close() (err error) {
	s.endOnce.Do(func() {
		close(s.ended)
		s.cancel()
		err = s.reader.Close()
	})
	return err
}
