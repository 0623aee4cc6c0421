package httpapi_test

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// memoryLog is an executor, a history and a projector's log in one: the shortest
// code that keeps what their contracts promise. What stores really do is tested
// where they are.
type memoryLog struct {
	mu      sync.Mutex
	moved   chan struct{}
	records []domain.Record
	streams map[domain.StreamID]int
	claims  map[[2]string]domain.StreamID
	keys    map[[2]string]use
	next    map[domain.Sequence]int64

	broken error            // returned by everything while set
	shown  int              // records a projector is shown; -1 = all
	clock  func() time.Time // nil: time.Now
}

type use struct {
	hash    [32]byte
	receipt domain.Receipt
}

func newMemoryLog() *memoryLog {
	return &memoryLog{moved: make(chan struct{}), streams: map[domain.StreamID]int{},
		claims: map[[2]string]domain.StreamID{}, keys: map[[2]string]use{}, next: map[domain.Sequence]int64{}, shown: -1}
}

// recorded gives the time of the next record: like that of the stores it never falls.
func (l *memoryLog) recorded() time.Time {
	now := time.Now()
	if l.clock != nil {
		now = l.clock()
	}
	if n := len(l.records); n > 0 && !now.After(l.records[n-1].Recorded) {
		now = l.records[n-1].Recorded.Add(time.Microsecond)
	}
	return now
}

// fail makes everything return err; nil ends that.
func (l *memoryLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = err
}

// hold keeps what is written from now on from the projector until released.
func (l *memoryLog) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown = len(l.records)
}

func (l *memoryLog) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown = -1
	l.wake()
}

func (l *memoryLog) wake() {
	close(l.moved)
	l.moved = make(chan struct{})
}

func (l *memoryLog) head() domain.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return domain.Position(len(l.records))
}

func (l *memoryLog) NextID(_ context.Context, s domain.Sequence) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return 0, l.broken
	}
	l.next[s]++
	return s.First() + l.next[s] - 1, nil
}

// Preview does the command on a copy.
func (l *memoryLog) Preview(_ context.Context, s domain.Submission) (domain.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &memoryLog{moved: make(chan struct{}), records: slices.Clone(l.records), streams: maps.Clone(l.streams),
		claims: maps.Clone(l.claims), keys: maps.Clone(l.keys), broken: l.broken}
	maps.DeleteFunc(c.claims, func(claim [2]string, _ domain.StreamID) bool { return slices.Contains(s.Untold, claim[0]) })
	r, err := c.submit(s)
	for i := range r.Records {
		r.Records[i].Position = 0
	}
	return r, err
}

func (l *memoryLog) Submit(_ context.Context, s domain.Submission) (domain.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.submit(s)
}

// submit needs mu.
func (l *memoryLog) submit(s domain.Submission) (domain.Receipt, error) {
	if l.broken != nil {
		return domain.Receipt{}, l.broken
	}
	key := [2]string{s.KeyScope, s.Key}
	if first, ok := l.keys[key]; ok && s.Key != "" {
		if first.hash != s.Hash {
			return domain.Receipt{}, &domain.Error{Code: domain.CodeIdempotencyMismatch, Message: "The key was used with another request."}
		}
		r := first.receipt
		r.Duplicate = true
		return r, nil
	}
	states := domain.States{}
	for _, id := range s.Command.Reads() {
		states[id] = l.fold(id)
	}
	d, err := s.Command.Decide(states)
	for need := (*domain.NeedStreams)(nil); errors.As(err, &need); d, err = s.Command.Decide(states) {
		for _, id := range need.Streams {
			states[id] = l.fold(id)
		}
	}
	subject := s.Command.Subject()
	if s.Expect != nil && *s.Expect != domain.Version(l.streams[subject]) && (err == nil || domain.CodeOf(err) == "") {
		return domain.Receipt{}, &domain.Error{Code: domain.CodeVersionConflict, Message: "The resource has another version."}
	}
	if err != nil {
		return domain.Receipt{}, err
	}
	r, err := l.append(s, d)
	if err == nil && s.Key != "" {
		l.keys[key] = use{s.Hash, r}
	}
	return r, err
}

func (l *memoryLog) append(s domain.Submission, d domain.Decision) (domain.Receipt, error) {
	released := map[[2]string]bool{}
	for _, c := range d.Releases {
		released[[2]string{c.Scope, c.Value}] = true
	}
	for _, c := range d.Claims {
		if _, taken := l.claims[[2]string{c.Scope, c.Value}]; taken && !released[[2]string{c.Scope, c.Value}] {
			return domain.Receipt{}, &domain.Error{Code: domain.TakenCode(c.Scope), Message: "This is taken."}
		}
	}
	for name := range released {
		delete(l.claims, name)
	}
	for _, c := range d.Claims {
		l.claims[[2]string{c.Scope, c.Value}] = c.Owner
	}
	r := domain.Receipt{Subject: s.Command.Subject()}
	for _, change := range d.Changes {
		name, schema, data, err := domain.Encode(change.Event)
		if err != nil {
			return r, err
		}
		l.streams[change.Stream]++
		record := domain.Record{Position: domain.Position(len(l.records) + 1), Stream: change.Stream,
			Version: domain.Version(l.streams[change.Stream]), Owner: d.Account, Name: name, Schema: schema, Data: data,
			Meta: s.Meta, Recorded: l.recorded()}
		rand.Read(record.ID[:])
		l.records = append(l.records, record)
		r.Records = append(r.Records, record)
	}
	r.Position, r.Version, r.State = domain.Position(len(l.records)), domain.Version(l.streams[r.Subject]), l.fold(r.Subject)
	l.wake()
	return r, nil
}

func (l *memoryLog) KeyUsed(_ context.Context, scope, key string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, used := l.keys[[2]string{scope, key}]
	return used, l.broken
}

func (l *memoryLog) Holder(_ context.Context, scope, value string) (domain.StreamID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.claims[[2]string{scope, value}], l.broken
}

func (l *memoryLog) fold(id domain.StreamID) domain.Aggregate {
	state := domain.NewAggregate(id)
	for _, r := range l.records {
		if r.Stream == id {
			if err := domain.Fold(state, []domain.Record{r}); err != nil {
				panic(err) // the test wrote what it cannot read
			}
		}
	}
	return state
}

func (l *memoryLog) ReadStream(_ context.Context, id domain.StreamID, after domain.Version, limit int) ([]domain.Record, error) {
	return l.read(limit, func(r domain.Record) bool { return r.Stream == id && r.Version > after })
}

func (l *memoryLog) ReadAll(_ context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	return l.read(limit, func(r domain.Record) bool { return r.Position > after })
}

func (l *memoryLog) read(limit int, want func(domain.Record) bool) ([]domain.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return nil, l.broken
	}
	var records []domain.Record
	for _, r := range l.records {
		if want(r) && len(records) < limit {
			records = append(records, r)
		}
	}
	return records, nil
}

func (l *memoryLog) Select(_ context.Context, q domain.Query, limit int) ([]domain.Record, error) {
	found, err := l.read(math.MaxInt, q.Selects)
	if q.Newest {
		slices.Reverse(found)
	}
	return found[:min(limit, len(found))], err
}

func (l *memoryLog) Count(_ context.Context, q domain.Query) (int64, error) {
	found, err := l.read(math.MaxInt, q.Selects)
	return int64(len(found)), err
}

func (l *memoryLog) Wait(ctx context.Context, after domain.Position) error {
	return wait(ctx, l, l.head, after)
}

// wait returns once the log, of which end is what there is to see, goes beyond after.
func wait(ctx context.Context, l *memoryLog, end func() domain.Position, after domain.Position) error {
	for {
		l.mu.Lock()
		moved := l.moved
		l.mu.Unlock()
		if end() > after {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followed is the log as a projector sees it: it can be held back.
type followed struct{ *memoryLog }

func (f followed) limit() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shown < 0 {
		return len(f.records)
	}
	return f.shown
}

func (f followed) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	return f.memoryLog.ReadAll(ctx, after, min(limit, f.limit()-int(after)))
}

func (f followed) Wait(ctx context.Context, after domain.Position) error {
	return wait(ctx, f.memoryLog, func() domain.Position { return domain.Position(f.limit()) }, after)
}
