package eventstoretest

import (
	"slices"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// testTimesRise appends to a log whose last record has a time in the future, as after a
// clock that was fast and was corrected.
func testTimesRise(t *testing.T, open Open) {
	first := open(t)
	must(t, first, one("mapping-1", 0, 2))
	ahead := time.Now().UTC().Add(time.Hour).Truncate(time.Microsecond)
	s := open(t)
	err := s.(eventstore.Archive).Restore(context10s(t), func(put func(eventstore.ArchiveItem) error) error {
		return first.(eventstore.Archive).Archive(context10s(t), func(item eventstore.ArchiveItem) error {
			if r, ok := item.(eventstore.ArchivedRecord); ok {
				r.RecordedMicros = ahead.UnixMicro()
				item = r
			}
			return put(item)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	var given []time.Time
	for n := range 3 {
		r := must(t, s, one("mapping-1", domain.Version(2+n), 1))
		given = append(given, r.Records[0].Recorded)
	}
	var kept []time.Time
	for _, r := range whole(t, s) {
		kept = append(kept, r.Recorded)
	}
	if !kept[1].Equal(ahead) {
		t.Fatalf("the log says %v of a record of %v: the test tests nothing", kept[1], ahead)
	}
	if !slices.IsSortedFunc(kept, time.Time.Compare) || !kept[2].Before(kept[3]) || !kept[3].Before(kept[4]) {
		t.Errorf("recorded times fall or stand: %v", kept)
	}
	if !slices.EqualFunc(given, kept[2:], time.Time.Equal) {
		t.Errorf("appends say %v, the log %v", given, kept[2:])
	}
}
