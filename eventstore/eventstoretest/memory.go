// Package eventstoretest has the suite that every [eventstore.Store] must pass, and the
// model with which stores are compared.
//
// Its duty: [Run] checks the contract. [Memory] is the contract in its simplest form,
// written without the code that the stores share, so that a mistake in that code shows
// as a difference. Its limit: it is for tests.
package eventstoretest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// Memory is a store in memory. Every rule is applied by a search of the whole log.
type Memory struct {
	mu      sync.Mutex
	records []domain.Record
	closed  map[domain.StreamID]bool
	claims  []domain.Claim
	uses    []memoryUse
	ids     map[domain.Sequence]int64
	moved   chan struct{} // closed and replaced at every append
	ended   bool
}

type memoryUse struct {
	scope, key string
	eventstore.KeyUse
}

// NewMemory gives an empty store.
func NewMemory() *Memory {
	return &Memory{closed: map[domain.StreamID]bool{}, ids: map[domain.Sequence]int64{}, moved: make(chan struct{})}
}

// AppendBatch implements [eventstore.Store].
func (m *Memory) AppendBatch(ctx context.Context, batch []eventstore.Append) ([]eventstore.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return nil, eventstore.ErrUnavailable
	}
	var results []eventstore.Result
	for _, a := range batch {
		results = append(results, m.append(a))
	}
	close(m.moved)
	m.moved = make(chan struct{})
	return results, nil
}

func (m *Memory) append(a eventstore.Append) eventstore.Result {
	for _, u := range m.uses {
		if a.Key == "" || u.scope != a.KeyScope || u.key != a.Key {
			continue
		}
		if u.Hash != a.Hash {
			return eventstore.Result{Err: eventstore.ErrKeyReused}
		}
		return eventstore.Result{First: u.First, Last: u.Last, Subject: u.Subject, Duplicate: true}
	}
	for _, s := range a.Streams {
		v := m.version(s.Stream)
		if s.Expected >= 0 && s.Expected != v || s.Expected == eventstore.MustExist && v == 0 {
			return eventstore.Result{Err: fmt.Errorf("%w: %s at %d", eventstore.ErrConflict, s.Stream, v)}
		}
	}
	for _, e := range a.Events {
		if m.closed[a.Streams[e.Stream].Stream] {
			return eventstore.Result{Err: eventstore.ErrClosed}
		}
	}
	claims := slices.DeleteFunc(slices.Clone(m.claims), func(c domain.Claim) bool { return slices.Contains(a.Releases, c) })
	for _, c := range a.Claims {
		held := slices.IndexFunc(claims, func(h domain.Claim) bool { return h.Scope == c.Scope && h.Value == c.Value })
		if held < 0 {
			claims = append(claims, c)
		} else if claims[held].Owner != c.Owner {
			return eventstore.Result{Err: &eventstore.TakenError{Claim: c}}
		}
	}
	m.claims = claims
	result := eventstore.Result{First: domain.Position(len(m.records) + 1), Subject: a.Subject}
	for _, e := range a.Events {
		stream := a.Streams[e.Stream].Stream
		r := domain.Record{Position: domain.Position(len(m.records) + 1), Stream: stream, Version: m.version(stream) + 1,
			Owner: cmp.Or(e.Owner, a.Account), Name: e.Name, Schema: e.Schema, Data: slices.Clone(e.Data), Meta: throughJSON(a.Meta),
			Recorded: time.Now().UTC().Truncate(time.Microsecond)}
		_, _ = rand.Read(r.ID[:]) // never fails
		m.records = append(m.records, r)
		result.Records = append(result.Records, r)
	}
	for _, s := range a.Streams {
		if s.Close {
			m.closed[s.Stream] = true
		}
	}
	result.Last = domain.Position(len(m.records))
	if a.Key != "" {
		m.uses = append(m.uses, memoryUse{a.KeyScope, a.Key, eventstore.KeyUse{Hash: a.Hash, First: result.First, Last: result.Last, Subject: a.Subject}})
	}
	return result
}

func throughJSON(meta domain.Metadata) (out domain.Metadata) {
	b, err := json.Marshal(meta)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

func (m *Memory) version(stream domain.StreamID) (v domain.Version) {
	for _, r := range m.records {
		if r.Stream == stream {
			v = r.Version
		}
	}
	return v
}

// ReadStream implements [eventstore.Store].
func (m *Memory) ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error) {
	return m.find(ctx, limit, func(r domain.Record) bool { return r.Stream == stream && r.Version > after })
}

// ReadAll implements [eventstore.Store].
func (m *Memory) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	return m.find(ctx, limit, func(r domain.Record) bool { return r.Position > after })
}

func (m *Memory) find(ctx context.Context, limit int, want func(domain.Record) bool) ([]domain.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	found := []domain.Record{}
	for _, r := range m.records {
		if want(r) && len(found) < limit {
			found = append(found, r)
		}
	}
	return found, nil
}

// Head implements [eventstore.Store].
func (m *Memory) Head(ctx context.Context) (eventstore.Checkpoint, error) {
	if err := ctx.Err(); err != nil {
		return eventstore.Checkpoint{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.records) == 0 {
		return eventstore.Checkpoint{}, nil
	}
	r := m.records[len(m.records)-1]
	return eventstore.Checkpoint{Position: r.Position, EventID: r.ID}, nil
}

// Verify implements [eventstore.Store].
func (m *Memory) Verify(ctx context.Context, c eventstore.Checkpoint) error {
	found, err := m.find(ctx, 1, func(r domain.Record) bool { return r.Position == c.Position && r.ID == c.EventID })
	if err == nil && c.Position > 0 && len(found) == 0 {
		return eventstore.ErrForked
	}
	return err
}

// Holder implements [eventstore.Store].
func (m *Memory) Holder(ctx context.Context, scope, value string) (domain.StreamID, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.claims {
		if c.Scope == scope && c.Value == value {
			return c.Owner, nil
		}
	}
	return "", nil
}

// KeyUse implements [eventstore.Store].
func (m *Memory) KeyUse(ctx context.Context, scope, key string) (eventstore.KeyUse, bool, error) {
	if err := ctx.Err(); err != nil {
		return eventstore.KeyUse{}, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.uses {
		if u.scope == scope && u.key == key {
			return u.KeyUse, true, nil
		}
	}
	return eventstore.KeyUse{}, false, nil
}

// Wait implements [eventstore.Store].
func (m *Memory) Wait(ctx context.Context, after domain.Position) error {
	for {
		m.mu.Lock()
		reached, moved, ended := domain.Position(len(m.records)), m.moved, m.ended
		m.mu.Unlock()
		if reached > after {
			return nil
		}
		if ended {
			return eventstore.ErrUnavailable
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// NextID implements [eventstore.Store].
func (m *Memory) NextID(ctx context.Context, s domain.Sequence) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if s.First() == 0 {
		return 0, fmt.Errorf("unknown sequence %q", s)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids[s] = max(m.ids[s]+1, s.First())
	return m.ids[s], nil
}

// Close implements [eventstore.Store].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.ended = true
		close(m.moved)
		m.moved = make(chan struct{})
	}
	return nil
}

// Backup copies the present log. restore rolls the log back to the copy.
func (m *Memory) Backup() (restore func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	records, closed, claims, uses := slices.Clone(m.records), maps.Clone(m.closed), slices.Clone(m.claims), slices.Clone(m.uses)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.records, m.closed, m.claims, m.uses = slices.Clone(records), maps.Clone(closed), slices.Clone(claims), slices.Clone(uses)
	}
}

// Newest implements [eventstore.Watched]: this store caches nothing.
func (m *Memory) Newest() domain.Place { return domain.Place{} }

// Forget implements [eventstore.Watched].
func (m *Memory) Forget() {}
