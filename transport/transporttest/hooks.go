package transporttest

import (
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// OnOpen gets the streams that wait to be accepted and those that are opened later,
// each once and in order.
func testOnOpen(t *testing.T, pair Pair) {
	a, b := pair(t)
	const early, all = 20, 300 // more than may be opened before any is accepted
	opened := make(chan transport.Stream, all)
	for i := range all {
		if i == early {
			b.OnOpen(func(st transport.Stream) { opened <- st })
		}
		st, err := a.Open(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		write(t, st, string(rune('A'+i)))
	}
	seen := map[string]bool{}
	for i := range all {
		select {
		case st := <-opened:
			want := string(rune('A' + i))
			if got := read(t, st, len(want)); seen[got] || i > early && got != want {
				t.Fatalf("stream %d is %q, want %q", i, got, want)
			} else {
				seen[got] = true
			}
		case <-time.After(limit):
			t.Fatalf("%d of %d streams came", i, all)
		}
	}
}

// OnRead calls once, when there is something to read: present or later data, the end, a
// reset, the end of the session, or a call of now.
func testOnRead(t *testing.T, pair Pair) {
	a, b := pair(t)
	called := make(chan struct{}, 10)
	calls := func(what string) {
		t.Helper()
		select {
		case <-called:
		case <-time.After(limit):
			t.Fatalf("%s: not called", what)
		}
	}
	on := func(st transport.Stream) func() { return st.OnRead(func() { called <- struct{}{} }) }
	out, in := streams(t, a, b)
	on(in)
	write(t, out, "x")
	calls("data that comes")
	on(in)
	calls("data that is there")
	read(t, in, 1)
	now := on(in)
	now()
	now()
	calls("asked to")
	on(in)
	_ = out.CloseWrite()
	calls("the end")
	out, in = streams(t, a, b)
	on(in)
	_ = out.Reset()
	calls("a reset")
	_, in = streams(t, a, b)
	on(in)
	_ = a.Close()
	calls("the end of the session")
	select {
	case <-called:
		t.Error("called once too often")
	default:
	}
}
