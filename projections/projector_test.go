package projections_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/memory"
	"github.com/tunnox-net/tunnox/projections/projectionstest"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

func history(n int) *projectionstest.Log {
	log := projectionstest.NewLog(0)
	h := projectionstest.NewHistory(log, projectionstest.Seeded(1))
	for log.Position() < domain.Position(n) {
		h.Step()
	}
	return log
}

// run runs a projector until the returned function is called.
func run(t *testing.T, p *projections.Projector) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func TestBuildShowsItsProgress(t *testing.T) {
	log := history(3000)
	var mu sync.Mutex
	var seen []projections.Progress
	registry := prometheus.NewRegistry()
	p := projections.NewProjector(log, memory.New(), projections.Options{Head: log.Head,
		Progress: func(p projections.Progress) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, p)
		}, Metrics: projections.NewMetrics(registry)})
	defer run(t, p)()
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) == 0 || seen[len(seen)-1].Done != log.Position() || seen[len(seen)-1].Head != log.Position() || seen[len(seen)-1].Rate() <= 0 {
		t.Errorf("progress: %+v", seen)
	}
	if s := p.Status(); s.Checkpoint.Position != log.Position() || s.Building || s.Halted != nil {
		t.Errorf("status: %+v", s)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tunnox_projection_position" && f.GetMetric()[0].GetGauge().GetValue() != float64(log.Position()) {
			t.Errorf("metric: %v", f)
		}
	}
}

// failing is a log that fails while broken is set, and counts its reads.
type failing struct {
	*projectionstest.Log
	mu     sync.Mutex
	broken error // guarded by mu
	reads  int   // guarded by mu
}

func (l *failing) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.broken != nil {
		return nil, l.broken
	}
	return l.Log.ReadAll(ctx, after, limit)
}

func (l *failing) set(err error) (reads int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reads, l.reads, l.broken = l.reads, 0, err
	return reads
}

func TestFailuresOfTheLogAreRetriedWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &failing{Log: history(100), broken: errors.New("no route to host")}
		store := memory.New()
		p := projections.NewProjector(log, store, projections.Options{Logger: slog.New(slog.DiscardHandler)})
		stop := run(t, p)
		time.Sleep(time.Minute)
		if reads := log.set(nil); reads < 20 || reads > 100 {
			t.Errorf("%d reads in a minute of failures", reads)
		}
		if err := p.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		log.set(errors.New("no route to host"))
		h := projectionstest.NewHistory(log.Log, projectionstest.Seeded(2))
		for range 50 {
			h.Step()
		}
		time.Sleep(time.Minute)
		log.set(nil)
		if err := projections.NewReader(store).Wait(t.Context(), 1); err != nil {
			t.Errorf("reads while the log is away: %v", err)
		}
		if err := store.Wait(t.Context(), log.Position()); err != nil {
			t.Error(err)
		}
		stop()
	})
}

// corrupt is a store that has lost its rows of one kind.
type corrupt struct {
	projections.Store
	mu   sync.Mutex
	lose bool // guarded by mu
}

func (s *corrupt) Get(ctx context.Context, keys ...projections.Key) ([][]byte, error) {
	values, err := s.Store.Get(ctx, keys...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lose && err == nil {
		clear(values)
	}
	return values, err
}

func (s *corrupt) Begin(ctx context.Context) (projections.Build, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = false // a rebuild makes it whole
	return s.Store.Begin(ctx)
}

func TestRowsThatDoNotFitTheirCheckpointAreBuiltAnew(t *testing.T) {
	log := projectionstest.NewLog(0)
	h := projectionstest.NewHistory(log, projectionstest.Seeded(1))
	grow := func(n int) {
		for range n {
			h.Step()
		}
	}
	grow(100)
	store := &corrupt{Store: memory.New()}
	first := projections.NewProjector(log, store, projections.Options{})
	stop := run(t, first)
	if err := first.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	store.lose = true
	grow(100)
	second := projections.NewProjector(log, store, projections.Options{})
	defer run(t, second)()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := store.Wait(ctx, log.Position()); err != nil {
		t.Fatal(err)
	}
	store.mu.Lock()
	lose := store.lose
	store.mu.Unlock()
	if lose {
		t.Fatal("nothing was built anew")
	}
	m, err := projectionstest.NewModel(log, log.Position())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Check(ctx, projections.NewReader(store), log); err != nil {
		t.Error(err)
	}
}

func TestLogWithAHoleIsNotSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := history(100)
		store := memory.New()
		p := projections.NewProjector(holed{log}, store, projections.Options{})
		stop := run(t, p)
		time.Sleep(10 * time.Second)
		if c, err := store.Checkpoint(t.Context()); err != nil || c.Position >= 50 {
			t.Errorf("folded to %d beyond a hole at 50, %v", c.Position, err)
		}
		if err := p.Status().Halted; err != nil {
			t.Errorf("halted: %v; a log that cannot be read now is read again later", err)
		}
		stop()
	})
}

// holed is a log without record 50.
type holed struct{ *projectionstest.Log }

func (l holed) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	records, err := l.Log.ReadAll(ctx, after, limit)
	for i, r := range records {
		if r.Position == 50 {
			return append(records[:i:i], records[i+1:]...), err
		}
	}
	return records, err
}

func TestWhatIsRememberedEndsWithTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, store := history(300), memory.New()
		stop := sync.OnceFunc(run(t, projections.NewProjector(log, store, projections.Options{})))
		defer stop()
		var away atomic.Bool
		r := projections.NewFollowingReader(store, log, func(ctx context.Context) (domain.Position, error) {
			if away.Load() {
				<-ctx.Done() // as a log behind a broken network
				return 0, ctx.Err()
			}
			return log.Head(ctx)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Follow(ctx) }()
		defer func() { cancel(); <-done }()
		time.Sleep(time.Second)
		users, _, err := r.Users(ctx, 0, 1)
		if err != nil || len(users) == 0 {
			t.Fatalf("%d users, %v", len(users), err)
		}
		read := func() error {
			row, ok, err := r.User(ctx, users[0].ID)
			if err == nil && (!ok || row.ID != users[0].ID) {
				t.Errorf("user %d: %+v, %v", users[0].ID, row, ok)
			}
			return err
		}
		if err := read(); err != nil {
			t.Fatal(err)
		}
		// The stored rows are gone, so everything that can be read is cached.
		stop()
		store.Flush()
		if err := read(); err != nil {
			t.Errorf("it is not remembered: %v", err)
		}
		away.Store(true)
		time.Sleep(time.Second)
		if err := read(); !errors.Is(err, projections.ErrUnavailable) {
			t.Errorf("a second after the log went away: %v", err)
		}
	})
}
