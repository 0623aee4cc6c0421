package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tunnox-net/tunnox/transport"
)

// moving is a wiring whose carriers are joined, with two lanes whose middle a test carries.
type moving struct {
	wiring
	laneA, laneB *transport.Lane // of the ends
	farA, farB   *transport.Lane // the middle's
	parted       chan struct{}
}

func movable(t interface{ Fatal(...any) }) (m moving, done func()) {
	w, end := wired(t)
	m = moving{wiring: w, parted: make(chan struct{})}
	transport.Join(w.ma, w.mb, transport.Count{}, func(int64, int64, error) { close(m.parted) })
	m.laneA, m.farA = lanesOf(t)
	m.laneB, m.farB = lanesOf(t)
	return m, func() {
		for _, l := range []*transport.Lane{m.laneA, m.farA, m.laneB, m.farB} {
			_ = l.Reset()
		}
		end()
		<-m.parted
	}
}

// splice joins the lanes.
func (m moving) splice() {
	go func() { _, _, _ = transport.SpliceLanes(m.farA, m.farB, transport.Count{}) }()
}

func lanesOf(t interface{ Fatal(...any) }) (a, b *transport.Lane) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = transport.NewLane(out.(*net.TCPConn)); err == nil {
		b, err = transport.NewLane(in.(*net.TCPConn))
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// counted writes n numbered pieces, and does something before each.
func counted(to transport.Stream, n int, before func(i int)) error {
	for i := range n {
		before(i)
		if _, err := fmt.Fprintf(to, "%06d", i); err != nil {
			return err
		}
	}
	before(n)
	return to.CloseWrite()
}

func numbers(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "%06d", i)
	}
	return b.Bytes()
}

// A stream moves at every border of its records, also behind the last one, in both
// directions, and every byte arrives once and in order, and then the end.
func TestMoveAtEveryRecord(t *testing.T) {
	const pieces = 12
	for at := range pieces + 1 {
		m, done := movable(t)
		m.splice()
		if err := m.b.(Movable).Expect(m.laneB); err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		for _, end := range []struct {
			st     transport.Stream
			before func(int)
		}{
			{m.a, func(i int) {
				if i == at {
					if err := m.a.(Movable).Move(m.laneA); err != nil {
						t.Errorf("move at %d: %v", at, err)
					}
				}
			}},
			{m.b, func(int) {}},
		} {
			_ = end.st.SetDeadline(time.Now().Add(30 * time.Second))
			work.Go(func() {
				if err := counted(end.st, pieces, end.before); err != nil {
					t.Errorf("move at %d: write: %v", at, err)
				}
			})
			work.Go(func() {
				got, err := io.ReadAll(end.st)
				if err != nil || !bytes.Equal(got, numbers(pieces)) {
					t.Errorf("move at %d: %q, %v", at, got, err)
				}
			})
		}
		work.Wait()
		_ = m.a.Close()
		_ = m.b.Close()
		done()
	}
}

// Streams that move at random moments, and lanes or carriers that are cut at random
// places: each end gets the first bytes of what the other has sent, and if it gets the end,
// it has got them all.
func TestMovesAndCuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, done := movable(t)
		defer done()
		size := rapid.SampledFrom([]int{0, 1, 1000, 70_000, 300_000})
		chunk := rapid.SampledFrom([]int{1 << 20, 20_000, 16 << 10, 500})
		out := map[transport.Stream][]byte{m.a: make([]byte, size.Draw(t, "forth")), m.b: make([]byte, size.Draw(t, "back"))}
		for _, b := range out {
			for i := range b {
				b[i] = byte(i ^ i>>8 ^ i>>16)
			}
		}
		at := rapid.IntRange(0, 70_000).Draw(t, "moves behind")
		cut := rapid.SampledFrom([]string{"nothing", "nothing", "lane", "carrier", "end"}).Draw(t, "cut")
		after := rapid.IntRange(0, 200_000).Draw(t, "after")
		var once sync.Once
		var passed int
		var mu sync.Mutex
		count := func(n int) {
			mu.Lock()
			passed += n
			over := passed >= after
			mu.Unlock()
			if !over {
				return
			}
			once.Do(func() {
				switch cut {
				case "lane":
					_ = m.farA.Reset()
				case "carrier":
					_ = m.ma.Reset()
				case "end":
					_ = m.b.Reset()
				}
			})
		}
		go func() { _, _, _ = transport.SpliceLanes(m.farA, m.farB, transport.Count{AToB: count, BToA: count}) }()
		if err := m.b.(Movable).Expect(m.laneB); err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		for st, text := range out {
			_ = st.SetDeadline(time.Now().Add(20 * time.Second))
			n := chunk.Draw(t, "chunk")
			work.Go(func() {
				sent := 0
				for sent < len(text) {
					if st == m.a && sent >= at {
						_ = m.a.(Movable).Move(m.laneA) // only the first counts
						at = 1 << 30
					}
					wrote, err := st.Write(text[sent:min(len(text), sent+n)])
					if sent += wrote; err != nil {
						return
					}
				}
				_ = st.CloseWrite()
			})
			work.Go(func() {
				want := out[m.a]
				if st == m.a {
					want = out[m.b]
				}
				got, err := io.ReadAll(st)
				switch {
				case !bytes.HasPrefix(want, got):
					t.Errorf("%d bytes came that were not sent so", len(got))
				case err == nil && len(got) != len(want):
					t.Errorf("the end came after %d of %d bytes", len(got), len(want))
				case err != nil && cut == "nothing":
					t.Errorf("nothing was cut, and after %d of %d bytes: %v", len(got), len(want), err)
				case errors.Is(err, ErrRecord):
					t.Errorf("nobody has changed anything, and: %v", err)
				}
			})
		}
		work.Wait()
		_ = m.a.Close()
		_ = m.b.Close()
	})
}

// What a forwarder that lies can do with a move ends in an error: it changes, drops,
// repeats or swaps records on the lane, moves a stream that has no lane, or sends on the
// carrier behind the move.
func TestAForgedMoveIsAnError(t *testing.T) {
	for name, lie := range map[string]func(t *testing.T, m moving, first, second []byte){
		"changed": func(t *testing.T, m moving, first, second []byte) {
			first[headerSize] ^= 1
			put(t, m.farB, first, second)
		},
		"dropped":  func(t *testing.T, m moving, _, second []byte) { put(t, m.farB, second) },
		"repeated": func(t *testing.T, m moving, first, _ []byte) { put(t, m.farB, first, first) },
		"swapped":  func(t *testing.T, m moving, first, second []byte) { put(t, m.farB, second, first) },
		"cut off": func(t *testing.T, m moving, first, _ []byte) {
			put(t, m.farB, first[:len(first)-1])
			_ = m.farB.CloseWrite()
		},
		"ended without its end": func(t *testing.T, m moving, first, _ []byte) {
			put(t, m.farB, first)
			_ = m.farB.CloseWrite()
		},
		"sent back": func(t *testing.T, m moving, first, _ []byte) { put(t, m.farA, first) },
	} {
		t.Run(name, func(t *testing.T) {
			m, done := movable(t)
			defer done()
			if err := m.b.(Movable).Expect(m.laneB); err != nil {
				t.Fatal(err)
			}
			if err := m.a.(Movable).Move(m.laneA); err != nil {
				t.Fatal(err)
			}
			var records [2][]byte
			for i, word := range []string{"first", "other"} {
				if _, err := m.a.Write([]byte(word)); err != nil {
					t.Fatal(err)
				}
				records[i] = make([]byte, overhead+len(word))
				if _, err := io.ReadFull(m.farA, records[i]); err != nil {
					t.Fatal(err)
				}
			}
			lie(t, m, records[0], records[1])
			reader := m.b
			if name == "sent back" {
				reader = m.a
				go func() { _, _ = m.b.Read(make([]byte, 1)) }() // it follows the move
			}
			_ = reader.SetDeadline(time.Now().Add(20 * time.Second))
			got, err := io.ReadAll(reader)
			if err == nil || !bytes.HasPrefix([]byte("firstother"), got) || errors.Is(err, transport.ErrSessionClosed) {
				t.Errorf("%q, %v", got, err)
			}
			if !errors.Is(err, ErrRecord) && !errors.Is(err, ErrTruncated) {
				t.Errorf("the error is %v", err)
			}
			select {
			case <-m.parted: // the stream has ended for both
			case <-time.After(20 * time.Second):
				t.Error("the carrier goes on")
			}
		})
	}
}

func put(t *testing.T, to *transport.Lane, records ...[]byte) {
	t.Helper()
	for _, r := range records {
		if _, err := to.Write(r); err != nil {
			t.Error(err)
		}
	}
}

// A move to a lane that nobody expects, and bytes on the carrier behind a move.
func TestAMoveToNowhereIsAnError(t *testing.T) {
	m, done := movable(t)
	defer done()
	if err := m.a.(Movable).Move(m.laneA); err != nil {
		t.Fatal(err)
	}
	_ = m.b.SetDeadline(time.Now().Add(20 * time.Second))
	if got, err := io.ReadAll(m.b); !errors.Is(err, ErrRecord) || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}

	w, end := wired(t)
	defer end()
	a, far := lanesOf(t)
	b, near := lanesOf(t)
	defer func() { _, _, _, _ = a.Reset(), far.Reset(), b.Reset(), near.Reset() }()
	if err := w.b.(Movable).Expect(b); err != nil {
		t.Fatal(err)
	}
	if err := w.a.(Movable).Move(a); err != nil {
		t.Fatal(err)
	}
	record := make([]byte, overhead)
	if _, err := io.ReadFull(w.ma, record); err != nil {
		t.Fatal(err)
	}
	if _, err := w.mb.Write(append(record, record...)); err != nil {
		t.Fatal(err)
	}
	_ = w.b.SetDeadline(time.Now().Add(20 * time.Second))
	if got, err := io.ReadAll(w.b); !errors.Is(err, ErrRecord) || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
}

// A stream asks for a lane when a direction is bulk, once, and not before.
func TestBulkIsNoticed(t *testing.T) {
	w, done := wired(t)
	defer done()
	transport.Join(w.ma, w.mb, transport.Count{}, func(int64, int64, error) {})
	asked := make(chan string, 4)
	w.a.(Movable).OnBulk(func() { asked <- "writer" })
	w.b.(Movable).OnBulk(func() { asked <- "reader" })
	go func() { _, _ = io.Copy(io.Discard, w.b) }()
	if _, err := w.a.Write(make([]byte, BulkBytes/2)); err != nil {
		t.Fatal(err)
	}
	select {
	case who := <-asked:
		t.Errorf("the %s asks already", who)
	default:
	}
	if _, err := w.a.Write(make([]byte, 2*BulkBytes)); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 2 {
		select {
		case who := <-asked:
			seen[who] = true
		case <-time.After(20 * time.Second):
			t.Fatal("nobody asks")
		}
	}
	if len(seen) != 2 {
		t.Errorf("asked: %v", seen)
	}
}
