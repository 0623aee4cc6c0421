package bridge

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// told gives a function for Watch, and a channel that receives at each call of it.
func told() (func(), <-chan struct{}) {
	c := make(chan struct{}, 1)
	return func() {
		select {
		case c <- struct{}{}:
		default:
		}
	}, c
}

// What moves with Read and Write also moves with ReadNow and WriteNow: all bytes arrive
// in order, a reader that does not read stops the writer at its window, and each side
// is told when it can try again.
func TestPromptMovesEverything(t *testing.T) {
	p := startTwo(t, nil).open(t)
	for _, way := range []struct {
		name     string
		from, to transport.Stream
	}{{"there", p.opener, p.acceptor}, {"back", p.acceptor, p.opener}} {
		from, to := prompt(t, way.from), prompt(t, way.to)
		onRoom, room := told()
		onRead, more := told()
		from.Watch(nil, onRoom)
		to.Watch(onRead, nil)
		if n, err := to.ReadNow(make([]byte, 10)); n != 0 || err != nil {
			t.Fatalf("%s: %d, %v when nothing has come", way.name, n, err)
		}
		want := noise(3 << 20)
		timeout := time.After(30 * time.Second)
		wait := func(c <-chan struct{}, what string) {
			select {
			case <-c:
			case <-timeout:
				t.Fatalf("%s: never told that there is %s", way.name, what)
			}
		}
		sent := 0
		send := func() bool { // in pieces of odd sizes
			end := min(len(want), sent+100_000)
			cut := min(end, sent+777)
			n, err := from.WriteNow([][]byte{want[sent:cut], nil, want[cut:end]})
			if err != nil {
				t.Fatalf("%s: %v", way.name, err)
			}
			sent += n
			return sent < end
		}
		for full := false; !full; {
			for !send() {
			}
			select {
			case <-room: // room for the connection, not for the reader
			case <-time.After(200 * time.Millisecond):
				full = true
			}
		}
		if sent > window {
			t.Fatalf("%s: %d bytes fit into a window of %d", way.name, sent, window)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			var got bytes.Buffer
			buf := make([]byte, 50_000)
			for got.Len() < len(want) {
				n, err := to.ReadNow(buf)
				if err != nil {
					t.Errorf("%s: %v", way.name, err)
					return
				}
				got.Write(buf[:n])
				if n == 0 {
					select {
					case <-more:
					case <-timeout:
						t.Errorf("%s: never told that there is something to read", way.name)
						return
					}
				}
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s: other bytes arrived", way.name)
			}
		}()
		for sent < len(want) {
			if send() {
				wait(room, "room")
			}
		}
		<-done
	}

	// The end is told too, and also that the peer reads no more.
	onRead, more := told()
	onRoom, room := told()
	end := prompt(t, p.opener)
	end.Watch(onRead, onRoom)
	if err := p.acceptor.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []<-chan struct{}{more, room} {
		select {
		case <-c:
		case <-time.After(pace.Guard):
			t.Fatal("the end is not told")
		}
	}
	if _, err := end.ReadNow(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read behind the end: %v", err)
	}
	if _, err := end.WriteNow(nil); !errors.Is(err, transport.ErrStopped) {
		t.Errorf("write to who closed: %v", err)
	}
}

// A bridge's stream that is joined to an agent's stream needs no goroutine, whether
// bandwidth may be limited or not. A goroutine that waits for bytes would have to be
// woken for them.
func TestJoinedWithoutAGoroutine(t *testing.T) {
	user, agent := sessionPair(t)
	p := startTwo(t, nil).open(t)
	done := make(chan error, 1)
	transport.Join(agent.(transport.Stream), prompt(t, p.opener), transport.Count{Brake: new(transport.Brake)},
		func(_, _ int64, err error) { done <- err })
	for _, way := range []struct{ from, to io.ReadWriter }{{user, p.acceptor}, {p.acceptor, user}} {
		want := noise(300_000)
		go func() { _, _ = way.from.Write(want) }() // missing bytes are noticed below
		got := make([]byte, len(want))
		if _, err := io.ReadFull(way.to, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("not what was sent, or %v", err)
		}
	}
	all := make([]byte, 1<<20)
	all = all[:runtime.Stack(all, true)]
	for _, one := range strings.Split(string(all), "\n\n") {
		if strings.Contains(one, "transport.(*flow)") {
			t.Errorf("a goroutine moves bytes:\n%s", one)
		}
	}
	_ = user.Close()
	_ = p.acceptor.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func prompt(t *testing.T, s transport.Stream) transport.Prompt {
	t.Helper()
	if h, ok := s.(*held); ok {
		s = h.Stream
	}
	p, ok := s.(transport.Prompt)
	if !ok {
		t.Fatalf("%T has to be waited for", s)
	}
	return p
}

// OnReset is called when the other side has reset the stream or reads no more, and not
// for data or for the end of its writing.
func TestOnResetOverTheBridge(t *testing.T) {
	for name, leave := range map[string]func(transport.Stream){
		"reset":          func(s transport.Stream) { _ = s.Reset() },
		"reset in order": func(s transport.Stream) { _ = s.ResetInOrder() },
		"close":          func(s transport.Stream) { _ = s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p := startTwo(t, nil).open(t)
			called := make(chan struct{}, 2)
			p.acceptor.OnReset(func() { called <- struct{}{} })
			if _, err := p.opener.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := p.opener.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(p.acceptor); err != nil {
				t.Fatal(err)
			}
			select {
			case <-called:
				t.Fatal("called for data and their end")
			default:
			}
			leave(p.opener)
			select {
			case <-called:
			case <-time.After(10 * time.Second):
				t.Fatal("not called")
			}
		})
	}
}
