package memory_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections/memory"
	"github.com/tunnox-net/tunnox/projections/projectionstest"
)

// TestThePastIsWhatItWas reads random moments of a random history, several at once, and
// compares them with the model of that part of the log.
func TestThePastIsWhatItWas(t *testing.T) {
	t.Parallel()
	log := projectionstest.NewLog(1)
	h := projectionstest.NewHistory(log, projectionstest.Seeded(1))
	for log.Position() < 600 {
		h.Step()
	}
	past := memory.NewPast(log)
	var asking sync.WaitGroup
	for i := range 4 {
		draw := rand.New(rand.NewPCG(uint64(i), 1))
		asking.Go(func() {
			for range 25 {
				p := domain.Position(draw.IntN(int(log.Position()) + 1))
				want, err := projectionstest.NewModel(log, p)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := past.At(context.Background(), p)
				if err != nil {
					t.Errorf("at %d: %v", p, err)
					return
				}
				if err := want.Check(context.Background(), got, log); err != nil {
					t.Errorf("at %d: %v", p, err)
				}
			}
		})
	}
	asking.Wait()
	if _, err := past.At(context.Background(), log.Position()+1); err == nil {
		t.Error("beyond the end of the log there is an answer")
	}
}

var events = flag.Int("events", 10_000, "how long the log is that TestThePastOfALongLog asks about")

// TestThePastOfALongLog prints the cost of questions about a log of 100,000 events: the
// first one folds everything before it, the others begin at the nearest fold.
func TestThePastOfALongLog(t *testing.T) {
	t.Parallel()
	log := projectionstest.NewLog(2)
	h := projectionstest.NewHistory(log, projectionstest.Seeded(2))
	size := domain.Position(*events)
	for log.Position() < size {
		h.Step()
	}
	past := memory.NewPast(log)
	start := time.Now()
	if _, err := past.At(t.Context(), size); err != nil {
		t.Fatal(err)
	}
	first := time.Since(start)
	draw := rand.New(rand.NewPCG(3, 3))
	var most time.Duration
	start = time.Now()
	const questions = 50
	for range questions {
		asked := time.Now()
		if _, err := past.At(t.Context(), domain.Position(draw.IntN(int(size)))); err != nil {
			t.Fatal(err)
		}
		most = max(most, time.Since(asked))
	}
	t.Logf("%d events: the first question took %v, %d random ones %v each, at most %v", size, first, questions, time.Since(start)/questions, most)
}
