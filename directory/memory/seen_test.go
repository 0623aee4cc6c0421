package memory

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

// A process knows the times of the process before it. Its own later times win.
func TestSeenIsRecalled(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	clock := func() time.Time { return now }
	ctx := context.Background()
	register := func(d *Directory, client int64) directory.Session {
		t.Helper()
		s := directory.Session{ClientID: client, Node: "node-001", Run: "r", Session: "s", Instance: "i"}
		if _, err := d.Beat(ctx, s.Node, s.Run); err != nil {
			t.Fatal(err)
		}
		epoch, err := d.Register(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		s.Epoch = epoch
		return s
	}
	first := New(clock)
	gone := register(first, 7)
	now = now.Add(time.Minute)
	if err := first.Remove(ctx, gone); err != nil {
		t.Fatal(err)
	}
	left := now
	now = now.Add(time.Minute)
	register(first, 8) // and the client is connected when the process ends
	want := map[int64]time.Time{7: left, 8: now}
	if got := first.Seen(); !maps.EqualFunc(got, want, time.Time.Equal) {
		t.Fatalf("seen %v, want %v", got, want)
	}

	second := New(clock)
	ended := now
	now = now.Add(time.Hour)
	register(second, 8)
	second.Recall(map[int64]time.Time{7: left, 8: ended})
	found, err := second.Lookup(ctx, 7, 8)
	if err != nil {
		t.Fatal(err)
	}
	if found[0].Online || !found[0].LastSeen.Equal(left) {
		t.Errorf("who left is %+v", found[0])
	}
	if !found[1].Online || !found[1].LastSeen.Equal(now) {
		t.Errorf("who is there is %+v", found[1])
	}
}
