package transport

import (
	"context"
	"io"
	"testing"
	"time"
)

// Readers that were fast and then stall do not prevent the growth of others. What was
// lent to them is counted until it is read or discarded.
func TestStalledReadersGiveGrowthBack(t *testing.T) {
	s, p := startRaw(t, SessionConfig{})
	accept := func(id uint64, body string) *muxStream {
		p.send(data(flagOpen, id, body))
		st, err := s.Accept(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return st.(*muxStream)
	}
	const stalled = windowBudget / maxWindow
	var all []*muxStream
	for i := range stalled {
		st := accept(uint64(2*i+1), "x")
		s.mu.Lock()
		st.window += maxWindow
		st.allowed += maxWindow
		s.extra += maxWindow
		s.mu.Unlock()
		all = append(all, st)
	}
	busy := accept(2*stalled+1, "x")
	s.mu.Lock()
	s.began = s.began.Add(-time.Minute) // the others have read nothing for this time
	s.rtt = time.Second
	busy.told = time.Since(s.began)
	busy.owed = startWindow / 2
	s.mu.Unlock()
	if _, err := io.ReadFull(busy, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	if busy.window != 2*startWindow {
		t.Errorf("the window is %d beside %d stalled readers, want %d", busy.window, stalled, 2*startWindow)
	}
	if s.extra > windowBudget || s.lent != windowBudget {
		t.Errorf("windows are %d above the start and %d is lent", s.extra, s.lent)
	}
	// A second group of stalled readers finds that no more is lent.
	busy.window, s.extra = busy.window+maxWindow, s.extra+maxWindow
	busy.reclaim(time.Since(s.began) + time.Hour)
	if s.lent > windowBudget {
		t.Errorf("%d is lent", s.lent)
	}
	// Lent bytes that were read are not granted again.
	all[0].consume(1000)
	if want := windowBudget - 1000; s.lent != want || all[0].owed != 0 {
		t.Errorf("%d is lent after a read, want %d", s.lent, want)
	}
	s.mu.Unlock()
	for _, st := range all {
		_ = st.Reset()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lent != 0 {
		t.Errorf("%d is lent when the streams are gone", s.lent)
	}
}
