package eventstore

import (
	"errors"
	"fmt"

	"github.com/tunnox-net/tunnox/domain"
)

// round is one batch of the decider. Until the append is acknowledged, decided states
// are only in planned; the cache never holds them.
type round struct {
	cache   *cache // guarded by Executor.mu, held while deciding and promoting
	planned map[domain.StreamID]*plannedStream
	appends []Append
	decided []decided // one for each append
	held    []decided // refusals and no-changes that depend on planned streams
	left    []*task   // not decided because the batch is full
	results []Result
	bytes   int
}

// plannedStream is an event stream as it will be if the appends that write it succeed.
type plannedStream struct {
	folded
	writers []int // indexes of appends
}

// decided is a task with the answer that it gets if the round succeeds.
type decided struct {
	*task
	answer answer
}

// at gives a stream as the commands before this one leave it.
func (r *round) at(t *task, id domain.StreamID) (f folded, planned, ok bool) {
	if p, ok := r.planned[id]; ok {
		return p.folded, true, true
	}
	// The task keeps the states that its caller read. The cache may drop them before
	// the task is decided again, and a command that reads more streams than the cache
	// holds would be decided again for ever.
	if carried, ok := t.carried[id]; ok {
		r.cache.put(id, carried)
	}
	f, ok = r.cache.get(id)
	return f, false, ok && f.version >= t.least[id]
}

// decide decides a task, plans its append or answers it.
func (r *round) decide(t *task) {
	var states domain.States
	var decision domain.Decision
	var planned bool
	for {
		var missing []domain.StreamID
		if states, planned, missing = r.states(t); len(missing) > 0 {
			t.answer <- answer{next: stepLoad, load: missing}
			return
		}
		var err error
		decision, err = t.sub.Command.Decide(states)
		if err == nil {
			err = r.checkExpected(t)
		}
		if need, ok := errors.AsType[*domain.NeedStreams](err); ok && !haveAll(states, need.Streams) {
			t.streams = append(t.streams, need.Streams...)
			t.fresh = false // these may come from the cache
			continue
		}
		if err != nil {
			r.hold(t, planned, answer{err: err})
			return
		}
		break
	}
	if len(decision.Changes) == 0 {
		r.hold(t, planned, answer{next: stepHead, receipt: r.receipt(t)})
		return
	}
	if err := r.plan(t, decision); err != nil {
		t.answer <- answer{err: err}
	}
}

func haveAll(states domain.States, streams []domain.StreamID) bool {
	for _, id := range streams {
		if _, ok := states[id]; !ok {
			return false
		}
	}
	return true
}

// states collects what the task reads.
func (r *round) states(t *task) (states domain.States, planned bool, missing []domain.StreamID) {
	states = make(domain.States, len(t.streams))
	for _, id := range t.streams {
		f, isPlanned, ok := r.at(t, id)
		if !ok {
			missing = append(missing, id)
			continue
		}
		states[id] = f.state
		planned = planned || isPlanned
	}
	return states, planned, missing
}

// checkExpected checks the If-Match of the subject.
func (r *round) checkExpected(t *task) error {
	if t.sub.Expect == nil {
		return nil
	}
	f, _, _ := r.at(t, t.sub.Command.Subject())
	if f.version == *t.sub.Expect {
		return nil
	}
	return versionConflict(f.version, *t.sub.Expect)
}

func versionConflict(is, expected domain.Version) error {
	return &domain.Error{Code: domain.CodeVersionConflict,
		Message: fmt.Sprintf("It is at version %d, not %d: somebody changed it.", is, expected)}
}

// hold answers a task that writes nothing: at once if the answer is certain, otherwise
// at the end of the round.
func (r *round) hold(t *task, planned bool, a answer) {
	switch {
	case planned:
		r.held = append(r.held, decided{t, a})
	case t.fresh:
		t.answer <- a
	default:
		t.answer <- answer{next: stepCheck}
	}
}

// receipt gives the task's receipt, as far as it is known before the append.
func (r *round) receipt(t *task) domain.Receipt {
	subject := t.sub.Command.Subject()
	f, _, _ := r.at(t, subject)
	return domain.Receipt{Subject: subject, Version: f.version, State: f.state.Clone()}
}

// plan adds the decision to the batch, with every stream that the task has read as
// expected: written streams and guards alike.
func (r *round) plan(t *task, d domain.Decision) error {
	a := Append{Account: d.Account, Meta: t.sub.Meta, Releases: d.Releases, Claims: d.Claims,
		Key: t.sub.Key, KeyScope: t.sub.KeyScope, Hash: t.sub.Hash, Subject: t.sub.Command.Subject()}
	a.Meta = a.meta()
	a.Meta.Command = t.sub.Command.CommandName()
	if a.Account == 0 {
		a.Account = t.sub.Command.Account()
	}
	index := map[domain.StreamID]int{}
	for _, id := range t.streams {
		if _, twice := index[id]; twice {
			continue
		}
		f, _, _ := r.at(t, id)
		index[id] = len(a.Streams)
		a.Streams = append(a.Streams, StreamAppend{Stream: id, Expected: f.version})
	}
	events := make([]domain.Event, len(d.Changes))
	for i, c := range d.Changes {
		stream, read := index[c.Stream]
		if !read {
			return fmt.Errorf("command %s writes event stream %s without reading it", a.Meta.Command, c.Stream)
		}
		name, schema, data, err := domain.Encode(c.Event)
		if err == nil {
			// Apply the event that will be read back, not the event that was encoded:
			// the state must be the exact fold of the log.
			events[i], err = domain.Decode(name, schema, data)
		}
		if err != nil {
			return fmt.Errorf("command %s: %w", a.Meta.Command, err)
		}
		a.Events = append(a.Events, NewEvent{Stream: stream, Owner: c.Owner, Name: name, Schema: schema, Data: data})
		r.bytes += len(data)
	}
	for _, id := range d.Closes {
		if stream, read := index[id]; read {
			a.Streams[stream].Close = a.writes(stream)
		}
	}
	for i, c := range d.Changes {
		p := r.write(c.Stream)
		p.state.Apply(events[i], a.Meta.At)
		p.version++
	}
	r.appends = append(r.appends, a)
	r.decided = append(r.decided, decided{t, answer{receipt: r.receipt(t)}})
	return nil
}

// write gives the planned stream for the next append. The state is cloned once in a
// round, not for each command: a quota may hold thousands of entries.
func (r *round) write(id domain.StreamID) *plannedStream {
	p, ok := r.planned[id]
	if !ok {
		f, _ := r.cache.get(id)
		p = &plannedStream{folded: folded{state: f.state.Clone(), version: f.version}}
		r.planned[id] = p
	}
	if n := len(r.appends); len(p.writers) == 0 || p.writers[len(p.writers)-1] != n {
		p.writers = append(p.writers, n)
	}
	return p
}

// promote moves successful plans to the cache. If one planned append on a stream
// failed, the stream's planned state is wrong; its older state stays in the cache.
func (r *round) promote(c *cache) {
	for id, p := range r.planned {
		written := true
		for _, i := range p.writers {
			written = written && r.written(i)
		}
		if written {
			c.put(id, p.folded)
		}
	}
}

func (r *round) written(i int) bool { return r.results[i].Err == nil && !r.results[i].Duplicate }

// settle answers the tasks and returns those to decide again: the held answers that
// depend on a plan that failed.
func (r *round) settle() (again []*task) {
	asPlanned := true
	for i, d := range r.decided {
		asPlanned = asPlanned && r.written(i)
		d.task.answer <- d.outcome(r.results[i])
	}
	for _, h := range r.held {
		switch {
		case !asPlanned:
			again = append(again, h.task)
		case h.fresh:
			h.task.answer <- h.answer
		default:
			h.task.answer <- answer{next: stepCheck}
		}
	}
	return again
}

// fail answers all tasks when the outcome of the batch is not known.
func (r *round) fail(err error) {
	for _, d := range r.decided {
		d.task.answer <- answer{err: err}
	}
	for _, h := range r.held {
		h.task.answer <- answer{err: err}
	}
}

// outcome gives the answer for the store's result.
func (d decided) outcome(result Result) answer {
	if result.Duplicate {
		return answer{next: stepDuplicate, use: KeyUse{Hash: d.sub.Hash, First: result.First, Last: result.Last, Subject: result.Subject}}
	}
	taken, isTaken := errors.AsType[*TakenError](result.Err)
	switch {
	case result.Err == nil:
		a := d.answer
		a.receipt.Position, a.receipt.Records = result.Last, result.Records
		return a
	case errors.Is(result.Err, ErrConflict), errors.Is(result.Err, ErrClosed):
		// The command cannot have read the closed stream in its present state. When it
		// is decided again, it finds that its subject has ended.
		return answer{next: stepConflict}
	case isTaken:
		return answer{err: claimRefusal(taken.Claim)}
	case errors.Is(result.Err, ErrKeyReused):
		return answer{err: keyReused()}
	case errors.Is(result.Err, ErrMalformed):
		return answer{err: fmt.Errorf("%w: %w", &domain.Error{Code: domain.CodeInvalid, Message: "The log cannot store this."}, result.Err)}
	}
	return answer{err: result.Err}
}
