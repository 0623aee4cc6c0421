package datagram

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// FuzzSplitter: whatever datagrams a stream carries, and in whatever pieces it comes,
// the same datagrams come out, each whole.
func FuzzSplitter(f *testing.F) {
	f.Add([]byte("one datagram"), uint64(1))
	f.Add([]byte{}, uint64(2))
	f.Add(bytes.Repeat([]byte("x"), 70000), uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		draw := rand.New(rand.NewPCG(seed, 0))
		var sent [][]byte
		var stream []byte
		for rest := data; ; {
			n := min(len(rest), draw.IntN(1+min(len(data), MaxPayload)))
			sent = append(sent, rest[:n])
			stream = Append(stream, rest[:n])
			if rest = rest[n:]; len(rest) == 0 || len(sent) == 100 {
				break
			}
		}
		var s splitter
		var got [][]byte
		for len(stream) > 0 {
			n := 1 + draw.IntN(len(stream))
			if draw.IntN(2) == 0 {
				n = 1 + draw.IntN(min(len(stream), 3))
			}
			s.feed(stream[:n], func(p []byte) { got = append(got, bytes.Clone(p)) })
			stream = stream[n:]
		}
		if len(got) != len(sent) {
			t.Fatalf("%d datagrams came out of %d", len(got), len(sent))
		}
		for i := range sent {
			if !bytes.Equal(got[i], sent[i]) {
				t.Fatalf("datagram %d has %d bytes and had %d, or others", i, len(got[i]), len(sent[i]))
			}
		}
		if len(s.part) > 0 {
			t.Errorf("%d bytes are left", len(s.part))
		}
	})
}

// FuzzSplitterTakesAnything: bytes of a peer that breaks the rules do no harm.
func FuzzSplitterTakesAnything(f *testing.F) {
	f.Add([]byte{0, 0, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var s splitter
		total := 0
		for len(data) > 0 {
			n := min(len(data), 7)
			s.feed(data[:n], func(p []byte) { total += prefix + len(p) })
			data = data[n:]
		}
		if len(s.part) > prefix+MaxPayload {
			t.Errorf("%d bytes are kept", len(s.part))
		}
	})
}
