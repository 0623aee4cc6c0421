// Package memory is the configuration feed within one process: a ring that
// followers read at their own pace.
//
// It is bounded. A follower that is overrun gets [broker.ErrGap] and takes a
// snapshot, as it would in a cluster; nobody waits for it and nothing piles up.
package memory

import (
	"context"
	"slices"
	"sync"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/domain"
)

// DefaultCapacity is how many records the ring of the embedded form keeps.
const DefaultCapacity = 16384

// Feed is a [broker.Publisher] and a [broker.Follower].
type Feed struct {
	metrics *broker.Metrics

	mu      sync.Mutex
	ring    []broker.Entry // guarded by mu; entry n of all is at n % len
	first   int64          // guarded by mu; number of the oldest entry kept
	end     int64          // guarded by mu; number of the next entry
	control broker.Entry   // guarded by mu; the newest control entry
	beats   int64          // guarded by mu; counts control entries
	changed chan struct{}  // guarded by mu; closed and replaced at every change
	closed  bool           // guarded by mu
}

// New makes a feed that keeps capacity records; metrics may be nil.
func New(capacity int, metrics *broker.Metrics) *Feed {
	return &Feed{metrics: metrics, ring: make([]broker.Entry, capacity), changed: make(chan struct{})}
}

// Last implements broker.Publisher.
func (f *Feed) Last(ctx context.Context) (domain.Position, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, false, broker.ErrClosed
	}
	p, ok := f.last()
	return p, ok, ctx.Err()
}

// last needs mu.
func (f *Feed) last() (domain.Position, bool) {
	p, ok := f.control.Position, f.beats > 0
	if f.end > f.first {
		p, ok = max(p, f.at(f.end-1).Position), true
	}
	return p, ok
}

func (f *Feed) at(n int64) *broker.Entry { return &f.ring[n%int64(len(f.ring))] }

// Publish implements broker.Publisher.
func (f *Feed) Publish(ctx context.Context, prev domain.Position, records []domain.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return broker.ErrClosed
	}
	last, some := f.last()
	records = slices.Clone(records) // entries point into it
	for i := range records {
		r := &records[i]
		if !some || r.Position > last {
			f.push(broker.Entry{Position: r.Position, Prev: prev, Record: r})
		}
		prev = r.Position
	}
	f.metrics.Put(prev)
	f.wake()
	return nil
}

// push needs mu.
func (f *Feed) push(e broker.Entry) {
	*f.at(f.end) = e
	f.end++
	f.first = max(f.first, f.end-int64(len(f.ring)))
}

// wake needs mu.
func (f *Feed) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Heartbeat implements broker.Publisher.
func (f *Feed) Heartbeat(ctx context.Context, p domain.Position) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return broker.ErrClosed
	}
	if last, ok := f.last(); ok && p < last {
		return nil
	}
	f.control = broker.Entry{Position: p, Prev: p}
	f.beats++
	f.wake()
	return nil
}

// Reset implements broker.Publisher.
func (f *Feed) Reset(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.ring)
	f.first, f.beats, f.control = f.end, 0, broker.Entry{}
	return nil
}

// Trim forgets the records up to p, as a full ring does.
func (f *Feed) Trim(p domain.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.first < f.end && f.at(f.first).Position <= p {
		*f.at(f.first) = broker.Entry{}
		f.first++
	}
}

// Close ends the feed and every subscription.
func (f *Feed) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		f.wake()
	}
	return nil
}

// Follow implements broker.Follower.
func (f *Feed) Follow(ctx context.Context, after domain.Position) (broker.Subscription, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, broker.ErrClosed
	}
	return &subscription{feed: f, position: after, ended: make(chan struct{})}, ctx.Err()
}

// subscription is a cursor on the ring.
type subscription struct {
	feed     *Feed
	position domain.Position // what was delivered, or where the follower began
	next     int64           // number of the entry to look at
	beats    int64           // control entries seen
	ended    chan struct{}
	endOnce  sync.Once
}

// Next implements broker.Subscription.
func (s *subscription) Next(ctx context.Context) (broker.Entry, error) {
	for {
		e, found, changed, err := s.look()
		if found || err != nil {
			s.feed.metrics.Delivered(e, err)
			return e, err
		}
		select {
		case <-changed:
		case <-s.ended:
		case <-ctx.Done():
			return broker.Entry{}, ctx.Err()
		}
	}
}

// look takes the next entry, if there is one.
func (s *subscription) look() (e broker.Entry, found bool, changed <-chan struct{}, err error) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-s.ended:
		return e, false, nil, broker.ErrClosed
	default:
	}
	if f.closed {
		return e, false, nil, broker.ErrClosed
	}
	for s.next = max(s.next, f.first); s.next < f.end; s.next++ {
		e := *f.at(s.next)
		if e.Position <= s.position {
			continue
		}
		if e.Prev > s.position {
			return broker.Entry{}, false, nil, broker.ErrGap
		}
		s.next++
		s.position = e.Position
		return e, true, nil, nil
	}
	if f.beats > 0 && s.beats != f.beats {
		s.beats = f.beats
		switch {
		case f.control.Position > s.position:
			s.beats-- // it stays a gap until the follower starts again
			return broker.Entry{}, false, nil, broker.ErrGap
		case f.control.Position == s.position:
			return f.control, true, nil, nil
		}
	}
	return broker.Entry{}, false, f.changed, nil
}

// Close implements broker.Subscription.
func (s *subscription) Close() error {
	s.endOnce.Do(func() { close(s.ended) })
	return nil
}
