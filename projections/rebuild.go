package projections

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

const (
	// pageSize is how many records a build reads at a time.
	pageSize = 4 * batchSize
	// readAhead is how many pages, and how many decoded batches, wait in a build.
	// Reading, decoding and folding take about equally long, so each has a goroutine.
	readAhead = 2
	// progressEvery bounds how often Options.Progress is called.
	progressEvery = 200 * time.Millisecond
)

// rebuild folds the whole log into a version beside the active one, and switches to it
// at the end of the log. Until then readers see the whole old version. anew says that
// the old version is wrong, not only missing.
func (p *Projector) rebuild(ctx context.Context, anew bool) (Checkpoint, error) {
	build, err := p.store.Begin(ctx)
	if err != nil {
		return Checkpoint{}, err
	}
	p.update(func(s *Status) { s.Building = true })
	p.options.Metrics.rebuilding()
	defer spareCollector()()
	cp, err := p.fill(ctx, build, anew)
	if err != nil {
		// The context may have ended, but the rows that a build has written should be
		// removed all the same.
		discard, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if discardErr := build.Discard(discard); discardErr != nil {
			p.options.Logger.Warn("cannot remove the rows of an unfinished build", "error", discardErr)
		}
		return cp, err
	}
	return cp, nil
}

// buildGCPercent is how much garbage a build may make for each live byte before the
// collector runs. At the usual 100 the collector was a fifth of its work. Most live
// bytes are the read models, so a build needs a few times their size.
const buildGCPercent = 400

// collector counts the builds of this process, because the setting is for the whole
// process.
var collector struct {
	sync.Mutex
	builds int // guarded by Mutex
	before int // guarded by Mutex; the setting without builds
}

// spareCollector lets the collector run less often until end is called. A memory limit
// (GOMEMLIMIT) still applies, and a setting that is off or higher stays.
func spareCollector() (end func()) {
	collector.Lock()
	defer collector.Unlock()
	if collector.builds == 0 {
		collector.before = debug.SetGCPercent(buildGCPercent)
		if collector.before < 0 || collector.before > buildGCPercent {
			debug.SetGCPercent(collector.before)
		}
	}
	collector.builds++
	return func() {
		collector.Lock()
		defer collector.Unlock()
		if collector.builds--; collector.builds == 0 {
			debug.SetGCPercent(collector.before)
		}
	}
}

// fill folds until the end of the log and switches. A record that cannot be folded ends
// the build. If there is no active version yet, fill switches to the fold of the
// records before it, as the log's state at that position; otherwise the active version
// stays.
func (p *Projector) fill(ctx context.Context, build Build, anew bool) (Checkpoint, error) {
	clock := p.newProgress(ctx)
	folder := newFolder(build)
	var cp Checkpoint
	for {
		next, err := p.foldToEnd(ctx, build, folder, cp, clock)
		cp = next
		if _, halted := errors.AsType[*haltError](err); halted && !anew {
			// There was no active version, so the fold of the records before this one
			// is better.
			if switchErr := build.Switch(ctx, false); switchErr != nil {
				return cp, switchErr
			}
			p.at(cp)
		}
		if err != nil {
			return cp, err
		}
		switch err := build.Switch(ctx, anew); {
		case errors.Is(err, ErrBehind):
			continue // the old version has moved on, and so has the log
		case err != nil:
			return cp, err
		}
		clock.report(cp.Position, true)
		return cp, nil
	}
}

// page is the output of the reading goroutine of a build, and chunk that of the
// decoding one. err is about the record after the records or facts.
type (
	page struct {
		after   domain.Position
		records []domain.Record
		err     error
	}
	chunk struct {
		facts []fact
		err   error
	}
)

// foldToEnd folds the records after cp until a read finds no more.
func (p *Projector) foldToEnd(ctx context.Context, build Build, folder *folder, cp Checkpoint, clock *progress) (Checkpoint, error) {
	ctx, cancel := context.WithCancel(ctx)
	pages, chunks := make(chan page, readAhead), make(chan chunk, readAhead)
	var ahead sync.WaitGroup
	ahead.Go(func() { p.readTo(ctx, cp, pages) })
	ahead.Go(func() { decodeTo(ctx, pages, chunks) })
	defer ahead.Wait()
	defer cancel()
	for c := range chunks {
		if len(c.facts) > 0 {
			next, err := p.apply(ctx, folder, build, cp, c.facts)
			if errors.Is(err, errTorn) {
				err = &haltError{err} // a build reads one log from its start, so the log is wrong
			}
			if err != nil {
				return cp, err
			}
			cp = next
			clock.report(cp.Position, false)
		}
		if c.err != nil {
			return cp, c.err
		}
	}
	return cp, ctx.Err()
}

// readTo sends the records after cp until the log has no more, and closes pages.
func (p *Projector) readTo(ctx context.Context, cp Checkpoint, pages chan<- page) {
	defer close(pages)
	for {
		records, full, err := readBehind(ctx, p.log, cp, pageSize)
		select {
		case pages <- page{cp.Position, records, err}:
		case <-ctx.Done():
			return
		}
		if err != nil || !full || len(records) == 0 {
			return
		}
		last := records[len(records)-1]
		cp = Checkpoint{Position: last.Position, EventID: last.ID}
	}
}

// decodeTo decodes pages into chunks of a batch's size, and closes chunks.
func decodeTo(ctx context.Context, pages <-chan page, chunks chan<- chunk) {
	defer close(chunks)
	send := func(facts []fact, err error) bool {
		select {
		case chunks <- chunk{facts, err}:
			return err == nil
		case <-ctx.Done():
			return false
		}
	}
	for pg := range pages {
		after := pg.after
		for records := range slices.Chunk(pg.records, batchSize) {
			facts, err := decode(after, records)
			if !send(facts, err) {
				return
			}
			after = records[len(records)-1].Position
		}
		if pg.err != nil && !send(nil, pg.err) {
			return
		}
	}
}

// progress reports the progress of a build.
type progress struct {
	call       func(Progress)
	head       domain.Position
	start, due time.Time
}

func (p *Projector) newProgress(ctx context.Context) *progress {
	c := &progress{call: p.options.Progress, start: time.Now()}
	c.due = c.start.Add(progressEvery)
	if p.options.Head != nil {
		if head, err := p.options.Head(ctx); err == nil { // otherwise the end is not known
			c.head = head
		}
	}
	return c
}

func (c *progress) report(done domain.Position, last bool) {
	now := time.Now()
	if c.call == nil || (!last && now.Before(c.due)) {
		return
	}
	c.due = now.Add(progressEvery)
	c.call(Progress{Done: done, Head: max(c.head, done), Elapsed: now.Sub(c.start)})
}
