package eventstoretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// testModel gives the same random batches to the store and to [Memory], and compares
// every answer and, at the end, the logs.
func testModel(t *testing.T, open Open) {
	s := open(t)
	run := 0 // each run has its own streams, claims and keys, so that one store serves all
	rapid.Check(t, func(rt *rapid.T) {
		run++
		model := NewMemory()
		ctx := context.Background()
		head, err := s.Head(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				batch := rapid.SliceOfN(drawAppend(run), 1, 5).Draw(rt, "batch")
				got, err := s.AppendBatch(ctx, batch)
				if err != nil {
					rt.Fatal(err)
				}
				want, err := model.AppendBatch(ctx, batch)
				if err != nil {
					rt.Fatal(err)
				}
				for i := range want {
					if diff := compareResults(got[i], want[i], head.Position); diff != "" {
						rt.Fatalf("append %d of the batch: %s\n%+v", i, diff, batch[i])
					}
				}
			},
			"": func(rt *rapid.T) {
				got, err := s.ReadAll(ctx, head.Position, 10000)
				if err != nil {
					rt.Fatal(err)
				}
				want, err := model.ReadAll(ctx, 0, 10000)
				if err != nil {
					rt.Fatal(err)
				}
				if !slices.EqualFunc(got, want, func(a, b domain.Record) bool { return sameRecord(a, b, head.Position) }) {
					rt.Fatalf("the log is\n%+v\nand the model's\n%+v", got, want)
				}
			},
		})
	})
}

func drawAppend(run int) *rapid.Generator[eventstore.Append] {
	return rapid.Custom(func(t *rapid.T) eventstore.Append {
		stream := rapid.Custom(func(t *rapid.T) domain.StreamID {
			return domain.StreamID(fmt.Sprintf("user-%d", run*10+rapid.IntRange(0, 3).Draw(t, "stream")))
		})
		a := eventstore.Append{Account: 1, Meta: meta()}
		for _, id := range rapid.SliceOfNDistinct(stream, 1, 3, rapid.ID[domain.StreamID]).Draw(t, "streams") {
			a.Streams = append(a.Streams, eventstore.StreamAppend{Stream: id,
				Expected: domain.Version(rapid.SampledFrom([]int{0, 0, 1, 1, 2, 3, 4, -1, -1, -1, -2}).Draw(t, "expected"))})
		}
		for range rapid.IntRange(1, 3).Draw(t, "events") {
			i := rapid.IntRange(0, len(a.Streams)-1).Draw(t, "event's stream")
			a.Events = append(a.Events, eventstore.NewEvent{Stream: i, Name: "happened", Schema: 1, Data: []byte(`{"a": 1}`),
				Owner: rapid.SampledFrom([]int64{0, 0, 0, 2}).Draw(t, "owner of the event")})
			a.Streams[i].Close = rapid.IntRange(0, 15).Draw(t, "close") == 0
		}
		claims := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"ann", "bob", "eve"}), 0, 2, rapid.ID[string])
		for _, value := range claims.Draw(t, "releases") {
			a.Releases = append(a.Releases, domain.Claim{Scope: fmt.Sprint("s", run), Value: value, Owner: stream.Draw(t, "owner")})
		}
		for _, value := range claims.Draw(t, "claims") {
			a.Claims = append(a.Claims, domain.Claim{Scope: fmt.Sprint("s", run), Value: value, Owner: stream.Draw(t, "owner")})
		}
		if rapid.Bool().Draw(t, "keyed") {
			a.Key, a.KeyScope = rapid.SampledFrom([]string{"k1", "k2", "k3", "k4"}).Draw(t, "key"), fmt.Sprint("s", run)
			a.Hash = [32]byte{byte(rapid.IntRange(0, 4).Draw(t, "hash") / 4)}
			a.Subject = a.Streams[0].Stream
		}
		return a
	})
}

func compareResults(got, want eventstore.Result, base domain.Position) string {
	for _, refusal := range []error{eventstore.ErrConflict, eventstore.ErrTaken, eventstore.ErrKeyReused, eventstore.ErrClosed, eventstore.ErrMalformed} {
		if errors.Is(got.Err, refusal) != errors.Is(want.Err, refusal) {
			return fmt.Sprintf("refused with %v, the model with %v", got.Err, want.Err)
		}
	}
	if want.Err != nil {
		return ""
	}
	if got.First-base != want.First || got.Last-base != want.Last || got.Duplicate != want.Duplicate || got.Subject != want.Subject {
		return fmt.Sprintf("got %+v, the model %+v (behind %d)", got, want, base)
	}
	if !slices.EqualFunc(got.Records, want.Records, func(a, b domain.Record) bool { return sameRecord(a, b, base) }) {
		return fmt.Sprintf("records %+v, the model %+v", got.Records, want.Records)
	}
	return ""
}

func sameRecord(got, want domain.Record, base domain.Position) bool {
	return got.Position-base == want.Position && got.Stream == want.Stream && got.Version == want.Version &&
		got.Owner == want.Owner && got.Name == want.Name && got.Schema == want.Schema &&
		string(got.Data) == string(want.Data) && got.Meta == want.Meta
}
