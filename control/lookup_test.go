package control

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/projectionstest"
)

// viewAt is a client's view with one mapping, as of a position.
func viewAt(client int64, p domain.Position) domain.ClientView {
	v := domain.ClientView{Position: p}
	v.Client.Version, v.Client.State = 1, domain.Client{ID: client, Kind: domain.ClientManaged, UserID: 1, PublicKey: make([]byte, 32)}
	v.Users = []domain.Versioned[domain.User]{{Version: 1, State: domain.User{ID: 1}}}
	v.Limits = []domain.Versioned[domain.AccountLimits]{{Version: 1, State: domain.AccountLimits{Account: 1}}}
	return v
}

// source stands for a level: it answers at a position, or not.
type source struct {
	mu    sync.Mutex
	at    domain.Position
	err   error
	hang  chan struct{} // waited for when set
	calls atomic.Int64
	asked [][]Want
}

func (s *source) set(at domain.Position, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.err = at, err
}

func (s *source) ClientView(ctx context.Context, id int64, _ domain.Position) (domain.ClientView, error) {
	s.calls.Add(1)
	s.mu.Lock()
	at, err, hang := s.at, s.err, s.hang
	s.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return domain.ClientView{}, ctx.Err()
		}
	}
	if err != nil {
		return domain.ClientView{}, err
	}
	return viewAt(id, at), nil
}

func (s *source) IngressView(_ context.Context, what domain.Ingress, _ domain.Position) (domain.IngressView, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return domain.IngressView{Position: s.at, Ingress: what}, s.err
}

func (s *source) Clients(ctx context.Context, wants []Want) (map[int64]Answer, error) {
	s.mu.Lock()
	s.asked = append(s.asked, wants)
	s.mu.Unlock()
	all := map[int64]Answer{}
	for _, w := range wants {
		v, err := s.ClientView(ctx, w.ClientID, w.Min)
		if err != nil && domain.CodeOf(err) != domain.CodeClientNotFound {
			return all, err
		}
		all[w.ClientID] = Answer{View: v, Err: err}
	}
	return all, nil
}

func newLookup(t testing.TB, config LookupConfig) *Lookup {
	t.Helper()
	l, err := NewLookup(config)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// level does a lookup and tells where the answer came from.
func level(t testing.TB, l *Lookup, id int64, min domain.Position) (from string, v domain.ClientView, err error) {
	t.Helper()
	levels := []string{"memory", "memory_old", "read_model", "state"}
	count := func() (n [4]float64) {
		for i, name := range levels {
			n[i] = number(t, l.config.Metrics.lookups.WithLabelValues(name))
		}
		return n
	}
	before := count()
	v, err = l.ClientView(t.Context(), id, min)
	after := count()
	for i := range levels {
		if after[i] != before[i] {
			from = levels[i]
		}
	}
	if err == nil && (v.Position < min || v.Client.State.ID != id) {
		t.Errorf("client %d as of %d was asked for, got %d as of %d", id, min, v.Client.State.ID, v.Position)
	}
	return from, v, err
}

func TestLookupGoesThroughTheLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows, remote := &source{at: 10}, &source{at: 20}
		l := newLookup(t, LookupConfig{ReadModel: rows, Remote: remote})
		expect := func(id int64, min domain.Position, want string) {
			t.Helper()
			from, _, err := level(t, l, id, min)
			if err != nil || from != want {
				t.Errorf("client %d as of %d came from %q (%v), want %s", id, min, from, err, want)
			}
			synctest.Wait()
		}
		expect(1, 0, "read_model")
		expect(1, 0, "memory")
		expect(1, 10, "memory")
		expect(1, 11, "state") // neither memory nor read model is so far
		expect(1, 20, "memory")
		rows.set(0, noSuchClient()) // flushed
		expect(2, 0, "state")
		rows.set(0, errors.New("connection refused")) // away
		for id := int64(3); id < 20; id++ {
			expect(id, 0, "state")
		}
		before := rows.calls.Load()
		expect(20, 0, "state")
		if rows.calls.Load() != before {
			t.Error("a read model that is away is asked every time")
		}
		time.Sleep(6 * time.Second)
		rows.set(30, nil) // back
		expect(21, 25, "read_model")

		// A client that is gone is so by the control plane's word only.
		rows.set(30, noSuchClient())
		remote.set(0, noSuchClient())
		_, err := l.ClientView(t.Context(), 1, 21)
		wantCode(t, err, domain.CodeClientNotFound)
		if _, ok := l.memory.get(1, 0, true); ok {
			t.Error("a client that is gone stays in memory")
		}
		remote.set(0, unreachable(errors.New("gone")))
		if _, err = l.ClientView(t.Context(), 999, 0); !isUnavailable(err) {
			t.Errorf("a flushed read model and no control plane: %v", err)
		}
		// What is known is served when nobody answers, but never as newer than it is.
		time.Sleep(time.Minute)
		rows.set(0, errors.New("away"))
		expect(2, 0, "memory_old")
		expect(2, 20, "memory_old")
		if _, err = l.ClientView(t.Context(), 2, 21); !isUnavailable(err) {
			t.Errorf("a newer view than there is: %v", err)
		}
	})
}

func TestLookupOfTheReadModelAlone(t *testing.T) {
	rows := &source{at: 5}
	l := newLookup(t, LookupConfig{ReadModel: rows})
	must(t, second(l.ClientView(t.Context(), 1, 5)))
	rows.set(5, noSuchClient())
	_, err := l.ClientView(t.Context(), 2, 0)
	wantCode(t, err, domain.CodeClientNotFound)
	if _, err = l.ClientView(t.Context(), 1, 6); err == nil {
		t.Error("gave a view that is too old")
	}
}

func TestLookupsOfOneClientShareTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		remote := &source{at: 9, hang: hang}
		l := newLookup(t, LookupConfig{Remote: remote})
		var asking sync.WaitGroup
		for range 100 {
			asking.Go(func() {
				if _, err := l.ClientView(t.Context(), 1, 5); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		// Who asks for a newer one does not get theirs.
		asking.Go(func() {
			if _, err := l.ClientView(t.Context(), 1, 9); err != nil {
				t.Error(err)
			}
		})
		// Who leaves leaves the others waiting, and undisturbed.
		ctx, cancel := context.WithCancel(t.Context())
		asking.Go(func() {
			if _, err := l.ClientView(ctx, 1, 9); !errors.Is(err, context.Canceled) {
				t.Errorf("got the error %v, want %v", err, context.Canceled)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(hang)
		asking.Wait()
		if n := remote.calls.Load(); n != 2 {
			t.Errorf("asked %d times, want once for each position", n)
		}
	})
}

func TestLookupsGoInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		remote := &source{at: 9, hang: hang}
		l := newLookup(t, LookupConfig{Remote: remote, Calls: 2, Batch: 40})
		var asking sync.WaitGroup
		var left atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 102 {
			asking.Go(func() {
				ctx, id := ctx, int64(i+1)
				if i >= 10 {
					ctx = t.Context()
				}
				v, err := l.ClientView(ctx, id, 0)
				if err != nil {
					left.Add(1)
				} else if v.Client.State.ID != id {
					t.Errorf("client %d got %d", id, v.Client.State.ID)
				}
			})
			synctest.Wait()
		}
		cancel() // two of them are being asked for, the others need not be
		synctest.Wait()
		close(hang)
		asking.Wait()
		remote.mu.Lock()
		defer remote.mu.Unlock()
		total := 0
		for _, wants := range remote.asked {
			total += len(wants)
			if len(wants) > 40 {
				t.Errorf("%d clients in one call", len(wants))
			}
		}
		if len(remote.asked) > 5 || total != 94 || left.Load() != 10 {
			t.Errorf("%d calls for %d clients, %d left", len(remote.asked), total, left.Load())
		}
	})
}

func TestLookupCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote := &source{hang: make(chan struct{})}
		l, err := NewLookup(LookupConfig{Remote: remote})
		must(t, err)
		var asking sync.WaitGroup
		asking.Go(func() {
			if _, err := l.ClientView(t.Context(), 1, 0); err == nil {
				t.Error("an answer from a closed lookup")
			}
		})
		synctest.Wait()
		must(t, l.Close())
		asking.Wait()
		if _, err := l.ClientView(t.Context(), 1, 0); !errors.Is(err, errLookupClosed) {
			t.Errorf("got the error %v, want %v", err, errLookupClosed)
		}
	})
}

func TestMemoryIsBoundedAndForgetsTheLeastUsed(t *testing.T) {
	m := newMemory(30, time.Hour, time.Hour, time.Now, NewClientMetrics()) // views of three parts
	for id := int64(1); id <= 10; id++ {
		m.put(viewAt(id, 1))
	}
	for id := int64(1); id < 10; id++ {
		if _, ok := m.get(id, 0, false); !ok {
			t.Errorf("client %d is not there", id)
		}
	}
	m.put(viewAt(11, 1))
	if _, ok := m.get(10, 0, false); ok {
		t.Error("the one used least is still there")
	}
	big := viewAt(12, 1)
	for i := range 100 {
		var x domain.Versioned[domain.Mapping]
		x.State.ID = int64(i)
		big.Mappings = append(big.Mappings, x)
	}
	m.put(big)
	if len(m.byClient) != 1 || m.weight != 103 {
		t.Errorf("%d views, weight %d", len(m.byClient), m.weight)
	}
	m.put(viewAt(13, 1))
	if len(m.byClient) != 1 || m.weight != 3 || len(m.users) != 3 {
		t.Errorf("%d views, weight %d, %d parts", len(m.byClient), m.weight, len(m.users))
	}
	v, _ := m.get(13, 0, false)
	v.Users[0].State.Disabled, v.Client.State.PublicKey[0] = true, 7
	if again, _ := m.get(13, 0, false); again.Users[0].State.Disabled || again.Client.State.PublicKey[0] != 0 {
		t.Error("a caller changed what is in memory")
	}
}

// With the feed as witness, memory gives at every position exactly what the log
// says, or nothing.
func TestMemoryNeverGivesWhatIsOld(t *testing.T) {
	for seed := range uint64(4) {
		log := projectionstest.NewLog(0)
		history := projectionstest.NewHistory(log, projectionstest.Seeded(seed))
		draw := projectionstest.Seeded(seed + 100)
		all := newStreams(log)
		folds := newFolds(all)
		m := newMemory(400, time.Hour, time.Hour, time.Now, NewClientMetrics())
		var seen domain.Position
		hits, kept := 0, []domain.ClientView{}
		for range 1000 {
			history.Step()
			head := log.Position()
			// The feed comes in pieces, sometimes with a gap, sometimes again.
			if draw(3) > 0 {
				for _, r := range log.Records(head) {
					if r.Position > seen && draw(300) > 0 {
						m.observe(r)
					} else if draw(50) == 0 {
						m.observe(r)
					}
				}
				seen = head
			}
			all.read()
			ids := all.clients
			if len(ids) == 0 {
				continue
			}
			id := ids[draw(len(ids))]
			if v, err := folds.view(t.Context(), id, head); err == nil {
				kept = append(kept, v)
			}
			// What was read is remembered now or a little later.
			for len(kept) > draw(4) {
				m.put(lean(kept[0]))
				kept = kept[1:]
			}
			id = ids[draw(len(ids))]
			if draw(20) == 0 {
				m.drop(id)
			}
			if draw(100) == 0 {
				m.lost()
			}
			want := domain.Position(draw(int(head) + 1))
			if draw(2) == 0 {
				want = seen
			}
			got, ok := m.get(id, want, draw(2) == 0)
			if !ok {
				continue
			}
			hits++
			if got.Position < want {
				t.Fatalf("seed %d: as of %d, asked for %d", seed, got.Position, want)
			}
			// Every part is at least what it was at the view's position.
			if err := atLeast(got, all, got.Position); err != nil {
				t.Fatalf("seed %d: client %d as of %d: %v", seed, id, got.Position, err)
			}
		}
		if hits < 50 {
			t.Errorf("seed %d: only %d hits; the test sees nothing", seed, hits)
		}
	}
}

// atLeast compares a view with the log folded to its position.
func atLeast(v domain.ClientView, log *streams, p domain.Position) error {
	past := newFolds(upTo{log, p})
	want, err := past.view(context.Background(), v.Client.State.ID, p)
	if err != nil {
		return err
	}
	want = lean(want)
	versions := func(v domain.ClientView) map[part]domain.Version {
		all := map[part]domain.Version{{partClient, v.Client.State.ID}: v.Client.Version}
		for _, x := range v.Mappings {
			all[part{partMapping, x.State.ID}] = x.Version
		}
		for _, x := range v.Users {
			all[part{partUser, x.State.ID}] = x.Version
		}
		for _, x := range v.Limits {
			all[part{partQuota, x.State.Account}] = x.Version
		}
		return all
	}
	got := versions(v)
	newer := false
	for part, version := range versions(want) {
		if got[part] < version {
			return errors.New("it is old in " + string(part.category))
		}
		newer = newer || got[part] > version
	}
	if want.Position = v.Position; !newer && len(got) == len(versions(want)) && !reflect.DeepEqual(v, want) {
		return errors.New("it differs from the log")
	}
	return nil
}

// upTo is a log that ends earlier.
type upTo struct {
	*streams
	end domain.Position
}

func (u upTo) ReadStream(ctx context.Context, id domain.StreamID, after domain.Version, limit int) ([]domain.Record, error) {
	records, err := u.streams.ReadStream(ctx, id, after, limit)
	for i, r := range records {
		if r.Position > u.end {
			return records[:i], err
		}
	}
	return records, err
}

// The whole chain: read models that are flushed fill again from the log, and
// nobody notices but the figures.
func TestLookupOverlivesAFlush(t *testing.T) {
	p := newPlane(t)
	user, a, b := p.pair()
	id, at := p.mapping(user, a, b, 8000)
	must(t, p.reader.Wait(t.Context(), at))
	flushed := &flushable{Views: p.reader}
	s := p.serve("", func(c *ServerConfig) { c.Views = flushed })
	client := p.dial([]string{s.address})
	l := newLookup(t, LookupConfig{ReadModel: flushed, Remote: client, MaxAge: time.Nanosecond})
	expect := func(who int64, min domain.Position, want string) {
		t.Helper()
		from, v, err := level(t, l, who, min)
		if err != nil || from != want || len(v.Mappings) != 1 || v.Mappings[0].State.ID != id {
			t.Errorf("from %q, %v: %+v", from, err, v)
		}
		if len(v.Users) != 1 || v.Users[0].State.PasswordHash != "" || v.Users[0].State.Email != "" {
			t.Errorf("from %q: a forwarder keeps %+v of a user", from, v.Users)
		}
	}
	expect(a, at, "read_model")
	flushed.empty.Store(true)
	expect(b, at, "state")
	expect(a, 0, "state")
	s.stop()
	time.Sleep(time.Millisecond)
	expect(a, at, "memory_old") // both are away
	flushed.empty.Store(false)
	expect(b, at, "read_model")
	// With the feed watching, memory answers for its position.
	records, err := p.store.ReadAll(t.Context(), 0, 1000)
	must(t, err)
	for _, r := range records {
		l.Observe(r)
	}
	expect(a, at, "read_model")
	expect(a, at, "memory")
	l.Reached(at + 5)
	expect(a, at, "read_model") // what came in between is not known
}

// A feed that has gone silent, or was lost, is no witness: what it would have told
// of is asked for.
func TestASilentFeedWatchesOverNothing(t *testing.T) {
	now := time.Now()
	m := newMemory(100, time.Millisecond, 5*time.Second, func() time.Time { return now }, NewClientMetrics())
	serves := func(want bool, when string) {
		t.Helper()
		if _, ok := m.get(1, 0, false); ok != want {
			t.Errorf("%s: served is %v", when, ok)
		}
		if _, ok := m.get(1, 0, true); !ok {
			t.Errorf("%s: not even as the last resort", when)
		}
	}
	m.reached(7)
	m.put(viewAt(1, 7))
	now = now.Add(4 * time.Second)
	serves(true, "a moment after the feed")
	now = now.Add(2 * time.Second)
	serves(false, "after its silence")
	m.reached(7) // a heartbeat: nothing was missed
	serves(true, "after a heartbeat")
	m.lost()
	serves(false, "after the feed was lost")
	m.reached(7)
	serves(false, "when the feed is back")
	m.put(viewAt(1, 7))
	serves(true, "read anew")
}

// flushable are read models that can be empty.
type flushable struct {
	Views
	empty atomic.Bool
}

func (f *flushable) ClientView(ctx context.Context, id int64, min domain.Position) (domain.ClientView, error) {
	if f.empty.Load() {
		return domain.ClientView{}, noSuchClient()
	}
	return f.Views.ClientView(ctx, id, min)
}

var _ Views = (*projections.Reader)(nil)
var _ Remote = (*Client)(nil)

// Lookups as forwarders make them: most clients are asked for again and again, one
// lookup in ten is of any client, the feed brings changes, and in the middle the
// read models are flushed and fill again.
func TestMostLookupsEndBeforeTheRemoteHop(t *testing.T) {
	p := newPlane(t)
	user := p.user(domain.Limits{})
	ids := make([]int64, 400)
	for i := range ids {
		ids[i] = p.client(user)
	}
	head, err := p.head(t.Context())
	must(t, err)
	must(t, p.reader.Wait(t.Context(), head))
	records, err := p.store.ReadAll(t.Context(), 0, 1<<20)
	must(t, err)
	rows := &flushable{Views: p.reader}
	s := p.serve("", func(c *ServerConfig) { c.Views = rows })
	config := LookupConfig{Remote: p.dial([]string{s.address}), ReadModel: rows, Capacity: 600, MaxAge: time.Millisecond, Silence: time.Hour, Metrics: NewClientMetrics()}
	l := newLookup(t, config)
	for _, r := range records {
		l.Observe(r)
	}
	const workers, each = 16, 1000
	count := func(level string) float64 { return number(t, config.Metrics.lookups.WithLabelValues(level)) }
	run := func(what string) {
		t.Helper()
		remote, began := count("state"), time.Now()
		var working sync.WaitGroup
		for w := range workers {
			draw := rand.New(rand.NewPCG(1, uint64(w)))
			working.Go(func() {
				for range each {
					id := ids[draw.IntN(len(ids)/10)]
					if draw.IntN(10) == 0 {
						id = ids[draw.IntN(len(ids))]
					}
					if _, err := l.ClientView(t.Context(), id, head); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		working.Wait()
		before := 1 - (count("state")-remote)/(workers*each)
		t.Logf("%s: %.0f lookups/s, %.1f %% before the remote hop", what, workers*each/time.Since(began).Seconds(), 100*before)
		if before < 0.8 {
			t.Errorf("%s: only %.1f %% are answered before the remote hop", what, 100*before)
		}
	}
	run("with read models")
	rows.empty.Store(true)
	run("read models flushed")
	rows.empty.Store(false)
	run("filled again")
	if count("read_model") == 0 {
		t.Error("the read models answered nothing")
	}
}
