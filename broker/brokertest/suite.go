// Package brokertest is the suite that every configuration feed must pass.
package brokertest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/domain"
)

// Feed is a feed under test.
type Feed struct {
	Publisher broker.Publisher
	// Another is a second publisher of the same feed.
	Another  broker.Publisher
	Follower broker.Follower
	// Trim removes the records up to a position from the feed, as a full ring does.
	// Flush removes everything, as an operator does.
	Trim  func(domain.Position)
	Flush func()
}

// Run runs the suite. open gives an empty feed for each test.
func Run(t *testing.T, open func(testing.TB) Feed) {
	tests := []struct {
		name string
		run  func(*testing.T, Feed)
	}{
		{"from the start", testFromStart},
		{"from the middle", testFromMiddle},
		{"records arrive whole", testWhole},
		{"several followers, one leaves", testSeveral},
		{"what is there already is left as it is", testStale},
		{"two publishers at once", testTwoPublishers},
		{"records that went missing are a gap", testMissing},
		{"trimming is a gap for those behind", testTrim},
		{"what was before an erasure is forgotten, and live followers miss nothing", testForgets},
		{"flush is a gap for those behind and silence for others", testFlush},
		{"control entries", testHeartbeat},
		{"reset begins again", testReset},
		{"another epoch is another log", testForked},
		{"another record before it is another log", testParted},
		{"a context that ends leaves the subscription as it was", testContext},
		{"close wakes a waiting follower", testClose},
		{"a slow follower holds up nobody", testSlow},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// limit bounds every wait of the suite.
const limit = 10 * time.Second

// Records makes records from one position to another.
func Records(from, to int) []domain.Record {
	var records []domain.Record
	for n := from; n <= to; n++ {
		records = append(records, domain.Record{Position: domain.Position(n), Stream: domain.MappingStream(int64(1000 + n)),
			Version: 1, Owner: domain.FirstUserID, Name: "mapping_enabled", Schema: 1,
			ID: domain.EventID{15: byte(n), 14: byte(n >> 8), 13: byte(n >> 16)}, Data: []byte(`{"n":1}`),
			Meta:     domain.Metadata{At: time.Unix(int64(n), 0).UTC(), Actor: "key:test", Command: "enable_mapping"},
			Recorded: time.Unix(int64(n), 5000).UTC()})
	}
	return records
}

// At gives the place of the nth of Records.
func At(n int) domain.Place {
	if n == 0 {
		return domain.Place{}
	}
	return domain.PlaceOf(Records(n, n)[0])
}

// Publish publishes Records(from, to).
func Publish(t testing.TB, p broker.Publisher, from, to int) {
	t.Helper()
	if err := p.Publish(context.Background(), At(from-1), Records(from, to)); err != nil {
		t.Fatalf("publish %d to %d: %v", from, to, err)
	}
}

// Follow follows until the end of the test.
func Follow(t testing.TB, f broker.Follower, after int) broker.Subscription {
	t.Helper()
	s, err := f.Follow(context.Background(), domain.Position(after))
	if err != nil {
		t.Fatalf("follow from %d: %v", after, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func next(t testing.TB, s broker.Subscription) (broker.Entry, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return s.Next(ctx)
}

// Want reads the records from one position to another and skips control entries.
func Want(t testing.TB, s broker.Subscription, from, to int) {
	t.Helper()
	for n := from; n <= to; {
		e, err := next(t, s)
		if err != nil {
			t.Fatalf("next, want %d: %v", n, err)
		}
		if e.Record == nil {
			continue
		}
		if e.Position != domain.Position(n) || e.Record.Position != e.Position || e.Prev != e.Position-1 {
			t.Fatalf("entry %d behind %d with record %d, want %d", e.Position, e.Prev, e.Record.Position, n)
		}
		n++
	}
}

// WantGap reads until the gap. Only control entries may come before it.
func WantGap(t testing.TB, s broker.Subscription) {
	t.Helper()
	for range 2 { // a gap stays a gap
		for {
			e, err := next(t, s)
			if errors.Is(err, broker.ErrGap) {
				break
			}
			if err != nil || e.Record != nil {
				t.Fatalf("entry %+v, %v; want a gap", e, err)
			}
		}
	}
}

// WantForked reads until the follower is told that it has followed another log. Only
// control entries may come before that.
func WantForked(t testing.TB, s broker.Subscription) {
	t.Helper()
	for range 2 { // the answer stays the same
		for {
			e, err := next(t, s)
			if errors.Is(err, broker.ErrForked) {
				break
			}
			if err != nil || e.Record != nil {
				t.Fatalf("entry %+v, %v; want ErrForked", e, err)
			}
		}
	}
}

// silent checks for a moment that neither a record nor a gap comes.
func silent(t testing.TB, s broker.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for {
		e, err := s.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil || e.Record != nil {
			t.Fatalf("entry %+v, %v; want silence", e, err)
		}
	}
}

func testFromStart(t *testing.T, f Feed) {
	early := Follow(t, f.Follower, 0)
	Publish(t, f.Publisher, 1, 3)
	Publish(t, f.Publisher, 4, 1000)
	Want(t, early, 1, 1000)
	Want(t, Follow(t, f.Follower, 0), 1, 1000)
}

func testFromMiddle(t *testing.T, f Feed) {
	Publish(t, f.Publisher, 1, 100)
	s := Follow(t, f.Follower, 60)
	Want(t, s, 61, 100)
	end, ahead := Follow(t, f.Follower, 100), Follow(t, f.Follower, 103)
	silent(t, s)
	Publish(t, f.Publisher, 101, 105)
	Want(t, s, 101, 105)
	Want(t, end, 101, 105)
	Want(t, ahead, 104, 105)
}

func testWhole(t *testing.T, f Feed) {
	want := Records(1, 2)
	want[1].Data = []byte(`{ "text" : "` + strings.Repeat("äöü<&", 200_000) + `"}`)
	if err := f.Publisher.Publish(context.Background(), domain.Place{}, want); err != nil {
		t.Fatal(err)
	}
	s := Follow(t, f.Follower, 0)
	for _, w := range want {
		e, err := next(t, s)
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Record.Data) != string(w.Data) {
			t.Fatalf("data of %d bytes, want %d as they were", len(e.Record.Data), len(w.Data))
		}
		if !reflect.DeepEqual(*e.Record, w) {
			t.Errorf("record %+v, want %+v", e.Record, w)
		}
	}
}

func testSeveral(t *testing.T, f Feed) {
	var subs []broker.Subscription
	for range 5 {
		subs = append(subs, Follow(t, f.Follower, 0))
	}
	Publish(t, f.Publisher, 1, 20)
	for _, s := range subs {
		Want(t, s, 1, 20)
	}
	for range 2 { // a second Close does nothing
		if err := subs[2].Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	Publish(t, f.Publisher, 21, 40)
	for i, s := range subs {
		if i == 2 {
			if _, err := next(t, s); !errors.Is(err, broker.ErrClosed) {
				t.Errorf("next after close: %v, want ErrClosed", err)
			}
			continue
		}
		Want(t, s, 21, 40)
	}
}

func testStale(t *testing.T, f Feed) {
	s := Follow(t, f.Follower, 0)
	Publish(t, f.Publisher, 1, 10)
	Publish(t, f.Publisher, 1, 10)
	Publish(t, f.Another, 3, 12)
	Publish(t, f.Publisher, 5, 6)
	if err := f.Publisher.Publish(context.Background(), At(12), nil); err != nil {
		t.Errorf("publish nothing: %v", err)
	}
	Publish(t, f.Publisher, 13, 13)
	Want(t, s, 1, 13)
	silent(t, s)
	if end, _, ok, err := f.Publisher.Last(context.Background()); end != At(13) || !ok || err != nil {
		t.Errorf("last: %v, %v, %v", end, ok, err)
	}
}

func testTwoPublishers(t *testing.T, f Feed) {
	s := Follow(t, f.Follower, 0)
	var working sync.WaitGroup
	for i, p := range []broker.Publisher{f.Publisher, f.Another} {
		working.Go(func() {
			for from := 1; from <= 2000; from += 7 + 6*i {
				to := min(from+6+6*i, 2000)
				if err := p.Publish(context.Background(), At(from-1), Records(from, to)); err != nil {
					t.Errorf("publish: %v", err)
				}
				if err := p.Heartbeat(context.Background(), At(to)); err != nil {
					t.Errorf("heartbeat: %v", err)
				}
			}
		})
	}
	Want(t, s, 1, 2000)
	working.Wait()
	silent(t, s)
}

func testMissing(t *testing.T, f Feed) {
	behind := Follow(t, f.Follower, 0)
	Publish(t, f.Publisher, 1, 5)
	Publish(t, f.Publisher, 8, 9)
	Want(t, behind, 1, 5)
	WantGap(t, behind)
	Want(t, Follow(t, f.Follower, 7), 8, 9)
}

func testTrim(t *testing.T, f Feed) {
	started := Follow(t, f.Follower, 0)
	Publish(t, f.Publisher, 1, 100)
	Want(t, started, 1, 1)
	f.Trim(50)
	WantGap(t, Follow(t, f.Follower, 0))
	WantGap(t, Follow(t, f.Follower, 49))
	Want(t, Follow(t, f.Follower, 50), 51, 100)
	f.Trim(100)
	late := Follow(t, f.Follower, 80)
	Publish(t, f.Publisher, 101, 101)
	WantGap(t, late)
	Want(t, Follow(t, f.Follower, 100), 101, 101)
}

func testForgets(t *testing.T, f Feed) {
	live := Follow(t, f.Follower, 0)
	records := Records(1, 20)
	records[9].Name, records[9].Stream, records[9].Data = "user_erased", domain.ErasureStream(domain.FirstUserID), []byte("{}")
	if err := f.Publisher.Publish(t.Context(), domain.Place{}, records); err != nil {
		t.Fatal(err)
	}
	Want(t, live, 1, 20)
	for deadline := time.Now().Add(limit); ; {
		if err := f.Publisher.Heartbeat(t.Context(), At(20)); err != nil {
			t.Fatal(err)
		}
		if _, err := next(t, Follow(t, f.Follower, 0)); errors.Is(err, broker.ErrGap) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the entries before the erasure are still there")
		}
	}
	Want(t, Follow(t, f.Follower, 9), 10, 20)
	Publish(t, f.Publisher, 21, 22)
	Want(t, live, 21, 22)
}

func testFlush(t *testing.T, f Feed) {
	current, lagging := Follow(t, f.Follower, 0), Follow(t, f.Follower, 7)
	Publish(t, f.Publisher, 1, 10)
	Want(t, current, 1, 10)
	Want(t, lagging, 8, 10)
	f.Flush()
	if _, epoch, ok, err := f.Publisher.Last(context.Background()); ok || epoch != "" || err != nil {
		t.Fatalf("last after a flush: %v, %v; want nothing", ok, err)
	}
	behind := Follow(t, f.Follower, 9)
	// A relay that finds the feed empty does this.
	if err := f.Publisher.Heartbeat(context.Background(), At(10)); err != nil {
		t.Fatal(err)
	}
	WantGap(t, behind)
	silent(t, current)
	Publish(t, f.Publisher, 11, 15)
	Want(t, current, 11, 15)
	Want(t, lagging, 11, 15)
}

func testHeartbeat(t *testing.T, f Feed) {
	ctx := context.Background()
	s := Follow(t, f.Follower, 0)
	Publish(t, f.Publisher, 1, 3)
	Want(t, s, 1, 3)
	for range 3 {
		if err := f.Publisher.Heartbeat(ctx, At(3)); err != nil {
			t.Fatal(err)
		}
		if e, err := next(t, s); err != nil || e.Record != nil || e.Position != 3 || e.Prev != 3 {
			t.Fatalf("control entry: %+v, %v", e, err)
		}
	}
	if err := f.Another.Heartbeat(ctx, At(2)); err != nil {
		t.Errorf("stale heartbeat: %v", err)
	}
	silent(t, s)
	if end, _, ok, err := f.Publisher.Last(ctx); end != At(3) || !ok || err != nil {
		t.Errorf("last: %v, %v, %v", end, ok, err)
	}
	if err := f.Publisher.Heartbeat(ctx, At(5)); err != nil {
		t.Fatal(err)
	}
	WantGap(t, s)
	Publish(t, f.Publisher, 4, 6) // 4 and 5 come too late: the feed is at 5 already
	WantGap(t, Follow(t, f.Follower, 3))
	Want(t, Follow(t, f.Follower, 5), 6, 6)
}

func testReset(t *testing.T, f Feed) {
	ctx := context.Background()
	Publish(t, f.Publisher, 1, 900)
	if err := f.Publisher.Reset(ctx, "second"); err != nil {
		t.Fatal(err)
	}
	if end, epoch, ok, err := f.Publisher.Last(ctx); ok || epoch != "second" || err != nil {
		t.Errorf("last after reset: %v, %q, %v, %v", end, epoch, ok, err)
	}
	Publish(t, f.Publisher, 31, 40)
	Want(t, Follow(t, f.Follower, 30), 31, 40)
	WantGap(t, Follow(t, f.Follower, 20))
}

// testForked: a log was rolled back. Its positions are used again, so a follower that
// was further sees nothing that looks new.
func testForked(t *testing.T, f Feed) {
	ctx := context.Background()
	if err := f.Publisher.Reset(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	at, beyond, waiting := Follow(t, f.Follower, 0), Follow(t, f.Follower, 500), Follow(t, f.Follower, 40)
	Publish(t, f.Publisher, 1, 40)
	Want(t, at, 1, 40)
	for _, s := range []broker.Subscription{beyond, waiting} {
		silent(t, s)
	}
	// A second Reset with the same epoch, as after a flush, does not mean another log.
	f.Flush()
	if err := f.Publisher.Reset(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	if err := f.Publisher.Heartbeat(ctx, At(40)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []broker.Subscription{at, beyond, waiting} {
		silent(t, s)
	}
	if err := f.Another.Reset(ctx, "second"); err != nil {
		t.Fatal(err)
	}
	if err := f.Another.Heartbeat(ctx, At(20)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []broker.Subscription{at, beyond, waiting} {
		WantForked(t, s)
	}
	again := Follow(t, f.Follower, 20)
	Publish(t, f.Another, 21, 25)
	Want(t, again, 21, 25)
}

// testParted: an entry names the record before it. A follower that had another record
// there has followed another log.
func testParted(t *testing.T, f Feed) {
	ctx := context.Background()
	s, control, far := Follow(t, f.Follower, 0), Follow(t, f.Follower, 0), Follow(t, f.Follower, 3)
	Publish(t, f.Publisher, 1, 3)
	Want(t, s, 1, 3)
	Want(t, control, 1, 3)
	other := domain.Place{Position: 3, EventID: domain.EventID{1}}
	if err := f.Publisher.Heartbeat(ctx, other); err != nil {
		t.Fatal(err)
	}
	WantForked(t, control)
	if err := f.Publisher.Publish(ctx, other, Records(4, 4)); err != nil {
		t.Fatal(err)
	}
	WantForked(t, s)
	Want(t, far, 4, 4) // this follower does not know the record at 3
}

func testContext(t *testing.T, f Feed) {
	s := Follow(t, f.Follower, 0)
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Millisecond)
		_, err := s.Next(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("next with a context that ends: %v", err)
		}
	}
	Publish(t, f.Publisher, 1, 3)
	Want(t, s, 1, 3)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Follower.Follow(ended, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("follow with an ended context: %v", err)
	}
	if err := f.Publisher.Publish(ended, At(3), Records(4, 4)); !errors.Is(err, context.Canceled) {
		t.Errorf("publish with an ended context: %v", err)
	}
}

func testClose(t *testing.T, f Feed) {
	s := Follow(t, f.Follower, 0)
	result := make(chan error, 1)
	go func() {
		_, err := s.Next(context.Background())
		result <- err
	}()
	time.Sleep(20 * time.Millisecond) // lets Next wait; the result is the same without this
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-result:
		if !errors.Is(err, broker.ErrClosed) {
			t.Errorf("next: %v, want ErrClosed", err)
		}
	case <-time.After(limit):
		t.Fatal("next does not return")
	}
	if d := time.Since(begin); d > 200*time.Millisecond {
		t.Errorf("close took %s", d)
	}
}

func testSlow(t *testing.T, f Feed) {
	slow, quick := Follow(t, f.Follower, 0), Follow(t, f.Follower, 0)
	for from := 1; from < 5000; from += 100 {
		Publish(t, f.Publisher, from, from+99)
		Want(t, quick, from, from+99)
	}
	Want(t, slow, 1, 5000)
}

// Latency publishes one record at a time and gives the times until they reached the
// follower, sorted.
func Latency(t testing.TB, f Feed, n int) []time.Duration {
	t.Helper()
	s := Follow(t, f.Follower, 0)
	sent := make(chan time.Time, 1)
	done := make(chan struct{})
	defer func() { <-done }() // the last record may arrive before its Publish returns
	go func() {
		defer close(done)
		for i := 1; i <= n; i++ {
			records := Records(i, i)
			sent <- time.Now()
			if err := f.Publisher.Publish(context.Background(), At(i-1), records); err != nil {
				t.Errorf("publish: %v", err)
				return
			}
			time.Sleep(200 * time.Microsecond) // for an idle feed, not a queue
		}
	}()
	var took []time.Duration
	for i := 1; i <= n; i++ {
		begin := <-sent
		Want(t, s, i, i)
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took
}
