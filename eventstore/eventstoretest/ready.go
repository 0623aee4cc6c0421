package eventstoretest

import (
	"context"
	"reflect"
	"sync"
	"testing"
)

// testCanAppend calls CanAppend while writers append, and compares the log before and
// after.
func testCanAppend(t *testing.T, open Open) {
	s := open(t)
	can := s.(interface{ CanAppend(context.Context) error }).CanAppend
	must(t, s, one("mapping-1", 0, 3))
	before := whole(t, s)
	for range 3 {
		if err := can(context10s(t)); err != nil {
			t.Fatalf("a log that can be written: %v", err)
		}
	}
	if after := whole(t, s); !reflect.DeepEqual(before, after) {
		t.Errorf("asking has changed the log from %v to %v", before, after)
	}
	var asking sync.WaitGroup
	asking.Go(func() {
		for range 10 {
			if err := can(context10s(t)); err != nil {
				t.Errorf("beside an append: %v", err)
			}
		}
	})
	for n := range 10 {
		must(t, s, one("mapping-2", -1, 1+n%2))
	}
	asking.Wait()
	if n := len(whole(t, s)); n != 3+15 {
		t.Errorf("%d records, want 18", n)
	}
}
