package projectionstest

import (
	"context"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Bench measures a rebuild and the reads the data plane makes.
func Bench(b *testing.B, open func(testing.TB) Backend) {
	log := NewLog(0)
	h := NewHistory(log, Seeded(1))
	for log.Position() < 100_000 {
		h.Step()
	}
	backend := open(b)
	b.Run("rebuild", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			backend.Flush()
			rebuild(b, log, backend.Store)
		}
		b.ReportMetric(float64(log.Position())*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	backend.Flush()
	rebuild(b, log, backend.Store)
	r := projections.NewReader(backend.Store)
	ids := log.clientIDs()
	b.Run("get", func(b *testing.B) {
		parallel(b, func(i int) error {
			_, _, err := r.Client(context.Background(), ids[i%len(ids)])
			return err
		})
	})
	b.Run("client view", func(b *testing.B) {
		parallel(b, func(i int) error {
			_, err := r.ClientView(context.Background(), ids[i%len(ids)], 0)
			if domain.CodeOf(err) == domain.CodeClientNotFound {
				return nil
			}
			return err
		})
	})
}

func rebuild(b *testing.B, log *Log, store projections.Store) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := projections.NewProjector(log, store, projections.Options{Head: log.Head})
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	if err := p.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

func parallel(b *testing.B, read func(int) error) {
	b.Helper()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if err := read(i); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
}
