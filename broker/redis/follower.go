package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/domain"
)

// Follower is a [broker.Follower]. Each subscription has a connection of its own.
type Follower struct {
	stream  string
	metrics *broker.Metrics
	trusted *attest.Verifier
	logger  *slog.Logger

	mu    sync.Mutex
	epoch string // guarded by mu; the last known epoch, "" = none

	// open makes the reader that starts after an entry id; a test replaces it.
	open func(after string) (message.Subscriber, error)
}

// NewFollower follows the feed at the server that connect names.
func NewFollower(connect *goredis.Options, o Options, logger *slog.Logger) *Follower {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	f := &Follower{stream: o.stream(), metrics: o.Metrics, trusted: o.Trust.Verifier, logger: logger}
	f.open = func(after string) (message.Subscriber, error) { return newSubscriber(connect, after, logger), nil }
	return f
}

// Follow implements broker.Follower.
func (f *Follower) Follow(ctx context.Context, after domain.Position) (broker.Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// After POSITION-0 come the control entries of that position, and then POSITION+1.
	reader, err := f.open(fmt.Sprintf("%d-0", after))
	if err != nil {
		return nil, fmt.Errorf("feed: follow: %w", err)
	}
	s := &subscription{follower: f, reader: reader, position: after, ended: make(chan struct{})}
	f.mu.Lock()
	s.epoch = f.epoch // from an earlier subscription
	f.mu.Unlock()
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
	id       domain.EventID // of the record at position, zero when it is not known
	epoch    string         // the last known epoch, "" = none
	over     error          // the gap or the other log that was found; it stays

	cancel  context.CancelFunc
	endOnce sync.Once
	ended   chan struct{}
}

// Next implements broker.Subscription.
func (s *subscription) Next(ctx context.Context) (broker.Entry, error) {
	if s.over != nil {
		return broker.Entry{}, s.over
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
			e, deliver, err := s.check(ctx, m)
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

// check decides whether a message is the next entry for this follower, an entry to
// skip, or a gap.
func (s *subscription) check(ctx context.Context, m *message.Message) (e broker.Entry, deliver bool, err error) {
	epoch := m.Metadata.Get(metaEpoch)
	if epoch != "" {
		err = s.follower.trusted.Check(ctx, purposeEpoch, []byte(epoch), []byte(m.Metadata.Get(metaProof)))
	} else if e, err = decode(m); err == nil {
		err = proved(ctx, s.follower.trusted, m)
	} else {
		err = fmt.Errorf("%w: %w", attest.ErrForged, err)
	}
	switch {
	case errors.Is(err, attest.ErrForged):
		s.follower.metrics.Forged()
		return s.poison(m, err)
	case err != nil:
		s.follower.logger.Warn("it cannot be told now who wrote to the feed; it is followed anew", "error", err)
		return e, false, s.end(broker.ErrGap)
	case epoch != "":
		return e, false, s.heard(epoch)
	}
	at, before := domain.Place{Position: s.position, EventID: s.id}, domain.Place{Position: e.Prev, EventID: e.PrevID}
	switch {
	case e.Prev > s.position:
		return broker.Entry{}, false, s.end(broker.ErrGap)
	case at.Parted(before):
		return broker.Entry{}, false, s.end(broker.ErrForked)
	case e.Record == nil && e.Position == s.position:
		s.id = e.PrevID
		return e, true, nil
	case e.Position <= s.position:
		return e, false, nil
	}
	s.position, s.id = e.Position, e.Record.ID
	return e, true, nil
}

// end keeps an error: from now on the subscription gives nothing else.
func (s *subscription) end(why error) error {
	s.over = why
	return why
}

// heard handles the feed's epoch. An epoch that differs from the last known one, of
// this subscription or an earlier one, means another log.
func (s *subscription) heard(epoch string) error {
	s.follower.mu.Lock()
	s.follower.epoch = epoch
	s.follower.mu.Unlock()
	if s.epoch != "" && s.epoch != epoch {
		return s.end(broker.ErrForked)
	}
	s.epoch = epoch
	return nil
}

// poison handles an entry that others have put on the stream. In the place of a record
// it hides that record, which is a gap. Elsewhere it is skipped.
func (s *subscription) poison(m *message.Message, cause error) (broker.Entry, bool, error) {
	id := m.Metadata.Get(metaID)
	s.follower.logger.Error("somebody else has written to the feed", "entry_id", id, "error", cause, "unmarshal", m.Metadata.Get(metaPoison))
	position, record, err := parseID(id)
	if err == nil && record && position > s.position {
		return broker.Entry{}, false, s.end(broker.ErrGap)
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
