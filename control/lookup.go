package control

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Remote is the State service; [Client] is one. Clients gives many views in one call.
type Remote interface {
	Clients(ctx context.Context, wants []Want) (map[int64]Answer, error)
	IngressView(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error)
}

// LookupConfig says where views are looked for. At least one of ReadModel and
// Remote is required; the zero value of each other field is its default.
type LookupConfig struct {
	// ReadModel is asked second, after the memory.
	ReadModel Views
	// ReadModelWait bounds how long it is waited for before the control plane is
	// asked. Default 300 ms.
	ReadModelWait time.Duration
	// Remote is asked last.
	Remote Remote
	// Capacity bounds the memory, in states: a client, a mapping, a user and an
	// account's limits are one each. Default 200,000.
	Capacity int
	// MaxAge is how long a view is served from memory that no feed watches over.
	// Default 5 s.
	MaxAge time.Duration
	// Silence is how long the feed may say nothing and still watch over the memory;
	// it has heartbeats. Default 5 s.
	Silence time.Duration
	// Timeout bounds a lookup. Default 5 s.
	Timeout time.Duration
	// Calls is how many remote calls run at once; lookups that come meanwhile go
	// together in the next. Default 4.
	Calls int
	// Batch is how many clients go into one remote call. Default 100.
	Batch   int
	Now     func() time.Time
	Logger  *slog.Logger
	Metrics *ClientMetrics
}

// Lookup gives views of clients: from memory, else from the read model, else
// from the State service. What it gives is never older than was asked for.
//
// Feed it with [Lookup.Observe]: it then knows which views have changed, and can
// answer from memory what was asked for at the feed's position. Without that it
// answers from memory for some seconds only.
type Lookup struct {
	config LookupConfig
	memory *memory
	remote *remote  // nil without Remote
	calm   *circuit // in front of the read model

	life    context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool              // guarded by mu
	flights map[int64]*flight // by client; guarded by mu
}

// flight is a lookup on its way, for all who want the same.
type flight struct {
	client  int64
	min     domain.Position
	waiting int // guarded by Lookup.mu
	cancel  context.CancelFunc
	done    chan struct{} // closed when view and err are set
	view    domain.ClientView
	err     error
}

// NewLookup makes a lookup; Close ends what it has started.
func NewLookup(config LookupConfig) (*Lookup, error) {
	if config.ReadModel == nil && config.Remote == nil {
		return nil, errors.New("build lookup: nowhere to look")
	}
	config.ReadModelWait = cmp.Or(config.ReadModelWait, 300*time.Millisecond)
	config.Capacity = cmp.Or(config.Capacity, 200_000)
	config.MaxAge = cmp.Or(config.MaxAge, 5*time.Second)
	config.Silence = cmp.Or(config.Silence, 5*time.Second)
	config.Timeout = cmp.Or(config.Timeout, 5*time.Second)
	config.Calls = cmp.Or(config.Calls, 4)
	config.Batch = min(cmp.Or(config.Batch, 100), maxWants)
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Metrics == nil {
		config.Metrics = NewClientMetrics()
	}
	l := &Lookup{config: config, flights: map[int64]*flight{},
		memory: newMemory(config.Capacity, config.MaxAge, config.Silence, config.Now, config.Metrics),
		calm:   newCircuit(circuitOptions{now: config.Now, open: config.Metrics.circuits.WithLabelValues("read_model")})}
	l.life, l.end = context.WithCancel(context.Background())
	if config.Remote != nil {
		l.remote = newRemote(l.life, config)
	}
	return l, nil
}

// Close ends lookups that are on their way, and waits for them.
func (l *Lookup) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.end()
	l.running.Wait()
	if l.remote != nil {
		l.remote.wants.Close()
	}
	return nil
}

// Observe takes the records of the configuration feed, in order. A record that
// does not follow the one before is a gap: what was in memory then counts as it
// was read.
func (l *Lookup) Observe(record domain.Record) { l.memory.observe(record) }

// Reached is for a position of the feed without a record.
func (l *Lookup) Reached(p domain.Position) { l.memory.reached(p) }

// Lost is for a feed that ended or has a gap. Nothing watches over what is in
// memory until the feed is followed again.
func (l *Lookup) Lost() { l.memory.lost() }

// Forget is for a feed of another log: what is in memory may be in none.
func (l *Lookup) Forget() { l.memory.clear() }

var errLookupClosed = errors.New("control: lookup is closed")

// ClientView gives all that is needed to serve a client, not older than min. A
// client that does not exist is a [domain.CodeClientNotFound], and that is the
// control plane's word: a read model that does not have it may have been flushed.
func (l *Lookup) ClientView(ctx context.Context, clientID int64, min domain.Position) (domain.ClientView, error) {
	if v, ok := l.memory.get(clientID, min, false); ok {
		l.config.Metrics.lookups.WithLabelValues("memory").Inc()
		return v, nil
	}
	l.config.Metrics.misses.WithLabelValues("memory", "absent").Inc()
	f, err := l.board(clientID, min)
	if err != nil {
		return domain.ClientView{}, err
	}
	select {
	case <-f.done:
		if f.err != nil {
			return domain.ClientView{}, f.err
		}
		return cloneView(f.view), nil
	case <-ctx.Done():
		l.leave(f)
		return domain.ClientView{}, ctx.Err()
	}
}

// board joins a flight that brings what is wanted, or starts one. A flight that
// began for an older position may bring too old a view.
func (l *Lookup) board(clientID int64, min domain.Position) (*flight, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errLookupClosed
	}
	if f := l.flights[clientID]; f != nil && f.min >= min {
		f.waiting++
		l.config.Metrics.joined.Inc()
		return f, nil
	}
	ctx, cancel := context.WithTimeout(l.life, l.config.Timeout)
	f := &flight{client: clientID, min: min, waiting: 1, cancel: cancel, done: make(chan struct{})}
	l.flights[clientID] = f
	l.running.Go(func() {
		defer cancel()
		l.fly(ctx, f)
	})
	return f, nil
}

// leave ends a flight that nobody waits for any more.
func (l *Lookup) leave(f *flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		l.land(f)
		f.cancel()
	}
}

// land takes a flight off the board. The lock is held.
func (l *Lookup) land(f *flight) {
	if l.flights[f.client] == f {
		delete(l.flights, f.client)
	}
}

func (l *Lookup) fly(ctx context.Context, f *flight) {
	var level string
	f.view, level, f.err = l.find(ctx, f.client, f.min)
	if f.err == nil {
		l.config.Metrics.lookups.WithLabelValues(level).Inc()
		if level != "memory_old" {
			l.memory.put(f.view)
		}
	}
	l.mu.Lock()
	l.land(f)
	l.mu.Unlock()
	close(f.done)
}

// find goes through the levels behind the memory.
func (l *Lookup) find(ctx context.Context, clientID int64, min domain.Position) (v domain.ClientView, level string, err error) {
	if l.config.ReadModel != nil {
		if v, err = l.readModel(ctx, clientID, min); err == nil {
			return v, "read_model", nil
		}
		if l.remote == nil {
			return v, "", l.known(clientID, min, &v, &level, err)
		}
	}
	v, err = l.remote.ask(ctx, Want{ClientID: clientID, Min: min})
	switch {
	case err == nil && v.Position >= min:
		return lean(v), "state", nil
	case err == nil:
		err = unreachable(errors.New("it gave a view that is too old"))
	case domain.CodeOf(err) == domain.CodeClientNotFound:
		l.memory.drop(clientID)
		l.config.Metrics.misses.WithLabelValues("state", "not_found").Inc()
		return v, "", err
	}
	l.config.Metrics.misses.WithLabelValues("state", "away").Inc()
	err = l.known(clientID, min, &v, &level, err)
	return v, level, err
}

// known is the last resort when nobody answers: what is in memory, however long
// ago it was read, as long as nothing newer is asked for.
func (l *Lookup) known(clientID int64, min domain.Position, v *domain.ClientView, level *string, err error) error {
	if domain.CodeOf(err) == domain.CodeClientNotFound {
		return err
	}
	known, ok := l.memory.get(clientID, min, true)
	if !ok {
		return err
	}
	*v, *level = known, "memory_old"
	return nil
}

// readModel asks the read model, when it answers at all these days.
func (l *Lookup) readModel(ctx context.Context, clientID int64, min domain.Position) (domain.ClientView, error) {
	miss := func(reason string, err error) (domain.ClientView, error) {
		l.config.Metrics.misses.WithLabelValues("read_model", reason).Inc()
		return domain.ClientView{}, err
	}
	if !l.calm.allow() {
		return miss("circuit", unreachable(errCircuit))
	}
	bounded, cancel := context.WithTimeout(ctx, l.config.ReadModelWait)
	defer cancel()
	v, err := l.config.ReadModel.ClientView(bounded, clientID, min)
	if err != nil && ctx.Err() != nil {
		l.calm.abandon()
		return domain.ClientView{}, ctx.Err()
	}
	l.calm.report(err == nil || domain.CodeOf(err) != "")
	switch {
	case err == nil && (v.Client.State.Live() || v.Client.State.ClaimedAs != 0) && v.Position >= min:
		return lean(v), nil
	case err == nil && v.Position < min:
		return miss("behind", unreachable(errors.New("the read model is behind")))
	case err == nil, domain.CodeOf(err) == domain.CodeClientNotFound:
		return miss("not_found", noSuchClient())
	}
	return miss("away", err)
}
