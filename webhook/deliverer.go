package webhook

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

// Schedule is how long a delivery waits after each failed attempt. After one more
// failure it is given up.
var Schedule = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}

const (
	mostAtOnce      = 64                 // attempts of this process at the same time
	mostOfOwner     = 4                  // of one owner: slow receivers of one owner must not delay others
	mostInTurn      = 50                 // deliveries of one webhook before others have a turn
	turnTime        = time.Second        // after this time a turn ends with the present attempt
	restAfter       = 3                  // failures of a webhook in a row before it rests
	restMost        = 60                 // times the first pause of the schedule: the first rest is one such pause, and each later one is twice the one before
	disableAfter    = 3 * 24 * time.Hour // of failures only, and at least as many as one delivery may have: the machine may have been asleep
	lookEvery       = time.Second
	pruneEvery      = 10 * time.Minute
	measureEvery    = 5 * time.Second
	jitter          = 5 // a fifth more or less
	readyMost       = 500
	disablePatience = 10 * time.Second
)

// Options configure a deliverer. Show and Disable are required.
type Options struct {
	Keys      Keys
	Networks  Networks
	AllowHTTP bool           // URLs may be http
	RootCAs   *x509.CertPool // authorities for receivers; nil: the system's
	Version   string         // of this program, for the User-Agent header

	// Show gives a record in the form of the audit, as the owner of an endpoint may see it.
	Show func(domain.Record, Endpoint) (any, error)
	// Disable disables a webhook, with a reason for people.
	Disable func(ctx context.Context, webhook int64, reason string) error

	Schedule []time.Duration // nil: [Schedule]
	Timeout  time.Duration   // of an attempt; 0: 10 s
	Metrics  *Metrics        // nil: nothing is published
	Logger   *slog.Logger    // nil: nothing is logged
	Clock    func() time.Time
}

// Deliverer turns records into deliveries and sends them.
type Deliverer struct {
	store   Store
	log     Log
	options Options
	sender  *sender
	metrics *Metrics
	logger  *slog.Logger
	kicked  chan struct{} // there may be something to send, or a free place

	position atomic.Int64 // records up to this position have become deliveries

	mu     sync.Mutex
	busy   map[int64]bool // guarded by mu; webhooks with an attempt under way
	owners map[int64]int  // guarded by mu; attempts under way by owner
}

// NewDeliverer makes a deliverer over a store and a log.
func NewDeliverer(store Store, log Log, o Options) *Deliverer {
	if o.Schedule == nil {
		o.Schedule = Schedule
	}
	if o.Timeout == 0 {
		o.Timeout = attemptTimeout
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Deliverer{store: store, log: log, options: o, sender: newSender(o), metrics: o.Metrics, logger: o.Logger,
		kicked: make(chan struct{}, 1), busy: map[int64]bool{}, owners: map[int64]int{}}
}

func (d *Deliverer) now() time.Time { return d.options.Clock().UTC() }

// kick makes the deliverer look for something to send.
func (d *Deliverer) kick() {
	select {
	case d.kicked <- struct{}{}:
	default:
	}
}

// Run follows the log and delivers until ctx ends, which is not an error. It cancels
// the attempts that are under way then; the next deliverer makes them again.
func (d *Deliverer) Run(ctx context.Context) error {
	defer d.sender.close()
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { d.follow(ctx) })
	parts.Go(func() { d.tend(ctx) })
	look := time.NewTicker(min(lookEvery, d.options.Schedule[0]))
	defer look.Stop()
	for failing := false; ; {
		err := d.dispatch(ctx, &parts)
		if err != nil && ctx.Err() == nil && !failing {
			d.logger.Warn("cannot look for deliveries, trying again", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		case <-d.kicked:
			if failing {
				wait.For(ctx, lookEvery)
			}
		}
	}
}

// dispatch begins to send to the webhooks that have something to send.
func (d *Deliverer) dispatch(ctx context.Context, parts *sync.WaitGroup) error {
	ready, err := d.store.Ready(ctx, d.now(), readyMost)
	if err != nil {
		return err
	}
	d.sortByPlaces(ready)
	for _, r := range ready {
		if !d.begin(r) {
			continue
		}
		parts.Go(func() {
			more := d.turn(ctx, r.Webhook)
			d.end(r)
			if more {
				d.kick()
			}
		})
	}
	return nil
}

// sortByPlaces puts the webhooks first whose owners use the fewest places. Deliveries
// to slow receivers have waited longest: in order of time alone, enough of them would
// take every free place.
func (d *Deliverer) sortByPlaces(ready []Ready) {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.SortStableFunc(ready, func(a, b Ready) int { return cmp.Compare(d.owners[a.Owner], d.owners[b.Owner]) })
}

func (d *Deliverer) begin(r Ready) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[r.Webhook] || len(d.busy) >= mostAtOnce || d.owners[r.Owner] >= mostOfOwner {
		return false
	}
	d.busy[r.Webhook] = true
	d.owners[r.Owner]++
	return true
}

func (d *Deliverer) end(r Ready) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.busy, r.Webhook)
	if d.owners[r.Owner]--; d.owners[r.Owner] == 0 {
		delete(d.owners, r.Owner)
	}
}

// turn sends the due deliveries of one webhook, and reports whether there may be more.
func (d *Deliverer) turn(ctx context.Context, webhook int64) (more bool) {
	began := time.Now()
	for n := 0; n < mostInTurn && time.Since(began) < turnTime; n++ {
		due, ok, err := d.store.Next(ctx, webhook, d.now())
		if err == nil && ok {
			err = d.deliver(ctx, due)
		}
		switch {
		case ctx.Err() != nil:
			return false
		case errors.Is(err, ErrMoved):
			return true // another process sends to it, or has sent
		case err != nil:
			d.logger.Warn("cannot deliver to a webhook, trying again", "webhook", webhook, "error", err)
			wait.For(ctx, lookEvery)
			return true
		case !ok:
			// A place is free, and another webhook may wait for it.
			return true
		}
	}
	return true
}

// deliver makes one attempt and stores its result.
func (d *Deliverer) deliver(ctx context.Context, due Due) error {
	body, err := d.payload(ctx, due)
	for _, why := range []error{errHidden, errMissing, errUnshown} {
		if errors.Is(err, why) {
			return d.giveUp(ctx, due, why, err)
		}
	}
	if err != nil {
		return err
	}
	began := d.now()
	a := d.sender.send(ctx, due.Endpoint, due.Message, began, body)
	if ctx.Err() != nil {
		return ctx.Err() // the attempt was cancelled by this process
	}
	o := d.outcome(due, a, began)
	if err := d.store.Finish(ctx, o); err != nil {
		return err
	}
	d.count(o, a)
	switch {
	case a.code == http.StatusGone:
		d.disable(ctx, due.Webhook, "gone", "The receiver answered 410 Gone.")
	case !a.ok() && o.Attempted.Sub(o.Failing.Since) >= disableAfter && o.Failing.Times > len(d.options.Schedule):
		d.disable(ctx, due.Webhook, "failing", "The receiver has accepted nothing for three days. The last error: "+a.err+".")
	}
	return nil
}

// giveUp stores that a delivery cannot be sent. The owner gets the reason, and the log
// of this program gets the whole error.
func (d *Deliverer) giveUp(ctx context.Context, due Due, why, err error) error {
	if !errors.Is(why, errHidden) {
		d.logger.Warn("gave up a delivery", "webhook", due.Webhook, "position", int64(due.Position), "error", err)
	}
	o := Outcome{Delivery: due.Delivery, Failing: due.Failing}
	o.Attempts++
	o.Status, o.Error, o.Attempted = Failed, why.Error(), d.now()
	return d.store.Finish(ctx, o)
}

// outcome decides what follows from an attempt.
func (d *Deliverer) outcome(due Due, a attempt, began time.Time) Outcome {
	o := Outcome{Delivery: due.Delivery}
	o.Attempts++
	o.Attempted, o.Took, o.Code, o.Error = began, a.took, a.code, a.err
	if a.ok() {
		o.Status, o.NextAt = Delivered, began
		return o
	}
	now := d.now()
	o.Failures++
	o.Failing = Failing{Times: due.Failing.Times + 1, Since: due.Failing.Since}
	if o.Failing.Since.IsZero() {
		o.Failing.Since = began
	}
	if over := o.Failing.Times - restAfter; over >= 0 {
		o.Failing.Rest = now.Add(varied(d.options.Schedule[0] * time.Duration(min(1<<min(over, 20), restMost))))
	}
	if a.after > 0 {
		o.Failing.Rest = now.Add(a.after) // the receiver asked for this, whatever was to be sent
	}
	if a.code == http.StatusGone {
		o.Failing.Rest = now.Add(d.options.Schedule[0] * restMost) // until it is disabled
	}
	if o.Failures > len(d.options.Schedule) {
		o.Status = Failed
		return o
	}
	o.NextAt = now.Add(max(varied(d.options.Schedule[o.Failures-1]), a.after))
	return o
}

// varied makes a time a little longer or shorter, so that deliveries that failed at the
// same moment are not tried again at the same moment.
func varied(t time.Duration) time.Duration {
	if t <= 0 {
		return 0
	}
	return t - t/jitter + rand.N(2*t/jitter+1)
}

func (d *Deliverer) count(o Outcome, a attempt) {
	kind := a.kind
	if a.ok() {
		kind = "delivered"
	}
	d.metrics.attempts.WithLabelValues(kind).Inc()
	d.metrics.seconds.Observe(a.took.Seconds())
	if o.Status != Pending {
		d.metrics.deliveries.WithLabelValues(string(o.Status)).Inc()
	}
}

// disable disables a webhook, which its owner can see. Waiting deliveries still wait.
func (d *Deliverer) disable(ctx context.Context, webhook int64, kind, reason string) {
	ctx, cancel := context.WithTimeout(ctx, disablePatience)
	defer cancel()
	if err := d.options.Disable(ctx, webhook, reason); err != nil {
		d.logger.Warn("cannot disable a webhook, trying again with its next failure", "webhook", webhook, "why", kind, "error", err)
		return
	}
	d.metrics.disabled.WithLabelValues(kind).Inc()
	d.logger.Info("disabled a webhook", "webhook", webhook, "why", kind)
}

// tend deletes old deliveries, and measures.
func (d *Deliverer) tend(ctx context.Context) {
	measure, prune := time.NewTicker(measureEvery), time.NewTicker(pruneEvery)
	defer measure.Stop()
	defer prune.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-measure.C:
			d.measure(ctx)
		case <-prune.C:
			if err := d.prune(ctx); err != nil && ctx.Err() == nil {
				d.logger.Warn("cannot prune deliveries", "error", err)
			}
		}
	}
}

func (d *Deliverer) measure(ctx context.Context) {
	// A number that cannot be read now keeps its last value; other parts report that
	// the store cannot be read.
	if n, err := d.store.Waiting(ctx); err == nil {
		d.metrics.pending.Set(float64(n))
	}
	head, err := d.head(ctx)
	if err != nil {
		return
	}
	d.metrics.lag.Set(float64(max(int64(head)-d.position.Load(), 0)))
}

func (d *Deliverer) prune(ctx context.Context) error {
	crowded, err := d.store.Crowded(ctx, MaxWaiting)
	for _, webhook := range crowded {
		d.disable(ctx, webhook, "crowded", "Too many deliveries wait for it: the receiver accepts fewer events than happen.")
	}
	return errors.Join(err, d.store.Prune(ctx, d.now()))
}
