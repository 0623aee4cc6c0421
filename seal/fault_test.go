package seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"

	"pgregory.net/rapid"

	"github.com/tunnox-net/tunnox/transport"
)

// wire is two sealed ends with nothing between them but what the test carries over.
type wiring struct {
	a, b   transport.Stream // sealed
	ma, mb transport.Stream // the middle's ends of their carriers
}

func wired(t interface{ Fatal(...any) }) (w wiring, done func()) {
	a1, a2 := transport.Pipe()
	b1, b2 := transport.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stream := func(from, to transport.Session) (transport.Stream, transport.Stream) {
		st, err := from.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Write([]byte("!")); err != nil {
			t.Fatal(err)
		}
		in, err := to.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(in, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return st, in
	}
	ca, ma := stream(a1, a2)
	cb, mb := stream(b1, b2)
	sa, sb := Drawn()
	var err error
	if w.a, err = New(ca, sa); err != nil {
		t.Fatal(err)
	}
	if w.b, err = New(cb, sb); err != nil {
		t.Fatal(err)
	}
	w.ma, w.mb = ma, mb
	return w, func() { _ = a1.Close(); _ = b1.Close() }
}

// records takes the records apart that a wrote until its end.
func records(t interface{ Fatal(...any) }, r io.Reader) (all [][]byte) {
	for {
		header := make([]byte, headerSize)
		if _, err := io.ReadFull(r, header); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		n, err := size(header)
		if err != nil {
			t.Fatal(err)
		}
		record := append(header, make([]byte, n-headerSize)...)
		if _, err := io.ReadFull(r, record[headerSize:]); err != nil {
			t.Fatal(err)
		}
		all = append(all, record)
	}
}

// Whatever the middle does to the records, the reader gets a prefix of what was written
// and then an error, unless nothing was done; and the writer gets an error too.
func TestFaultsOnTheWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, done := wired(t)
		defer done()
		var wrote []byte
		go func() {
			for i := range 6 {
				piece := bytes.Repeat([]byte{byte(i + 1)}, 100*(i+1))
				_, _ = w.a.Write(piece)
			}
			_ = w.a.CloseWrite()
		}()
		for i := range 6 {
			wrote = append(wrote, bytes.Repeat([]byte{byte(i + 1)}, 100*(i+1))...)
		}
		all := records(t, w.ma)
		if len(all) != 7 {
			t.Fatalf("%d records", len(all))
		}
		fault := rapid.SampledFrom([]string{"none", "flip", "drop", "repeat", "swap", "cut", "cut inside", "insert", "reflect"}).Draw(t, "fault")
		at := rapid.IntRange(0, len(all)-1).Draw(t, "at")
		var carried []byte
		switch fault {
		case "flip":
			bit := rapid.IntRange(0, 8*len(all[at])-1).Draw(t, "bit")
			all[at][bit/8] ^= 1 << (bit % 8)
		case "drop":
			all = append(all[:at:at], all[at+1:]...)
		case "repeat":
			all = append(all[:at+1:at+1], all[at:]...)
			if at == len(all)-2 { // the end twice: the stream has ended before
				fault = "none"
			}
		case "swap":
			other := rapid.IntRange(0, len(all)-1).Filter(func(n int) bool { return n != at }).Draw(t, "other")
			all[at], all[other] = all[other], all[at]
		case "cut":
			all = all[:at]
		case "insert":
			all = append(all[:at:at], append([][]byte{append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...)}, all[at:]...)...)
		case "reflect":
			go func() { _, _ = w.b.Write([]byte("b's own words")) }()
			mine := make([]byte, overhead+13)
			if _, err := io.ReadFull(w.mb, mine); err != nil {
				t.Fatal(err)
			}
			all = append(all[:at:at], append([][]byte{mine}, all[at:]...)...)
		}
		for _, record := range all {
			carried = append(carried, record...)
		}
		if fault == "cut inside" {
			carried = carried[:rapid.IntRange(0, len(carried)-1).Draw(t, "length")]
		}
		go func() {
			_, _ = w.mb.Write(carried)
			_ = w.mb.CloseWrite()
		}()
		got, err := io.ReadAll(w.b)
		if fault == "none" {
			if err != nil || !bytes.Equal(got, wrote) {
				t.Fatalf("nothing was done: %d bytes, %v", len(got), err)
			}
			return
		}
		if err == nil || !errors.Is(err, ErrRecord) && !errors.Is(err, ErrTruncated) {
			t.Fatalf("%s at %d: %d bytes and %v", fault, at, len(got), err)
		}
		if !bytes.HasPrefix(wrote, got) {
			t.Fatalf("%s at %d: other bytes than were written", fault, at)
		}
		// The carrier is reset, so the middle, and what stands behind it, hears of it.
		if _, err := w.mb.Read(make([]byte, 1)); !errors.Is(err, transport.ErrReset) {
			t.Fatalf("%s: the carrier goes on: %v", fault, err)
		}
		if _, err := w.b.Write([]byte("x")); err == nil {
			t.Fatalf("%s: the stream can still be written", fault)
		}
	})
}

func TestKindsOfLaterAreRefused(t *testing.T) {
	for _, record := range []struct {
		k       kind
		content string
	}{{kindAck, "12345678"}, {kindMove, "\x00"}, {0, ""}, {kindData, ""}, {kindEnd, "x"}, {kindReset, "abc"}, {kindRekey, ""}, {200, "?"}} {
		w, done := wired(t)
		a := w.a.(promptStream)
		go func() { _, _ = w.mb.Write(a.out.seal(nil, record.k, []byte(record.content))) }()
		if _, err := w.b.Read(make([]byte, 100)); !errors.Is(err, ErrRecord) {
			t.Errorf("kind %d with %q: %v", record.k, record.content, err)
		}
		done()
	}
}

func TestResetWithCode(t *testing.T) {
	w, done := wired(t)
	defer done()
	go transport.Splice(w.ma, w.mb, transport.Count{}) //nolint:errcheck // ends with the sessions
	if _, err := w.a.Write([]byte("before")); err != nil {
		t.Fatal(err)
	}
	_ = w.a.(interface{ ResetWith(uint32) error }).ResetWith(77)
	got := make([]byte, 6)
	if _, err := io.ReadFull(w.b, got); err != nil || string(got) != "before" {
		t.Fatalf("%q, %v", got, err)
	}
	_, err := w.b.Read(got)
	if reset, ok := errors.AsType[Reset](err); !ok || reset.Code != 77 || !errors.Is(err, transport.ErrReset) {
		t.Errorf("the reset came as %v", err)
	}
}

func TestRekey(t *testing.T) {
	for _, aes := range []bool{true, false} {
		w, done := wired(t)
		go transport.Splice(w.ma, w.mb, transport.Count{}) //nolint:errcheck // ends with the sessions
		a, b := w.a.(promptStream), w.b.(promptStream)
		for _, d := range []*direction{a.in, a.out, b.in, b.out} {
			d.aes = aes
			if err := d.key(); err != nil {
				t.Fatal(err)
			}
		}
		before := a.out.secret
		for i := range 3 {
			a.out.number, b.in.number = rekeyAfter-1, rekeyAfter-1
			if _, err := w.a.Write(bytes.Repeat([]byte{byte(i)}, 3*sentContent)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 3*sentContent)
			if _, err := io.ReadFull(w.b, got); err != nil || got[0] != byte(i) || got[len(got)-1] != byte(i) {
				t.Fatal(err)
			}
			if a.out.number != 2 || b.in.number != 2 {
				t.Fatalf("numbers %d and %d", a.out.number, b.in.number)
			}
		}
		if a.out.secret == before || a.out.secret != b.in.secret {
			t.Error("the secret has not changed, or not at both ends")
		}
		b.in.number = mostRecords
		if _, err := w.a.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.b.Read(make([]byte, 1)); !errors.Is(err, ErrRecord) {
			t.Errorf("a key was used for too long: %v", err)
		}
		done()
	}
}

// The same content is never the same bytes, and nothing of it can be seen.
func TestCiphertextShowsNothing(t *testing.T) {
	secret := bytes.Repeat([]byte("attack at dawn. "), 1000)
	seen := map[string]bool{}
	for range 3 {
		w, done := wired(t)
		go func() {
			for range 3 {
				_, _ = w.a.Write(secret[:1600])
			}
			_ = w.a.CloseWrite()
		}()
		for _, record := range records(t, w.ma) {
			if bytes.Contains(record, secret[:8]) {
				t.Error("plaintext on the wire")
			}
			for at := headerSize; at+16 <= len(record); at += 16 {
				block := string(record[at : at+16])
				if seen[block] {
					t.Error("the same 16 bytes twice")
				}
				seen[block] = true
			}
		}
		done()
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte{23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{23, 3, 3, 0x40, 0x11})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, done := wired(t)
		defer done()
		go func() {
			_, _ = w.mb.Write(b)
			_ = w.mb.CloseWrite()
		}()
		if got, err := io.ReadAll(w.b); err == nil || len(got) > 0 {
			t.Errorf("%d bytes of nobody, %v", len(got), err)
		}
	})
}

func TestNothingIsAllocatedForARecord(t *testing.T) {
	if pace.Race {
		t.Log("buffers of a pool are lost at random under the race detector; nothing is measured")
		return
	}
	s, _ := Drawn()
	sink := &sinkStream{}
	st, err := New(sink, s)
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 16<<10)
	if n := testing.AllocsPerRun(1000, func() { _, _ = st.Write(piece) }); n > allowedAllocations {
		t.Errorf("a write allocates %v times", n)
	}
	w, done := wired(t)
	defer done()
	a := w.a.(promptStream)
	source := &sourceStream{}
	b := w.b.(promptStream).stream
	b.carrier, b.prompt = source, nil
	if n := testing.AllocsPerRun(1000, func() {
		source.b = a.out.seal(source.room[:0], kindData, piece[:8000])
		if n, err := b.Read(piece); n != 8000 || err != nil {
			t.Fatal(n, err)
		}
	}); n > allowedAllocations {
		t.Errorf("a read allocates %v times", n)
	}
}

type sinkStream struct{ carrier }

func (*sinkStream) Write(b []byte) (int, error) { return len(b), nil }

type sourceStream struct {
	carrier
	room [maxRecord]byte
	b    []byte
}

func (s *sourceStream) Read(b []byte) (int, error) {
	n := copy(b, s.b)
	s.b = s.b[n:]
	return n, nil
}

// Bulk over one stream in memory, sealed and plain.
func BenchmarkStream(b *testing.B) {
	for _, sealed := range []bool{false, true} {
		b.Run(fmt.Sprintf("sealed=%v", sealed), func(b *testing.B) {
			w, done := wired(b)
			defer done()
			go transport.Splice(w.ma, w.mb, transport.Count{}) //nolint:errcheck // ends with the sessions
			from, to := w.a, w.b
			if !sealed {
				from, to = w.a.(promptStream).carrier, w.b.(promptStream).carrier
			}
			piece := make([]byte, 4*sentContent)
			_, _ = rand.Read(piece)
			b.SetBytes(int64(len(piece)))
			b.ReportAllocs()
			go func() {
				for b.Loop() {
					if _, err := from.Write(piece); err != nil {
						break
					}
				}
				_ = from.CloseWrite()
			}()
			_, _ = io.Copy(io.Discard, to)
		})
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, n := range []int{64, sentContent} {
		for _, aes := range []bool{true, false} {
			b.Run(fmt.Sprintf("bytes=%d/aes=%v", n, aes), func(b *testing.B) {
				s, r := Drawn()
				out, _ := newDirection(s.out, aes)
				in, _ := newDirection(r.in, aes)
				room, to, content := make([]byte, maxRecord), make([]byte, maxRecord), make([]byte, n)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := in.open(to, out.seal(room[:0], kindData, content)); err != nil {
						b.Fatal(err)
					}
					out.number, in.number = 0, 0
				}
			})
		}
	}
}
