package eventstoretest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// Open gives a new, empty store. The test closes it at its end.
type Open func(t testing.TB) eventstore.Store

// Run checks the whole contract of a store.
func Run(t *testing.T, open Open) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"records come back as they were appended", testRoundTrip},
		{"expected versions", testExpectedVersions},
		{"a guard refuses and writes nothing", testGuard},
		{"an append of several streams is all or nothing", testAtomicity},
		{"claims are taken, released and renamed", testClaims},
		{"of two claims at the same moment one wins", testClaimRace},
		{"a key gives the first result again", testIdempotency},
		{"a closed stream takes no records", testClosed},
		{"a batch is decided in order", testBatch},
		{"malformed appends are refused alone", testMalformed},
		{"an event of 1 MB", testLargeEvent},
		{"recorded times rise, whatever the clock does", testTimesRise},
		{"trying whether it can be written writes nothing", testCanAppend},
		{"pages", testPages},
		{"a search finds what looking through the log finds", testSearch},
		{"who holds a claim", testHolders},
		{"a fork is noticed", testVerify},
		{"ids rise and are never given twice", testNextID},
		{"waiting", testWait},
		{"a context that ends", testContext},
		{"leaves cover what was stored", testLeaves},
		{"writers with conflicts, duplicates and refusals beside a reader", testWritersAndReader},
		{"appends to one stream are linearizable", testLinearizable},
		{"the same as the model", testModel},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
}

// at is the time of the suite's appends. It has nanoseconds, because metadata must keep
// the time that came with the command.
var at = time.Date(2026, 11, 23, 1, 2, 3, 456789123, time.UTC)

func meta() domain.Metadata {
	return domain.Metadata{At: at, Actor: "user:1", Command: "test", Source: "192.0.2.1:4711", Request: "r-1", Allowed: "role:admin"}
}

// one makes an append of n events to one event stream.
func one(stream domain.StreamID, expected domain.Version, n int) eventstore.Append {
	a := eventstore.Append{Account: 7, Meta: meta(), Streams: []eventstore.StreamAppend{{Stream: stream, Expected: expected}}}
	for i := range n {
		a.Events = append(a.Events, eventstore.NewEvent{Name: "happened", Schema: 1, Data: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	return a
}

func context10s(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// do appends one append and gives its result.
func do(t testing.TB, s eventstore.Store, a eventstore.Append) eventstore.Result {
	t.Helper()
	results, err := s.AppendBatch(context10s(t), []eventstore.Append{a})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if len(results) != 1 {
		t.Fatalf("append of 1 gave %d results", len(results))
	}
	return results[0]
}

// must appends an append that must succeed.
func must(t testing.TB, s eventstore.Store, a eventstore.Append) eventstore.Result {
	t.Helper()
	r := do(t, s, a)
	if r.Err != nil {
		t.Fatalf("append: %v", r.Err)
	}
	return r
}

// refused appends an append that must fail.
func refused(t testing.TB, s eventstore.Store, a eventstore.Append, want error) {
	t.Helper()
	if r := do(t, s, a); !errors.Is(r.Err, want) {
		t.Fatalf("append: %v, want %v", r.Err, want)
	}
}

// whole reads the log in pages of an odd size. It checks that the log is dense, and
// that the event streams hold the same records: what a store caches of its appends must
// be what it has written.
func whole(t testing.TB, s eventstore.Store) []domain.Record {
	t.Helper()
	var all []domain.Record
	for {
		page, err := s.ReadAll(context10s(t), domain.Position(len(all)), 97)
		if err != nil {
			t.Fatalf("read the log: %v", err)
		}
		if len(page) == 0 {
			sameInStreams(t, s, all)
			return all
		}
		all = append(all, page...)
		if err := eventstore.CheckDense(0, all); err != nil {
			t.Fatal(err)
		}
	}
}

func sameInStreams(t testing.TB, s eventstore.Store, all []domain.Record) {
	t.Helper()
	streams := map[domain.StreamID][]domain.Record{}
	for i := range all {
		streams[all[i].Stream] = append(streams[all[i].Stream], all[i])
	}
	for id, want := range streams {
		got, err := s.ReadStream(context10s(t), id, 0, len(want)+1)
		if err != nil {
			t.Fatalf("read event stream %s: %v", id, err)
		}
		got = got[:min(len(got), len(want))] // the log may have grown
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("event stream %s is\n%+v, in the log it is\n%+v", id, got, want)
		}
	}
}

func testRoundTrip(t *testing.T, open Open) {
	s := open(t)
	a := one("user-1", eventstore.NotExist, 0)
	a.Meta.At = at.In(time.FixedZone("", 3600))
	// A store could lose key order, spaces, escapes and big numbers.
	data := []string{`{"b":1, "a":2,"b":3}`, `"\u0000\ud83d\ude00 é"`, `123456789012345678901234567890.10`, `null`}
	for _, d := range data {
		a.Events = append(a.Events, eventstore.NewEvent{Name: "happened", Schema: 3, Data: []byte(d)})
	}
	r := must(t, s, a)
	if r.First != 1 || r.Last != 4 || r.Duplicate {
		t.Fatalf("result %+v, want positions 1 to 4", r)
	}
	all := whole(t, s)
	for i, rec := range all {
		if string(rec.Data) != data[i] {
			t.Errorf("data %s came back as %s", data[i], rec.Data)
		}
		if rec.Stream != "user-1" || rec.Version != domain.Version(i+1) || rec.Owner != 7 || rec.Name != "happened" || rec.Schema != 3 || rec.ID.IsZero() {
			t.Errorf("record came back as %+v", rec)
		}
		if rec.Meta != meta() {
			t.Errorf("metadata came back as %+v, want %+v", rec.Meta, meta())
		}
		if age := time.Since(rec.Recorded); age < -time.Minute || age > time.Minute {
			t.Errorf("recorded %s", rec.Recorded)
		}
	}
	if !reflect.DeepEqual(all, r.Records) {
		t.Errorf("a reader gets\n%+v\nand the append got\n%+v", all, r.Records)
	}
	stream, err := s.ReadStream(context10s(t), "user-1", 0, 10)
	if err != nil || !reflect.DeepEqual(stream, all) {
		t.Errorf("the event stream is\n%+v, %v\nand the log\n%+v", stream, err, all)
	}
}

func testExpectedVersions(t *testing.T, open Open) {
	s := open(t)
	refused(t, s, one("user-1", 1, 1), eventstore.ErrConflict)
	refused(t, s, one("user-1", eventstore.MustExist, 1), eventstore.ErrConflict)
	must(t, s, one("user-1", eventstore.NotExist, 2))
	refused(t, s, one("user-1", eventstore.NotExist, 1), eventstore.ErrConflict)
	refused(t, s, one("user-1", 1, 1), eventstore.ErrConflict)
	refused(t, s, one("user-1", 3, 1), eventstore.ErrConflict)
	must(t, s, one("user-1", 2, 1))
	must(t, s, one("user-1", eventstore.MustExist, 1))
	must(t, s, one("user-1", eventstore.Any, 1))
	must(t, s, one("user-2", eventstore.Any, 1))
	if n := len(whole(t, s)); n != 6 {
		t.Fatalf("the log has %d records, want 6", n)
	}
}

func testGuard(t *testing.T, open Open) {
	s := open(t)
	must(t, s, one("user-1", 0, 2))
	guarded := func(stream domain.StreamID, expected domain.Version) eventstore.Append {
		a := one("mapping-1", eventstore.Any, 1)
		a.Streams = append(a.Streams, eventstore.StreamAppend{Stream: stream, Expected: expected})
		return a
	}
	refused(t, s, guarded("user-1", 1), eventstore.ErrConflict)
	refused(t, s, guarded("user-1", 0), eventstore.ErrConflict)
	refused(t, s, guarded("user-9", 1), eventstore.ErrConflict)
	must(t, s, guarded("user-1", 2))
	must(t, s, guarded("user-9", 0))
	must(t, s, guarded("user-1", eventstore.MustExist))
	if got, err := s.ReadStream(context10s(t), "user-9", 0, 10); err != nil || len(got) != 0 {
		t.Fatalf("a guard wrote %v, %v", got, err)
	}
}

func testAtomicity(t *testing.T, open Open) {
	s := open(t)
	must(t, s, one("client-1", 0, 1))
	a := one("user-1", 0, 0)
	a.Streams = append(a.Streams, eventstore.StreamAppend{Stream: "client-1", Expected: 0}, eventstore.StreamAppend{Stream: "quota-1", Expected: 0})
	for _, stream := range []int{2, 0, 1, 0} {
		a.Events = append(a.Events, eventstore.NewEvent{Stream: stream, Name: "happened", Schema: 1, Data: []byte(`{}`)})
	}
	a.Claims = []domain.Claim{{Scope: "username", Value: "ann", Owner: "user-1"}}
	a.Key, a.KeyScope = "k", "caller"
	refused(t, s, a, eventstore.ErrConflict)
	if n := len(whole(t, s)); n != 1 {
		t.Fatalf("a refused append wrote %d records", n-1)
	}
	if _, used, err := s.KeyUse(context10s(t), "caller", "k"); used || err != nil {
		t.Fatalf("a refused append used its key (%v)", err)
	}
	a.Streams[1].Expected = 1
	r := must(t, s, a)
	if r.First != 2 || r.Last != 5 {
		t.Fatalf("positions %d to %d, want 2 to 5", r.First, r.Last)
	}
	var got []string
	for _, rec := range whole(t, s)[1:] {
		got = append(got, fmt.Sprint(rec.Stream, "@", rec.Version))
	}
	if want := "quota-1@1 user-1@1 client-1@2 user-1@2"; strings.Join(got, " ") != want {
		t.Fatalf("appended %v, want %s", got, want)
	}
}

func testClaims(t *testing.T, open Open) {
	s := open(t)
	ann := domain.Claim{Scope: "username", Value: "ann", Owner: "user-1"}
	eve := domain.Claim{Scope: "username", Value: "eve", Owner: "user-1"}
	claiming := func(owner domain.StreamID, releases, claims []domain.Claim) eventstore.Append {
		a := one(owner, eventstore.Any, 1)
		a.Releases, a.Claims = releases, claims
		return a
	}
	of := func(c domain.Claim, owner domain.StreamID) domain.Claim { c.Owner = owner; return c }
	must(t, s, claiming("user-1", nil, []domain.Claim{ann}))
	holds := func(scope, value string, want domain.StreamID) {
		t.Helper()
		if owner, err := s.Holder(context10s(t), scope, value); owner != want || err != nil {
			t.Errorf("%s %s is held by %q (%v), want %q", scope, value, owner, err, want)
		}
	}
	holds("username", "ann", "user-1")
	holds("email", "ann", "")
	must(t, s, claiming("user-1", nil, []domain.Claim{ann})) // a claim that its owner holds already
	refused(t, s, claiming("user-2", nil, []domain.Claim{of(ann, "user-2")}), eventstore.ErrTaken)
	taken, ok := errors.AsType[*eventstore.TakenError](do(t, s, claiming("user-2", nil, []domain.Claim{of(eve, "user-2"), of(ann, "user-2")})).Err)
	if !ok || taken.Claim != of(ann, "user-2") {
		t.Fatalf("the refusal names %v, want ann", taken)
	}
	// What is not one's own cannot be given back.
	refused(t, s, claiming("user-2", []domain.Claim{of(ann, "user-2")}, []domain.Claim{of(ann, "user-2")}), eventstore.ErrTaken)
	// The same value in another scope is another claim.
	must(t, s, claiming("user-2", nil, []domain.Claim{{Scope: "email", Value: "ann", Owner: "user-2"}}))
	// A claim of another owner cannot be released.
	must(t, s, claiming("user-1", []domain.Claim{ann}, []domain.Claim{eve}))
	must(t, s, claiming("user-1", []domain.Claim{eve}, []domain.Claim{eve}))
	must(t, s, claiming("user-2", nil, []domain.Claim{of(ann, "user-2")}))
	holds("username", "ann", "user-2")
	holds("username", "eve", "user-1")
	refused(t, s, claiming("user-2", nil, []domain.Claim{of(eve, "user-2")}), eventstore.ErrTaken)
	must(t, s, claiming("user-1", []domain.Claim{eve}, nil))
	holds("username", "eve", "")
	must(t, s, claiming("user-2", nil, []domain.Claim{of(eve, "user-2")}))
}

func testIdempotency(t *testing.T, open Open) {
	s := open(t)
	keyed := func(stream domain.StreamID, scope, request string) eventstore.Append {
		a := one(stream, 0, 2)
		a.Key, a.KeyScope, a.Hash, a.Subject = "key-1", scope, sha256.Sum256([]byte(request)), stream
		return a
	}
	first := must(t, s, keyed("user-1", "ann", "a request"))
	again := must(t, s, keyed("user-2", "ann", "a request"))
	if !again.Duplicate || again.First != first.First || again.Last != first.Last || again.Subject != "user-1" || again.Records != nil {
		t.Fatalf("the retry got %+v, the first %+v", again, first)
	}
	refused(t, s, keyed("user-2", "ann", "another request"), eventstore.ErrKeyReused)
	if r := must(t, s, keyed("user-3", "eve", "another request")); r.Duplicate {
		t.Fatal("keys of two scopes are taken for one")
	}
	use, found, err := s.KeyUse(context10s(t), "ann", "key-1")
	want := eventstore.KeyUse{Hash: sha256.Sum256([]byte("a request")), First: 1, Last: 2, Subject: "user-1"}
	if err != nil || !found || use != want {
		t.Fatalf("use of the key: %+v, %t, %v; want %+v", use, found, err, want)
	}
	if n := len(whole(t, s)); n != 4 {
		t.Fatalf("the log has %d records, want 4", n)
	}
}

func testClosed(t *testing.T, open Open) {
	s := open(t)
	a := one("user-1", 0, 1)
	a.Streams[0].Close = true
	must(t, s, a)
	refused(t, s, one("user-1", 1, 1), eventstore.ErrClosed)
	refused(t, s, one("user-1", eventstore.Any, 1), eventstore.ErrClosed)
	refused(t, s, one("user-1", 0, 1), eventstore.ErrConflict) // versions are checked first
	guard := one("user-2", 0, 1)
	guard.Streams = append(guard.Streams, eventstore.StreamAppend{Stream: "user-1", Expected: 1})
	must(t, s, guard)
}

func testBatch(t *testing.T, open Open) {
	s := open(t)
	ann := []domain.Claim{{Scope: "username", Value: "ann", Owner: "user-1"}}
	annOf3 := []domain.Claim{{Scope: "username", Value: "ann", Owner: "user-3"}}
	withClaims := func(a eventstore.Append, releases, claims []domain.Claim) eventstore.Append {
		a.Releases, a.Claims = releases, claims
		return a
	}
	keyed := func(a eventstore.Append, hash byte) eventstore.Append {
		a.Key, a.KeyScope, a.Hash, a.Subject = "k", "s", [32]byte{hash}, a.Streams[0].Stream
		return a
	}
	closing := one("user-2", 1, 1)
	closing.Streams[0].Close = true
	batch := []eventstore.Append{
		withClaims(one("user-1", 0, 1), nil, ann),    // 1
		one("user-1", 0, 1),                          // conflict with the append before
		one("user-1", 1, 2),                          // 2, 3: sees the first
		keyed(one("user-2", 0, 1), 1),                // 4
		keyed(one("user-9", 0, 1), 1),                // duplicate of the append before
		keyed(one("user-9", 0, 1), 2),                // key reused
		withClaims(one("user-3", 0, 1), nil, annOf3), // claims what the first append holds
		closing,                          // claims what the first append holds
		one("user-2", eventstore.Any, 1), // closed by the append before
		withClaims(one("user-1", 3, 1), ann, nil),    // 6: releases ann
		withClaims(one("user-3", 0, 1), nil, annOf3), // 7
	}
	results, err := s.AppendBatch(context10s(t), batch)
	if err != nil {
		t.Fatal(err)
	}
	wantErr := []error{nil, eventstore.ErrConflict, nil, nil, nil, eventstore.ErrKeyReused, eventstore.ErrTaken, nil, eventstore.ErrClosed, nil, nil}
	wantLast := []domain.Position{1, 0, 3, 4, 4, 0, 0, 5, 0, 6, 7}
	for i, r := range results {
		if !errors.Is(r.Err, wantErr[i]) || r.Last != wantLast[i] || r.Duplicate != (i == 4) {
			t.Errorf("append %d: %+v, want last %d, error %v", i, r, wantLast[i], wantErr[i])
		}
	}
	if n := len(whole(t, s)); n != 7 {
		t.Errorf("the log has %d records, want 7", n)
	}
	if results, err := s.AppendBatch(context10s(t), nil); err != nil || len(results) != 0 {
		t.Errorf("an empty batch gave %v, %v", results, err)
	}
}

func testMalformed(t *testing.T, open Open) {
	s := open(t)
	event := func(e eventstore.NewEvent) eventstore.Append {
		a := one("user-1", eventstore.Any, 0)
		a.Events = []eventstore.NewEvent{e}
		return a
	}
	twice := one("user-1", eventstore.Any, 1)
	twice.Streams = append(twice.Streams, twice.Streams[0])
	closeOnly := one("user-1", eventstore.Any, 1)
	closeOnly.Streams = append(closeOnly.Streams, eventstore.StreamAppend{Stream: "user-2", Expected: eventstore.Any, Close: true})
	year := one("user-1", eventstore.Any, 1)
	year.Meta.At = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)
	bad := map[string]eventstore.Append{
		"no events":     one("user-1", 0, 0),
		"stream index":  event(eventstore.NewEvent{Stream: 1, Name: "x", Schema: 1, Data: []byte(`{}`)}),
		"no name":       event(eventstore.NewEvent{Schema: 1, Data: []byte(`{}`)}),
		"schema 0":      event(eventstore.NewEvent{Name: "x", Data: []byte(`{}`)}),
		"no JSON":       event(eventstore.NewEvent{Name: "x", Schema: 1, Data: []byte(`{`)}),
		"no UTF-8":      event(eventstore.NewEvent{Name: "x", Schema: 1, Data: []byte("\"\xff\"")}),
		"line end":      one("user-1\n", 0, 1),
		"NUL":           one("user-\x00", 0, 1),
		"long name":     one(domain.StreamID(strings.Repeat("x", 10000)), 0, 1),
		"stream twice":  twice,
		"close only":    closeOnly,
		"expected -3":   one("user-1", -3, 1),
		"year 12000":    year,
		"too large":     event(eventstore.NewEvent{Name: "x", Schema: 1, Data: []byte(`"` + strings.Repeat("x", eventstore.MaxEvent) + `"`)}),
		"deeply nested": event(eventstore.NewEvent{Name: "x", Schema: 1, Data: []byte(strings.Repeat("[", 20000) + strings.Repeat("]", 20000))}),
	}
	for name, a := range bad {
		results, err := s.AppendBatch(context10s(t), []eventstore.Append{one("user-1", eventstore.Any, 1), a, one("user-2", eventstore.Any, 1)})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if results[0].Err != nil || results[2].Err != nil || !errors.Is(results[1].Err, eventstore.ErrMalformed) {
			t.Errorf("%s: results %v, want only the second refused as malformed", name, results)
		}
	}
	if n := len(whole(t, s)); n != 2*len(bad) {
		t.Errorf("the log has %d records, want %d", n, 2*len(bad))
	}
}

func testLargeEvent(t *testing.T, open Open) {
	s := open(t)
	large, err := json.Marshal(strings.Repeat("0123456789abcdef", 1<<16))
	if err != nil {
		t.Fatal(err)
	}
	a := one("user-1", 0, 1)
	a.Events[0].Data = large
	must(t, s, a)
	got := whole(t, s)
	if len(got) != 1 || string(got[0].Data) != string(large) {
		t.Fatal("an event of 1 MB came back changed")
	}
}

func testPages(t *testing.T, open Open) {
	s := open(t)
	must(t, s, one("user-1", 0, 5))
	must(t, s, one("user-2", 0, 5))
	ctx := context10s(t)
	page, err := s.ReadStream(ctx, "user-2", 2, 2)
	if err != nil || len(page) != 2 || page[0].Version != 3 || page[1].Position != 9 {
		t.Errorf("a page of the event stream: %+v, %v", page, err)
	}
	page, err = s.ReadAll(ctx, 8, 100)
	if err != nil || len(page) != 2 || page[0].Position != 9 {
		t.Errorf("the last page of the log: %+v, %v", page, err)
	}
	for _, after := range []domain.Position{10, 1000} {
		if page, err = s.ReadAll(ctx, after, 100); err != nil || len(page) != 0 {
			t.Errorf("behind the end: %+v, %v", page, err)
		}
	}
}

func testVerify(t *testing.T, open Open) {
	s := open(t)
	ctx := context10s(t)
	if head, err := s.Head(ctx); err != nil || head != (eventstore.Checkpoint{}) {
		t.Fatalf("head of an empty log: %+v, %v", head, err)
	}
	if err := s.Verify(ctx, eventstore.Checkpoint{}); err != nil {
		t.Fatalf("the beginning is in every log: %v", err)
	}
	must(t, s, one("user-1", 0, 3))
	head, err := s.Head(ctx)
	if err != nil || head.Position != 3 || head.EventID != whole(t, s)[2].ID {
		t.Fatalf("head: %+v, %v", head, err)
	}
	if err := s.Verify(ctx, head); err != nil {
		t.Fatal(err)
	}
	beyond := eventstore.Checkpoint{Position: 4, EventID: head.EventID}
	other := eventstore.Checkpoint{Position: 3, EventID: domain.EventID{1}}
	for _, c := range []eventstore.Checkpoint{beyond, other} {
		if err := s.Verify(ctx, c); !errors.Is(err, eventstore.ErrForked) {
			t.Errorf("checkpoint %+v: %v, want ErrForked", c, err)
		}
	}
}
