package seal

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// again is the first half of a handshake that goes on after another.
func (p pair) again(t testing.TB, terms Terms) (*Initiation, []byte) {
	t.Helper()
	i, first, err := p.a.Initiate(p.b.Public(), terms, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if !i.Resumed() || len(first) != againFirst {
		t.Fatalf("a whole handshake of %d bytes begins", len(first))
	}
	return i, first
}

// Agents that had a handshake go on with what it gave, with other keys for each stream.
func TestStreamsGoOnAfterAHandshake(t *testing.T) {
	p := newPair(t)
	one, _ := p.shake(t)
	seen := map[[32]byte]bool{one.in: true, one.out: true}
	other := terms
	other.Mapping, other.Protocol = 8, "udp" // it holds for all mappings between the two
	for range 3 {
		i, first := p.again(t, other)
		asked := false
		r, err := p.b.Respond(first, other, func(k PublicKey) error { asked = k == p.a.Public(); return nil })
		if err != nil || !asked || r.Peer != p.a.Public() || r.Note != nil {
			t.Fatalf("%v; asked for trust %v", err, asked)
		}
		answer, b, err := r.Finish([]byte("not told"))
		if err != nil {
			t.Fatal(err)
		}
		a, note, err := i.Finish(answer)
		if err != nil || note != nil {
			t.Fatal(err, note)
		}
		if a.out != b.in || a.in != b.out || !bytes.Equal(a.Binding(), b.Binding()) || a.aes != b.aes || seen[a.out] || seen[a.in] || a.in == a.out {
			t.Fatal("the two ends have different secrets, or those of before")
		}
		seen[a.in], seen[a.out] = true, true
	}
	// The other way round there was no handshake.
	if i, _, err := p.b.Initiate(p.a.Public(), terms, nil); err != nil || i.Resumed() {
		t.Errorf("the responder goes on as initiator: %v", err)
	}
}

// What goes on is bound to its terms, to both keys and to one stream; it counts once, and
// for a short time.
func TestGoingOnHoldsForWhatItIsMeant(t *testing.T) {
	p := newPair(t)
	p.shake(t)
	for name, other := range map[string]Terms{
		"mapping":     {8, terms.Source, terms.Target, "tcp", "", 3},
		"source":      {7, 600000003, terms.Target, "tcp", "", 3},
		"protocol":    {7, terms.Source, terms.Target, "udp", "", 3},
		"destination": {7, terms.Source, terms.Target, "tcp", "db:5432", 3},
		"version":     {7, terms.Source, terms.Target, "tcp", "", 4},
	} {
		_, first := p.again(t, terms)
		if _, err := p.b.Respond(first, other, trustAll); !errors.Is(err, ErrHandshake) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	i, first := p.again(t, terms)
	for at := range first {
		changed := bytes.Clone(first)
		changed[at] ^= 1
		if _, err := p.b.Respond(changed, terms, trustAll); !errors.Is(err, ErrHandshake) {
			t.Errorf("byte %d was changed: %v", at, err)
		}
	}
	for _, short := range [][]byte{{resumed}, first[:againFirst-1], append(bytes.Clone(first), 0)} {
		if _, err := p.b.Respond(short, terms, trustAll); !errors.Is(err, ErrHandshake) {
			t.Errorf("%d bytes: %v", len(short), err)
		}
	}
	refused := errors.New("this key counts no more")
	if _, err := p.b.Respond(first, terms, func(PublicKey) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("a key that is not trusted any more: %v", err)
	}
	r, err := p.b.Respond(first, terms, trustAll)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.b.Respond(first, terms, trustAll); !isReplayed(err) {
		t.Errorf("the second time: %v", err)
	}
	answer, _, err := r.Finish(nil)
	if err != nil {
		t.Fatal(err)
	}
	j, next := p.again(t, terms)
	if _, err := p.b.Respond(next, terms, trustAll); err != nil {
		t.Fatal(err)
	}
	if _, _, err := j.Finish(answer); !errors.Is(err, ErrHandshake) {
		t.Errorf("the answer of another stream: %v", err)
	}
	for at := range answer {
		changed := bytes.Clone(answer)
		changed[at] ^= 1
		if _, _, err := i.Finish(changed); !errors.Is(err, ErrHandshake) {
			t.Errorf("byte %d of the answer was changed: %v", at, err)
		}
	}
	if _, _, err := i.Finish(answer); err != nil {
		t.Error(err)
	}

	// Another agent shares nothing with this one, whatever it has seen.
	stranger := newPair(t)
	if _, err := stranger.b.Respond(first, terms, trustAll); !errors.Is(err, ErrForgotten) {
		t.Errorf("at another agent: %v", err)
	}
	// A responder that has forgotten says so; the initiator then makes a whole handshake.
	p.b.answered.drop(p.b.answered.with(p.a.Public()))
	k, first := p.again(t, terms)
	if _, err := p.b.Respond(first, terms, trustAll); !errors.Is(err, ErrForgotten) || !errors.Is(err, ErrHandshake) {
		t.Errorf("after it was forgotten: %v", err)
	}
	k.Forget()
	if whole, _, err := p.a.Initiate(p.b.Public(), terms, nil); err != nil || whole.Resumed() {
		t.Errorf("after Forget: %v", err)
	}
	// The time is over.
	p.shake(t)
	for _, s := range []*shelf{&p.a.asked, &p.b.answered} {
		for e := s.order.Front(); e != nil; e = e.Next() {
			e.Value.(*kept).until = time.Now()
		}
	}
	if whole, _, err := p.a.Initiate(p.b.Public(), terms, nil); err != nil || whole.Resumed() {
		t.Errorf("after its time: %v", err)
	}
	if p.b.answered.find(p.b.answered.order.Front().Value.(*kept).id) != nil {
		t.Error("the responder keeps it after its time")
	}
}

func isReplayed(err error) bool {
	_, ok := errors.AsType[Replayed](err)
	return ok
}

// What is shared with peers is bounded, for each and for all; what one peer does leaves
// others theirs.
func TestWhatIsSharedIsBounded(t *testing.T) {
	var s shelf
	add := func(peer byte, n int) *kept {
		k := &kept{peer: PublicKey{peer}, until: time.Now().Add(time.Hour)}
		k.id = [keptID]byte{peer, byte(n), byte(n >> 8)}
		s.add(k)
		return k
	}
	quiet := add(1, 0)
	var last *kept
	for n := range 100 {
		last = add(2, n)
	}
	if s.order.Len() != maxKeptEach+1 || s.find(quiet.id) == nil || s.with(PublicKey{2}) != last {
		t.Errorf("%d are kept", s.order.Len())
	}
	for n := range 3 * maxKept {
		k := &kept{peer: PublicKey{3, byte(n), byte(n >> 8)}, until: time.Now().Add(time.Hour)}
		k.id = [keptID]byte{3, byte(n), byte(n >> 8)}
		s.add(k)
	}
	if s.order.Len() != maxKept || len(s.byID) != maxKept || len(s.peers) != maxKept || s.find(quiet.id) != nil {
		t.Errorf("%d, %d, %d are kept", s.order.Len(), len(s.byID), len(s.peers))
	}
}

func BenchmarkGoingOn(b *testing.B) {
	p := newPair(b)
	p.shake(b)
	for b.Loop() {
		i, first := p.again(b, terms)
		r, err := p.b.Respond(first, terms, trustAll)
		if err != nil {
			b.Fatal(err)
		}
		answer, _, err := r.Finish(nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := i.Finish(answer); err != nil {
			b.Fatal(err)
		}
	}
}
