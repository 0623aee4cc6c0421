package memory

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

const (
	// keyframe is after how many records a fold is kept, for others to begin at. A
	// question about the past costs at most so many records, once an earlier question
	// has folded the part of the log before it.
	keyframe = 10_000
	// mostRows bounds the rows of all folds together. Folds share the values of equal
	// rows, so a row here is some 100 bytes.
	mostRows = 2_000_000
)

// Past gives the read models as of any position. It folds the log, one question after
// the other. It keeps the folds of the latest questions and some folds in between, from
// which later questions begin.
type Past struct {
	log     projections.Log
	folding chan struct{} // holds one token; its owner may fold

	mu    sync.Mutex
	folds []*version // guarded by mu; never changed, the latest used at the end
}

// NewPast gives the past of a log.
func NewPast(log projections.Log) *Past {
	p := &Past{log: log, folding: make(chan struct{}, 1)}
	p.folding <- struct{}{}
	return p
}

// At gives the read models as of a position that the log has.
func (p *Past) At(ctx context.Context, position domain.Position) (*projections.Reader, error) {
	if at := p.nearest(position); at.checkpoint.Position == position {
		return reader(at), nil
	}
	select {
	case <-p.folding:
		defer func() { p.folding <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	at := p.nearest(position) // another caller may have folded it in between
	for at.checkpoint.Position < position {
		next := min(position, (at.checkpoint.Position/keyframe+1)*keyframe)
		fold := &Store{active: at.clone(), moved: make(chan struct{})}
		if err := projections.FoldTo(ctx, p.log, fold, next); err != nil {
			return nil, err
		}
		at = fold.active
		p.keep(at)
	}
	return reader(at), nil
}

func reader(v *version) *projections.Reader {
	return projections.NewReader(&Store{active: v, moved: make(chan struct{})})
}

// Forget drops all folds: the log was rolled back.
func (p *Past) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.folds = nil
}

// nearest gives the last fold that is not after a position, or an empty one.
func (p *Past) nearest(position domain.Position) *version {
	p.mu.Lock()
	defer p.mu.Unlock()
	best := -1
	for i, v := range p.folds {
		if v.checkpoint.Position <= position && (best < 0 || v.checkpoint.Position > p.folds[best].checkpoint.Position) {
			best = i
		}
	}
	if best < 0 {
		return newVersion()
	}
	v := p.folds[best]
	p.folds = append(slices.Delete(p.folds, best, best+1), v)
	return v
}

// keep stores a fold, and drops the least recently used ones when there are too many
// rows.
func (p *Past) keep(v *version) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.folds = append(p.folds, v)
	rows := 0
	for i, v := range slices.Backward(p.folds) {
		if rows += len(v.rows); rows > mostRows || len(p.folds)-i > mostFolds {
			p.folds = slices.Clone(p.folds[i+1:])
			return
		}
	}
}

// mostFolds bounds the folds of a small log, whose rows are few.
const mostFolds = 64

// clone gives a version that can be changed without changing this one. The values of
// rows are shared: they are replaced, never changed.
func (v *version) clone() *version {
	c := &version{checkpoint: v.checkpoint, rows: maps.Clone(v.rows), indexes: make(map[string]*sorted, len(v.indexes))}
	for name, ids := range v.indexes {
		chunks := make([][]int64, len(ids.chunks))
		for i, chunk := range ids.chunks {
			chunks[i] = slices.Clone(chunk)
		}
		c.indexes[name] = &sorted{chunks: chunks}
	}
	return c
}
