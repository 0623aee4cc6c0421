package transporttest

import (
	"io"
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

// OnReset calls once, when nobody waits for what this side has to say: not at data or
// at an end of the peer's writing, but at a reset of either kind, at a close, and at the
// end of the session; and not after it was stopped.
func testOnReset(t *testing.T, pair Pair) {
	a, b := pair(t)
	called := make(chan struct{}, 10)
	on := func(st transport.Stream) (stop func()) { return st.OnReset(func() { called <- struct{}{} }) }
	calls := func(what string) {
		t.Helper()
		select {
		case <-called:
		case <-time.After(limit):
			t.Fatalf("%s: not called", what)
		}
	}
	for what, leave := range map[string]func(transport.Stream){
		"a reset":                      func(st transport.Stream) { _ = st.Reset() },
		"a reset behind the data":      func(st transport.Stream) { _ = st.ResetInOrder() },
		"a close":                      func(st transport.Stream) { _ = st.Close() },
		"a close of a side that wrote": func(st transport.Stream) { write(t, st, "y"); _ = st.CloseWrite(); _ = st.Close() },
	} {
		out, in := streams(t, a, b)
		on(in)
		write(t, out, "x")
		read(t, in, 1)
		leave(out)
		calls(what)
		on(in)
		calls(what + " that came before")
	}
	out, in := streams(t, a, b)
	on(in)
	write(t, out, "x")
	_ = out.CloseWrite()
	if _, err := io.ReadAll(in); err != nil { // the end has come, and still the peer listens
		t.Fatal(err)
	}
	stopped, other := streams(t, a, b)
	stop := on(other)
	stop()
	_ = stopped.Reset()
	_, last := streams(t, a, b)
	select {
	case <-called:
		t.Error("called for data, for an end, or after stop")
	default:
	}
	on(last)
	_ = a.Close()
	calls("the end of the session")
	calls("the end of the session, for the other stream")
}
