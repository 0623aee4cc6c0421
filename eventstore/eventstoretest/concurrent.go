package eventstoretest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

func testClaimRace(t *testing.T, open Open) {
	s := open(t)
	for round := range 40 {
		start := make(chan struct{})
		errs := make([]error, 4)
		var wg sync.WaitGroup
		for i := range errs {
			owner := domain.StreamID(fmt.Sprintf("user-%d", round*len(errs)+i+1))
			a := one(owner, 0, 1)
			a.Claims = []domain.Claim{{Scope: "username", Value: fmt.Sprint("name", round), Owner: owner}}
			wg.Go(func() {
				<-start
				results, err := s.AppendBatch(context.Background(), []eventstore.Append{a})
				if err == nil {
					err = results[0].Err
				}
				errs[i] = err
			})
		}
		close(start)
		wg.Wait()
		winners := 0
		for _, err := range errs {
			if err == nil {
				winners++
			} else if !errors.Is(err, eventstore.ErrTaken) {
				t.Fatalf("round %d: %v, want ErrTaken", round, err)
			}
		}
		if winners != 1 {
			t.Fatalf("round %d: %d got the name (%v)", round, winners, errs)
		}
	}
}

func testNextID(t *testing.T, open Open) {
	s := open(t)
	ctx := context10s(t)
	if _, err := s.NextID(ctx, "nothing"); err == nil {
		t.Error("an unknown sequence gave an id")
	}
	for _, sequence := range []domain.Sequence{domain.SequenceUser, domain.SequenceClient, domain.SequenceMapping} {
		var mu sync.Mutex
		seen := map[int64]bool{}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				last := int64(0)
				for range 25 {
					id, err := s.NextID(ctx, sequence)
					mu.Lock()
					if err != nil || id <= last || seen[id] {
						t.Errorf("%s: id %d after %d, %v", sequence, id, last, err)
					}
					seen[id], last = true, id
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if !seen[sequence.First()] {
			t.Errorf("%s does not begin at %d", sequence, sequence.First())
		}
		for id := range seen {
			if id < sequence.First() {
				t.Errorf("%s gave %d", sequence, id)
			}
		}
	}
}

func testWait(t *testing.T, open Open) {
	s := open(t)
	ctx, cancel := context.WithCancel(context10s(t))
	if err := s.Wait(ctx, -1); err != nil {
		t.Fatalf("wait for what is there: %v", err)
	}
	woken := make(chan error, 10)
	for range cap(woken) {
		go func() { woken <- s.Wait(ctx, 0) }()
	}
	must(t, s, one("user-1", 0, 1))
	for range cap(woken) {
		if err := <-woken; err != nil {
			t.Fatal(err)
		}
	}
	go func() { woken <- s.Wait(ctx, 1) }()
	cancel()
	if err := <-woken; !errors.Is(err, context.Canceled) {
		t.Fatalf("wait with a context that ended: %v", err)
	}
}

func testContext(t *testing.T, open Open) {
	s := open(t)
	must(t, s, one("user-1", 0, 1))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	calls := map[string]func(ctx context.Context) error{
		"AppendBatch": func(ctx context.Context) error {
			_, err := s.AppendBatch(ctx, []eventstore.Append{one("user-1", 1, 1)})
			return err
		},
		"ReadStream": func(ctx context.Context) error { _, err := s.ReadStream(ctx, "user-1", 0, 1); return err },
		"ReadAll":    func(ctx context.Context) error { _, err := s.ReadAll(ctx, 0, 1); return err },
		"Head":       func(ctx context.Context) error { _, err := s.Head(ctx); return err },
		"KeyUse":     func(ctx context.Context) error { _, _, err := s.KeyUse(ctx, "s", "k"); return err },
		"Holder":     func(ctx context.Context) error { _, err := s.Holder(ctx, "username", "ann"); return err },
		"NextID":     func(ctx context.Context) error { _, err := s.NextID(ctx, domain.SequenceUser); return err },
		"Wait":       func(ctx context.Context) error { return s.Wait(ctx, 1) },
	}
	for name, call := range calls {
		if err := call(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that ended: %v", name, err)
		}
	}
	if n := len(whole(t, s)); n != 1 {
		t.Fatalf("an append whose context had ended wrote %d records", n-1)
	}
	// The call was cancelled in the middle: its append is written or not, but whole,
	// and the store continues.
	version := domain.Version(1)
	for i := range 30 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(2000))*time.Microsecond)
		results, err := s.AppendBatch(ctx, []eventstore.Append{one("user-1", version, 3)})
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, eventstore.ErrUnavailable) {
			t.Fatalf("round %d: %v", i, err)
		}
		if err == nil && results[0].Err != nil {
			t.Fatalf("round %d: %v", i, results[0].Err)
		}
		// A cancelled append may still arrive. An append of another stream comes after
		// it, because appends are in order.
		must(t, s, one(domain.StreamID(fmt.Sprintf("user-%d", i+2)), 0, 1))
		records, rerr := s.ReadStream(context10s(t), "user-1", 0, 1000)
		if rerr != nil {
			t.Fatal(rerr)
		}
		now := domain.Version(len(records))
		if now != version && now != version+3 || err == nil && now != version+3 {
			t.Fatalf("round %d: version %d after %d and an append of 3 that gave %v", i, now, version, err)
		}
		version = now
	}
}

// leafReader is what stores have for audits in addition to the contract.
type leafReader interface {
	Leaves(ctx context.Context, after domain.Position, limit int) ([]eventstore.Leaf, error)
}

func testLeaves(t *testing.T, open Open) {
	s := open(t)
	audited, ok := s.(leafReader)
	if !ok {
		t.Fatalf("%T has no leaves", s)
	}
	a := one("user-1", 0, 3)
	a.Events[1].Data = []byte(`{"name":"Zoë \u0000 \n", "z":1,"a":2}`)
	must(t, s, a)
	leaves, err := audited.Leaves(context10s(t), 1, 10)
	if err != nil || len(leaves) != 2 {
		t.Fatalf("leaves: %v, %v", leaves, err)
	}
	seen := map[[32]byte]bool{}
	for i, l := range leaves {
		if l.Position != domain.Position(i+2) || !l.Matches() || seen[l.Hash] {
			t.Errorf("leaf %d does not match its content %q", l.Position, l.Content)
		}
		seen[l.Hash] = true
		l.Content = append([]byte(nil), l.Content...)
		l.Content[len(l.Content)-3] ^= 1
		if l.Matches() {
			t.Error("changed content has the same hash")
		}
	}
}

// testWritersAndReader checks the promise on which readers depend: whatever writers do,
// the log that a reader sees at any moment is a prefix of the log at the end.
func testWritersAndReader(t *testing.T, open Open) {
	const writers, calls, streams = 8, 40, 5
	s := open(t)
	ctx := context10s(t)
	var written, conflicts, duplicates, taken atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		rng := rand.New(rand.NewPCG(uint64(w), 1))
		versions := map[domain.StreamID]domain.Version{}
		wg.Go(func() {
			for c := range calls {
				var batch []eventstore.Append
				for b := range 1 + rng.IntN(4) {
					stream := domain.StreamID(fmt.Sprintf("user-%d", 1+rng.IntN(streams)))
					a := one(stream, versions[stream], 1+rng.IntN(3))
					if rng.IntN(3) == 0 {
						a.Streams[0].Expected = eventstore.Any
					}
					// Keys of another writer too, so that there are duplicates.
					a.Key, a.KeyScope = fmt.Sprintf("%d-%d-%d", rng.IntN(2), c, b), "all"
					a.Hash = sha256.Sum256([]byte("same"))
					if rng.IntN(4) == 0 {
						a.Claims = []domain.Claim{{Scope: "username", Value: fmt.Sprint(rng.IntN(20)), Owner: stream}}
					}
					batch = append(batch, a)
				}
				results, err := s.AppendBatch(ctx, batch)
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				for i, r := range results {
					switch {
					case errors.Is(r.Err, eventstore.ErrConflict):
						conflicts.Add(1)
						stream := batch[i].Streams[0].Stream
						records, err := s.ReadStream(ctx, stream, versions[stream], 1000)
						if err != nil {
							t.Errorf("writer %d: %v", w, err)
						}
						versions[stream] += domain.Version(len(records))
					case errors.Is(r.Err, eventstore.ErrTaken):
						taken.Add(1)
					case r.Err != nil:
						t.Errorf("writer %d: %v", w, r.Err)
					case r.Duplicate:
						duplicates.Add(1)
					default:
						written.Add(int64(r.Last - r.First + 1))
					}
				}
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	var seen []domain.Record
	for finished := false; !finished; {
		select {
		case <-done:
			finished = true // one more read: all is committed now
		default:
		}
		for {
			page, err := s.ReadAll(ctx, domain.Position(len(seen)), 50)
			if err != nil {
				t.Errorf("reader: %v", err)
				break
			}
			seen = append(seen, page...)
			if len(page) < 50 {
				break
			}
		}
	}
	<-done
	versions := map[domain.StreamID]domain.Version{}
	all := whole(t, s)
	for i, r := range all {
		if versions[r.Stream]++; r.Version != versions[r.Stream] {
			t.Fatalf("record %d is version %d of %s, want %d", r.Position, r.Version, r.Stream, versions[r.Stream])
		}
		if i >= len(seen) || seen[i].ID != r.ID {
			t.Fatalf("the reader saw another record at %d", r.Position)
		}
	}
	if int64(len(all)) != written.Load() || len(seen) != len(all) {
		t.Fatalf("acknowledged %d records, the log has %d, the reader saw %d", written.Load(), len(all), len(seen))
	}
	if conflicts.Load() == 0 || duplicates.Load() == 0 || taken.Load() == 0 {
		t.Fatalf("the test met %d conflicts, %d duplicates, %d taken claims; it must meet all", conflicts.Load(), duplicates.Load(), taken.Load())
	}
	t.Logf("%d records, %d conflicts, %d duplicates, %d taken", len(all), conflicts.Load(), duplicates.Load(), taken.Load())
}

// testLinearizable records when calls on one event stream began and ended. Then
// porcupine looks for an order that explains every answer.
func testLinearizable(t *testing.T, open Open) {
	type call struct {
		append   bool
		expected domain.Version
	}
	type answer struct {
		ok      bool
		version domain.Version
	}
	s := open(t)
	ctx := context10s(t)
	start := time.Now()
	histories := make([][]porcupine.Operation, 6)
	var wg sync.WaitGroup
	for client := range histories {
		wg.Go(func() {
			known := domain.Version(0)
			for i := range 30 {
				op := porcupine.Operation{ClientId: client, Call: time.Since(start).Nanoseconds()}
				if (i+client)%3 == 0 {
					records, err := s.ReadStream(ctx, "user-1", 0, 1000)
					if err != nil {
						t.Errorf("read: %v", err)
						return
					}
					known = domain.Version(len(records))
					op.Input, op.Output = call{}, answer{version: known}
				} else {
					results, err := s.AppendBatch(ctx, []eventstore.Append{one("user-1", known, 1)})
					if err != nil {
						t.Errorf("append: %v", err)
						return
					}
					ok := results[0].Err == nil
					op.Input, op.Output = call{append: true, expected: known}, answer{ok: ok}
					if ok {
						known++
					}
				}
				op.Return = time.Since(start).Nanoseconds()
				histories[client] = append(histories[client], op)
			}
		})
	}
	wg.Wait()
	var all []porcupine.Operation
	for _, h := range histories {
		all = append(all, h...)
	}
	model := porcupine.Model{
		Init: func() any { return domain.Version(0) },
		Step: func(state, input, output any) (bool, any) {
			v, in, out := state.(domain.Version), input.(call), output.(answer)
			if !in.append {
				return out.version == v, v
			}
			if in.expected == v {
				return out.ok, v + 1
			}
			return !out.ok, v
		},
	}
	if got := porcupine.CheckOperationsTimeout(model, all, 10*time.Second); got != porcupine.Ok {
		t.Fatalf("no order explains the history of %d calls: %v", len(all), got)
	}
}
