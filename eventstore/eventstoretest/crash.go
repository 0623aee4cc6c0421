package eventstoretest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// Acknowledged is an append whose writer was told that it is in the log.
type Acknowledged struct {
	Key         string
	First, Last domain.Position
}

// crashAppend is an append whose records name its key.
func crashAppend(key string) eventstore.Append {
	worker, _, _ := strings.Cut(key, "-")
	a := eventstore.Append{Meta: meta(), Key: key, KeyScope: "crash", Subject: domain.StreamID("user-" + worker),
		Streams: []eventstore.StreamAppend{{Stream: domain.StreamID("user-" + worker), Expected: eventstore.Any}}}
	for range 3 {
		a.Events = append(a.Events, eventstore.NewEvent{Name: "happened", Schema: 1, Data: fmt.Appendf(nil, "%q", key)})
	}
	return a
}

// Hammer appends from four goroutines, in batches, until an append fails. It reports
// each acknowledged append and returns the failure.
func Hammer(ctx context.Context, s eventstore.Store, report func(Acknowledged)) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failure error
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ; i += 2 {
				keys := []string{fmt.Sprintf("%d-%d", worker+1, i), fmt.Sprintf("%d-%d", worker+1, i+1)}
				results, err := s.AppendBatch(ctx, []eventstore.Append{crashAppend(keys[0]), crashAppend(keys[1])})
				mu.Lock()
				for j, r := range results {
					if r.Err != nil {
						err = r.Err
						break
					}
					report(Acknowledged{keys[j], r.First, r.Last})
				}
				stop := err != nil
				if stop && failure == nil {
					failure = err
				}
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	return failure
}

// CheckAfterCrash checks that the log holds every acknowledged append, whole and once,
// at the acknowledged positions, and no part of any append. It also checks that
// repeating the last commands tells which of them were executed.
func CheckAfterCrash(t testing.TB, s eventstore.Store, acknowledged []Acknowledged) {
	t.Helper()
	all := whole(t, s)
	found := map[string][]domain.Position{}
	for _, r := range all {
		key := strings.Trim(string(r.Data), `"`)
		found[key] = append(found[key], r.Position)
	}
	next := map[string]int{}
	for _, a := range acknowledged {
		at := found[a.Key]
		if len(at) != 3 || at[0] != a.First || at[2] != a.Last || at[1] != a.First+1 {
			t.Errorf("%s was acknowledged at %d to %d and is in the log at %v", a.Key, a.First, a.Last, at)
		}
		worker, number, _ := strings.Cut(a.Key, "-")
		var n int
		if _, err := fmt.Sscan(number, &n); err != nil {
			t.Fatal(err)
		}
		next[worker] = max(next[worker], n+1)
	}
	for key, at := range found {
		if len(at) != 3 {
			t.Errorf("%s is in the log with %d of 3 records", key, len(at))
		}
	}
	// The writer repeats the appends without an answer: none is written twice and none
	// is lost.
	for worker, n := range next {
		for i := range 2 {
			key := fmt.Sprintf("%s-%d", worker, n+i)
			r := must(t, s, crashAppend(key))
			if _, was := found[key]; r.Duplicate != was {
				t.Errorf("%s repeated: duplicate %t, it was in the log: %t", key, r.Duplicate, was)
			}
		}
	}
	whole(t, s)
	t.Logf("%d acknowledged, %d records in the log", len(acknowledged), len(all))
}
