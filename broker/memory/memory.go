// Package memory is the configuration feed within one process: a ring that followers
// read at their own pace.
//
// The ring is bounded. A follower that is overrun gets [broker.ErrGap] and takes a
// snapshot, as in a cluster. Nobody waits for it and nothing accumulates.
package memory

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/domain"
)

// DefaultCapacity is how many records the ring of the embedded form keeps.
const DefaultCapacity = 16384

// Feed is a [broker.Publisher] and a [broker.Follower].
type Feed struct {
	// Forget is how long after the erasure of a user the entries before it are removed.
	// Set it before the first record.
	Forget  time.Duration
	metrics *broker.Metrics

	mu      sync.Mutex
	ring    []broker.Entry // guarded by mu; the nth entry is at n % len
	first   int64          // guarded by mu; number of the oldest entry kept
	end     int64          // guarded by mu; number of the next entry
	control broker.Entry   // guarded by mu; the newest control entry
	beats   int64          // guarded by mu; counts control entries
	changed chan struct{}  // guarded by mu; closed and replaced at every change
	epoch   string         // guarded by mu; named by the last Reset
	ids     domain.Place   // guarded by mu; the newest place whose id is known
	closed  bool           // guarded by mu
	erased  []erasure      // guarded by mu; in order
}

// erasure is a record before which entries are removed, and when.
type erasure struct {
	position domain.Position
	due      time.Time
}

// New makes a feed that keeps capacity records; metrics may be nil.
func New(capacity int, metrics *broker.Metrics) *Feed {
	return &Feed{Forget: broker.ForgetAfter, metrics: metrics, ring: make([]broker.Entry, capacity), changed: make(chan struct{})}
}

// Last implements broker.Publisher.
func (f *Feed) Last(ctx context.Context) (domain.Place, string, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return domain.Place{}, "", false, broker.ErrClosed
	}
	p, ok := f.last()
	end := domain.Place{Position: p}
	if f.ids.Position == p {
		end = f.ids
	}
	return end, f.epoch, ok, ctx.Err()
}

// last gives the newest position. The caller holds mu.
func (f *Feed) last() (domain.Position, bool) {
	p, ok := f.control.Position, f.beats > 0
	if f.end > f.first {
		p, ok = max(p, f.at(f.end-1).Position), true
	}
	return p, ok
}

func (f *Feed) at(n int64) *broker.Entry { return &f.ring[n%int64(len(f.ring))] }

// Publish implements broker.Publisher.
func (f *Feed) Publish(ctx context.Context, prev domain.Place, records []domain.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return broker.ErrClosed
	}
	last, some := f.last()
	records = slices.Clone(records) // entries point into the slice
	for i := range records {
		r := &records[i]
		if !some || r.Position > last {
			f.push(broker.Entry{Position: r.Position, Prev: prev.Position, PrevID: prev.EventID, Record: r})
			f.ids = domain.PlaceOf(*r)
			if broker.Forgets(*r) {
				f.erased = append(f.erased, erasure{r.Position, time.Now().Add(f.Forget)})
			}
		}
		prev = domain.PlaceOf(*r)
	}
	f.forget()
	f.metrics.Put(prev.Position)
	f.wake()
	return nil
}

// push appends an entry. The caller holds mu.
func (f *Feed) push(e broker.Entry) {
	*f.at(f.end) = e
	f.end++
	f.first = max(f.first, f.end-int64(len(f.ring)))
}

// wake wakes all that wait for a change. The caller holds mu.
func (f *Feed) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Heartbeat implements broker.Publisher.
func (f *Feed) Heartbeat(ctx context.Context, at domain.Place) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return broker.ErrClosed
	}
	f.forget()
	if last, ok := f.last(); ok && at.Position < last {
		return nil
	}
	f.control = broker.Entry{Position: at.Position, Prev: at.Position, PrevID: at.EventID}
	f.ids = at
	f.beats++
	f.wake()
	return nil
}

// Name implements broker.Publisher.
func (f *Feed) Name(ctx context.Context, epoch string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch = cmp.Or(f.epoch, epoch)
	f.wake()
	return nil
}

// Reset implements broker.Publisher.
func (f *Feed) Reset(ctx context.Context, epoch string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.ring)
	f.first, f.beats, f.control, f.ids = f.end, 0, broker.Entry{}, domain.Place{}
	f.epoch = epoch
	f.wake()
	return nil
}

// Flush removes everything, also the epoch, as the flush of a Redis does.
func (f *Feed) Flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.ring)
	f.first, f.beats, f.control, f.ids, f.epoch = f.end, 0, broker.Entry{}, domain.Place{}, ""
}

// Trim removes the records up to p, as a full ring does.
func (f *Feed) Trim(p domain.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trim(p)
}

// trim is Trim for a caller that holds mu.
func (f *Feed) trim(p domain.Position) {
	for f.first < f.end && f.at(f.first).Position <= p {
		*f.at(f.first) = broker.Entry{}
		f.first++
	}
}

// forget removes the entries before the last erasure whose time has come. The caller
// holds mu.
func (f *Feed) forget() {
	for now := time.Now(); len(f.erased) > 0 && !f.erased[0].due.After(now); f.erased = f.erased[1:] {
		f.trim(f.erased[0].position - 1)
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
	return &subscription{feed: f, position: after, epoch: f.epoch, ended: make(chan struct{})}, ctx.Err()
}

// subscription is a place on the ring.
type subscription struct {
	feed     *Feed
	position domain.Position // the last delivered position, or where the follower began
	id       domain.EventID  // of the record at position, zero when it is not known
	epoch    string          // the follower's epoch; "" = none
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

// look gives the next entry, if there is one.
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
	if f.epoch != s.epoch && f.epoch != "" {
		if s.epoch != "" {
			return e, false, nil, broker.ErrForked // and every later call gives the same
		}
		s.epoch = f.epoch
	}
	for s.next = max(s.next, f.first); s.next < f.end; s.next++ {
		e := *f.at(s.next)
		if e.Position <= s.position {
			continue
		}
		if e.Prev > s.position {
			return broker.Entry{}, false, nil, broker.ErrGap
		}
		if s.place().Parted(domain.Place{Position: e.Prev, EventID: e.PrevID}) {
			return broker.Entry{}, false, nil, broker.ErrForked
		}
		s.next++
		s.position, s.id = e.Position, e.Record.ID
		return e, true, nil, nil
	}
	if f.beats > 0 && s.beats != f.beats {
		s.beats = f.beats
		switch {
		case f.control.Position > s.position:
			s.beats-- // it stays a gap until the follower starts again
			return broker.Entry{}, false, nil, broker.ErrGap
		case s.place().Parted(domain.Place{Position: f.control.Position, EventID: f.control.PrevID}):
			s.beats--
			return broker.Entry{}, false, nil, broker.ErrForked
		case f.control.Position == s.position:
			s.id = f.control.PrevID
			return f.control, true, nil, nil
		}
	}
	return broker.Entry{}, false, f.changed, nil
}

// place gives the follower's place.
func (s *subscription) place() domain.Place { return domain.Place{Position: s.position, EventID: s.id} }

// Close implements broker.Subscription.
func (s *subscription) Close() error {
	s.endOnce.Do(func() { close(s.ended) })
	return nil
}
