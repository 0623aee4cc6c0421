// Package memory keeps read models in memory: those of the embedded form, which are
// folded again at each start, and those that an audit folds up to some position.
package memory

import (
	"context"
	"fmt"
	"sync"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Store is a [projections.Store] in memory.
type Store struct {
	mu     sync.RWMutex
	active *version      // guarded by mu; nil before the first build
	moved  chan struct{} // guarded by mu; closed and replaced when active moves
}

// version is one version of the read models.
type version struct {
	checkpoint projections.Checkpoint
	rows       map[projections.Key][]byte
	indexes    map[string]*sorted
}

// New gives a store without a version.
func New() *Store { return &Store{moved: make(chan struct{})} }

func newVersion() *version {
	return &version{rows: map[projections.Key][]byte{}, indexes: map[string]*sorted{}}
}

var errNone = fmt.Errorf("%w: nothing is built yet", projections.ErrUnavailable)

// Checkpoint implements projections.Rows.
func (s *Store) Checkpoint(ctx context.Context) (projections.Checkpoint, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active == nil {
		return projections.Checkpoint{}, ctx.Err()
	}
	return s.active.checkpoint, ctx.Err()
}

// Apply implements projections.Rows.
func (s *Store) Apply(ctx context.Context, b projections.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == nil {
		return projections.ErrFenced
	}
	if err := s.active.apply(b); err != nil {
		return err
	}
	s.wake()
	return nil
}

// wake wakes all waiters. The caller holds mu.
func (s *Store) wake() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// Get implements projections.Rows.
func (s *Store) Get(ctx context.Context, keys ...projections.Key) ([][]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active == nil {
		return nil, errNone
	}
	return s.active.get(keys), nil
}

// Read implements projections.Store.
func (s *Store) Read(ctx context.Context, keys ...projections.Key) ([][]byte, domain.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active == nil {
		return nil, 0, errNone
	}
	return s.active.get(keys), s.active.checkpoint.Position, nil
}

// List implements projections.Store.
func (s *Store) List(ctx context.Context, index string, after int64, limit int) ([]int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active == nil {
		return nil, errNone
	}
	ids := s.active.indexes[index]
	if ids == nil {
		return nil, nil
	}
	return ids.above(after, limit), nil
}

// Wait implements projections.Store.
func (s *Store) Wait(ctx context.Context, p domain.Position) error {
	for {
		s.mu.RLock()
		reached := s.active != nil && s.active.checkpoint.Position >= p
		moved := s.moved
		s.mu.RUnlock()
		if reached {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Flush drops everything, as a restart does.
func (s *Store) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = nil
}

// Begin implements projections.Store.
func (s *Store) Begin(ctx context.Context) (projections.Build, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &build{store: s, before: s.active, version: newVersion()}, ctx.Err()
}

// build is a version beside the active one.
type build struct {
	store  *Store
	before *version // the active version at Begin

	mu      sync.Mutex
	version *version // guarded by mu; nil once discarded or switched to
}

// Checkpoint implements projections.Rows.
func (b *build) Checkpoint(ctx context.Context) (projections.Checkpoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version == nil {
		return projections.Checkpoint{}, projections.ErrFenced
	}
	return b.version.checkpoint, ctx.Err()
}

// Apply implements projections.Rows.
func (b *build) Apply(ctx context.Context, batch projections.Batch) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version == nil {
		return projections.ErrFenced
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.version.apply(batch)
}

// Get implements projections.Rows.
func (b *build) Get(ctx context.Context, keys ...projections.Key) ([][]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version == nil {
		return nil, projections.ErrFenced
	}
	return b.version.get(keys), ctx.Err()
}

// Switch implements projections.Build.
func (b *build) Switch(ctx context.Context, anew bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.store
	s.mu.Lock() // nests within build.mu, here only
	defer s.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case b.version == nil || s.active != b.before:
		return projections.ErrFenced
	case !anew && s.active != nil && s.active.checkpoint.Position > b.version.checkpoint.Position:
		return projections.ErrBehind
	}
	s.active, b.version = b.version, nil
	s.wake()
	return nil
}

// Discard implements projections.Build.
func (b *build) Discard(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version = nil
	return nil
}

func (v *version) get(keys []projections.Key) [][]byte {
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = v.rows[key]
	}
	return values
}

func (v *version) apply(b projections.Batch) error {
	if v.checkpoint != b.From {
		return projections.ErrFenced
	}
	for _, row := range b.Put {
		v.rows[row.Key] = row.Value
	}
	for _, key := range b.Delete {
		delete(v.rows, key)
	}
	for _, m := range b.Remove {
		if ids := v.indexes[m.Index]; ids != nil {
			if ids.remove(m.ID); ids.empty() {
				delete(v.indexes, m.Index)
			}
		}
	}
	for _, m := range b.Add {
		ids := v.indexes[m.Index]
		if ids == nil {
			ids = &sorted{}
			v.indexes[m.Index] = ids
		}
		ids.add(m.ID)
	}
	v.checkpoint = b.To
	return nil
}
