package forwarder

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/wire"
)

const (
	reserveTime  = 500 * time.Millisecond // for one call
	reserveAfter = time.Second            // pause after a failed call, before the directory is asked again
	// Unused connections are given back after idlePortion, which is checked every
	// portionTick, and at once when another forwarder wants them: a stream waits
	// portionWait for that.
	idlePortion = time.Second
	portionTick = directory.Settle / 6
	portionWait = 300 * time.Millisecond
	// settleWait is how long a stream waits when the directory has lost its data.
	settleWait = directory.Settle + time.Second
	// The pause between two calls for a mapping that gets no more.
	minPortionPause, maxPortionPause = 20 * time.Millisecond, 100 * time.Millisecond
	renewPortion                     = directory.PortionKept / 3
	reviewPortion                    = 5 * time.Second // the same for a portion that is not all used: it may be too large by now
	portionCalls                     = 16              // at the same time, when many portions are reported
)

// portions keep the limits of connections for each mapping, together with other
// forwarders.
//
// For a mapping with a limit this forwarder holds a portion of it. It reserves the
// portion in the directory in blocks, and accepts streams within it without asking. So
// a limit is exact while the directory answers, and costs a call from time to time.
//
// A portion is used only as long as this node's lease lives: afterwards others may have
// got it. Without the directory this forwarder uses what it holds, or an even part of
// the limit if that is more.
type portions struct {
	ctx       context.Context // ends with the forwarder
	directory directory.Portions
	node, run string
	nodes     func() int // the known number of nodes
	now       func() time.Time
	metrics   *Metrics
	log       *slog.Logger
	beat      chan struct{} // this node must prolong its lease at once
	wanted    chan int64    // mappings of which others need more
	soon      chan struct{} // a portion must be reported at once

	mu       sync.Mutex // guards all below, and the fields held and over of forwards
	of       map[int64]*portion
	until    time.Time // when the lease of this node ends
	since    string    // the time since which the directory knows all portions
	failed   time.Time // when it last did not answer; zero = it did
	sequence int64
}

// portion is what this forwarder holds of a mapping's connections.
type portion struct {
	mapping int64
	limit   int64
	held    int64
	used    int64         // by streams; more than held if the directory was away
	waiting int64         // streams that wait for a place
	asking  chan struct{} // closed when the call under way ends; nil: there is none
	taken   time.Time     // the last time a stream got a place
	told    time.Time     // when the directory was last told
	stale   bool          // the directory may have an older value
	lost    bool          // the unused part belongs to others
	next    time.Time     // no further call before that
	pause   time.Duration // the last pause, before next
	settles bool          // the directory has lost its data, and gives nobody more
}

func newPortions(f *Forwarder, d directory.Portions) *portions {
	if d == nil {
		return nil
	}
	return &portions{ctx: f.ctx, directory: d, node: f.node, run: f.run, nodes: f.neighbours.count, now: f.now, metrics: f.metrics,
		log: f.log, beat: make(chan struct{}, 1), wanted: make(chan int64, 64),
		soon: make(chan struct{}, 1), of: map[int64]*portion{}}
}

// portion gives the portion of a mapping. The caller holds the lock.
func (h *portions) portion(mapping int64) *portion {
	s := h.of[mapping]
	if s == nil {
		s = &portion{mapping: mapping, pause: minPortionPause}
		h.of[mapping] = s
	}
	return s
}

// bound sets the limit. Unused places under a higher limit do not belong to this
// forwarder any more: others know the new limit, and reserve under it.
func (s *portion) bound(limit int64) {
	if limit < s.limit {
		s.lost, s.stale = true, true
	}
	s.limit = limit
}

// block gives how much to reserve for the waiting streams: more than they need, so that
// the next stream need not ask, but only a small part of a small limit.
func (s *portion) block() int64 {
	more := max(1, min(s.limit/8, 16))
	return max(s.held, min(s.limit, s.used+s.waiting+more-1))
}

// spare keeps the places in use and those for waiting streams, and reports whether that
// is less than before.
func (s *portion) spare() bool {
	keep := s.used + s.waiting
	if s.held <= keep {
		return false
	}
	s.held = keep
	return true
}

// take gives a stream a place under the limit, or the code with which it is refused.
func (h *portions) take(ctx context.Context, f *forward) wire.Code {
	if h == nil || f.limit < 0 {
		return ""
	}
	began := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.portion(f.mapping.meter.mapping)
	s.bound(f.limit)
	s.waiting++
	defer func() { s.waiting-- }()
	for {
		now := h.now()
		h.doubt(s, now)
		var pause <-chan time.Time
		stop := func() bool { return false }
		var asking <-chan struct{}
		switch {
		case f.over: // the stream has ended
			return ""
		case s.used < min(s.held, s.limit), h.away(now) && h.alone(s, f, now):
			h.hold(s, f, now)
			return ""
		case s.used >= s.limit, h.away(now):
			return wire.QuotaConnections
		case s.asking != nil:
			asking = s.asking
		case now.Before(s.next):
			patience := portionWait
			if s.settles {
				patience = settleWait
			}
			if s.next.Sub(began) > patience {
				return wire.QuotaConnections
			}
			timer := time.NewTimer(s.next.Sub(now))
			pause, stop = timer.C, timer.Stop
		default:
			h.ask(h.ctx, s, s.block())
			continue
		}
		h.mu.Unlock()
		select {
		case <-asking:
		case <-pause:
		case <-ctx.Done():
		}
		stop()
		h.mu.Lock()
		if ctx.Err() != nil {
			return wire.QuotaConnections
		}
	}
}

// doubt drops the part that others may have got. The caller holds the lock, also for
// the methods below.
func (h *portions) doubt(s *portion, now time.Time) {
	if s.lost || !now.Before(h.until) {
		s.held = min(s.held, s.used)
	}
}

// hold gives a stream its place.
func (h *portions) hold(s *portion, f *forward, now time.Time) {
	f.held = true
	s.used++
	s.taken = now
}

// away reports whether the directory did not answer a moment ago.
func (h *portions) away(now time.Time) bool {
	return !h.failed.IsZero() && now.Sub(h.failed) < reserveAfter
}

// alone decides without the directory: within what is held, or an even part of the
// limit if that is more, and never beyond what the reports of others leave.
func (h *portions) alone(s *portion, f *forward, now time.Time) bool {
	n := int64(max(1, h.nodes()))
	return s.used < min(s.limit, max(s.held, (s.limit+n-1)/n)) && s.used+f.mapping.meter.away(now) < s.limit
}

// give frees the place of a stream that has ended. The stream may not have had one.
func (h *portions) give(mapping int64, f *forward) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.over = true
	if f.held {
		f.held = false
		h.portion(mapping).used--
	}
}

// adopt gives a place to streams that are open already when their mapping gets a limit,
// whatever the limit is.
func (h *portions) adopt(mapping, limit int64, open []*forward) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range open {
		s := h.portion(mapping)
		s.limit, s.stale = limit, true
		if !f.held && !f.over {
			h.hold(s, f, h.now())
		}
	}
	signal(h.soon)
}

// ask reserves. The held part can be used during the call; only one call for a mapping
// is under way. The caller holds the lock; ask releases it for the call.
func (h *portions) ask(ctx context.Context, s *portion, want int64) {
	h.doubt(s, h.now())
	h.sequence++
	s.held = max(s.held, s.used)
	c := directory.Portion{Mapping: s.mapping, Node: h.node, Run: h.run, Sequence: h.sequence, Held: s.held, Want: max(want, s.held), Limit: s.limit}
	done, lost := make(chan struct{}), s.lost
	s.asking, s.lost, s.stale = done, false, false // from here on either may become true again
	h.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, reserveTime)
	g, err := h.directory.Reserve(bounded, c)
	cancel()
	h.mu.Lock()
	s.asking = nil
	close(done)
	now := h.now()
	s.lost = s.lost || lost && err != nil
	switch {
	case errors.Is(err, directory.ErrNoLease):
		signal(h.beat)
		h.answers(nil)
		s.stale, s.settles, s.pause = true, true, maxPortionPause
		s.next = now.Add(s.pause)
		return
	case err != nil:
		s.stale = true
		if ctx.Err() == nil {
			h.answers(err)
		}
		return
	}
	h.answers(nil)
	h.learned(g.Since)
	s.told, s.stale, s.settles = now, false, !g.Settled
	if s.lost { // during the call
		s.stale = true
	} else {
		s.held, s.lost = g.Held, g.Over
	}
	if s.pause = min(2*s.pause, maxPortionPause); g.Held >= c.Want {
		s.pause = minPortionPause
		h.metrics.portions.WithLabelValues("granted").Inc()
		return
	}
	h.metrics.portions.WithLabelValues("refused").Inc()
	s.next = now.Add(s.pause)
}

// answers says whether the directory answers. A change is logged.
func (h *portions) answers(err error) {
	if err == nil {
		if !h.failed.IsZero() {
			h.log.Info("limits of connections are divided among the forwarders again")
		}
		h.failed = time.Time{}
		return
	}
	h.metrics.portions.WithLabelValues("failed").Inc()
	if h.failed.IsZero() {
		h.log.Warn("limits of connections cannot be divided among the forwarders; this one uses what it holds or an even part", "error", err)
	}
	h.failed = h.now()
}

// learned sets the time since which the directory knows all portions: portions reported
// before it are reported again.
func (h *portions) learned(since string) {
	if h.since != "" && h.since != since {
		for _, s := range h.of {
			s.stale = true
		}
	}
	h.since = since
}

// leased says that this node's lease was prolonged, by a call that began then.
func (h *portions) leased(began time.Time, known bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !known {
		for _, s := range h.of {
			s.stale = true
			// A lease that did not expire by this side's clock was flushed. Then nobody
			// gets anything until this side has reported what it holds.
			s.lost = s.lost || !began.Before(h.until)
		}
	}
	h.until = began.Add(directory.TTL)
}

// yield says that another forwarder needs unused connections of a mapping.
func (h *portions) yield(mapping int64) {
	if h == nil {
		return
	}
	select {
	case h.wanted <- mapping:
	default: // the other will ask again, and unused connections are given back anyway
	}
}

// keep gives back unused connections, and reports again what the directory has lost,
// until ctx ends.
func (h *portions) keep(ctx context.Context) {
	tick := time.NewTicker(portionTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.look(ctx)
		case <-h.soon:
			h.look(ctx)
		case mapping := <-h.wanted:
			h.mu.Lock()
			if s := h.of[mapping]; s != nil && s.asking == nil && s.spare() {
				h.ask(ctx, s, s.held)
			}
			h.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// look does what is due for all portions.
func (h *portions) look(ctx context.Context) {
	h.mu.Lock()
	none := len(h.of) == 0
	h.mu.Unlock()
	if none {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, reserveTime)
	since, err := h.directory.Since(bounded)
	cancel()
	if err != nil {
		return // a stream that needs it will notice
	}
	h.tell(ctx, h.due(since))
}

// wish is a portion and the number to ask for.
type wish struct {
	*portion
	want int64
}

// due lists the portions to report to the directory, and drops empty ones.
func (h *portions) due(since string) (due []wish) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.learned(since)
	now := h.now()
	for mapping, s := range h.of {
		held, idle := s.held, now.Sub(s.taken) >= idlePortion
		switch {
		case s.asking != nil:
		case idle && s.spare(), s.stale, s.used > s.held, now.Sub(s.told) >= renewPortion:
			due = append(due, wish{s, s.held})
		case now.Sub(s.told) >= reviewPortion && s.spare():
			due = append(due, wish{s, held})
		case s.used+s.held+s.waiting == 0:
			delete(h.of, mapping)
		}
	}
	return due
}

func (h *portions) tell(ctx context.Context, due []wish) {
	var g errgroup.Group
	g.SetLimit(portionCalls)
	for _, s := range due {
		g.Go(func() error {
			h.mu.Lock()
			defer h.mu.Unlock()
			if s.asking == nil && ctx.Err() == nil {
				h.ask(ctx, s.portion, s.want)
			}
			return nil
		})
	}
	_ = g.Wait() // there are no errors: a portion without an answer is reported again
}

// finish gives everything back, when no stream is left.
func (h *portions) finish() {
	if h == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), finalReport)
	defer cancel()
	h.mu.Lock()
	var all []wish
	for _, s := range h.of {
		s.held = 0
		all = append(all, wish{s, 0})
	}
	h.mu.Unlock()
	h.tell(ctx, all)
}
