package seal

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var terms = Terms{Mapping: 7, Source: 600000001, Target: 600000002, Protocol: "tcp", Version: 3}

func trustAll(PublicKey) error { return nil }

// pair is two agents.
type pair struct{ a, b *Party }

func newPair(t testing.TB) pair { return pair{NewParty(newKey(t)), NewParty(newKey(t))} }

// begin is the first half of a whole handshake.
func (p pair) begin(t testing.TB, terms Terms) (*Initiation, []byte) {
	t.Helper()
	for k := p.a.asked.with(p.b.Public()); k != nil; k = p.a.asked.with(p.b.Public()) {
		p.a.asked.drop(k)
	}
	i, first, err := p.a.Initiate(p.b.Public(), terms, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	return i, first
}

// shake is a whole handshake.
func (p pair) shake(t testing.TB) (a, b *Secrets) {
	t.Helper()
	i, first := p.begin(t, terms)
	r, err := p.b.Respond(first, terms, trustAll)
	if err != nil {
		t.Fatal(err)
	}
	answer, b, err := r.Finish([]byte("welcome"))
	if err != nil {
		t.Fatal(err)
	}
	a, note, err := i.Finish(answer)
	if err != nil {
		t.Fatal(err)
	}
	i.Keep()
	if r.Peer != p.a.Public() || string(r.Note) != "hello" || string(note) != "welcome" {
		t.Fatalf("peer %v, notes %q and %q", r.Peer, r.Note, note)
	}
	return a, b
}

func TestHandshake(t *testing.T) {
	p := newPair(t)
	a, b := p.shake(t)
	if a.out != b.in || a.in != b.out || a.out == a.in || !bytes.Equal(a.Binding(), b.Binding()) || a.aes != b.aes || a.aes != hardwareAES {
		t.Error("the two ends have different secrets")
	}
	c, _ := p.shake(t)
	if c.out == a.out || c.in == a.in {
		t.Error("two streams have the same secrets")
	}
	if s := fmt.Sprintf("%v %+v %#v", a, a, a); strings.Contains(s, fmt.Sprint(a.out)) || strings.Contains(s, "out") {
		t.Errorf("secrets are printed: %s", s)
	}
}

// A processor without instructions for AES gets the cipher that suits it.
func TestCipherIsTheOneThatSuitsBoth(t *testing.T) {
	had := hardwareAES
	defer func() { hardwareAES = had }()
	p := newPair(t)
	for _, ends := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
		hardwareAES = ends[0]
		i, first := p.begin(t, terms)
		hardwareAES = ends[1]
		r, err := p.b.Respond(first, terms, trustAll)
		if err != nil {
			t.Fatal(err)
		}
		answer, b, err := r.Finish(nil)
		if err != nil {
			t.Fatal(err)
		}
		hardwareAES = ends[0]
		a, _, err := i.Finish(answer)
		if err != nil {
			t.Fatal(err)
		}
		if want := ends[0] && ends[1]; a.aes != want || b.aes != want {
			t.Errorf("with AES at %v the ends use %v and %v", ends, a.aes, b.aes)
		}
	}
}

func TestTermsMustBeTheSame(t *testing.T) {
	p := newPair(t)
	for name, other := range map[string]Terms{
		"mapping":     {8, terms.Source, terms.Target, "tcp", "", 3},
		"source":      {7, 600000003, terms.Target, "tcp", "", 3},
		"target":      {7, terms.Source, 600000003, "tcp", "", 3},
		"swapped":     {7, terms.Target, terms.Source, "tcp", "", 3},
		"protocol":    {7, terms.Source, terms.Target, "udp", "", 3},
		"destination": {7, terms.Source, terms.Target, "tcp", "db:5432", 3},
		"moved text":  {7, terms.Source, terms.Target, "tc", "p", 3},
		"version":     {7, terms.Source, terms.Target, "tcp", "", 4},
	} {
		_, first := p.begin(t, terms)
		if _, err := p.b.Respond(first, other, trustAll); !errors.Is(err, ErrHandshake) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestOnlyTheRightKeyAnswers(t *testing.T) {
	p, other := newPair(t), newPair(t)
	_, first := p.begin(t, terms)
	if _, err := other.b.Respond(first, terms, trustAll); !errors.Is(err, ErrHandshake) {
		t.Errorf("another key read the first message: %v", err)
	}
	refused := errors.New("not this key")
	if _, err := p.b.Respond(first, terms, func(k PublicKey) error {
		if k != p.a.Public() {
			t.Error("asked about another key")
		}
		return refused
	}); !errors.Is(err, refused) {
		t.Errorf("a key that is not trusted: %v", err)
	}
	// What was refused has not used up the counter.
	if _, err := p.b.Respond(first, terms, trustAll); err != nil {
		t.Error(err)
	}
}

func TestEarlierKeyStillAnswers(t *testing.T) {
	old := newKey(t)
	p := pair{NewParty(newKey(t)), NewParty(newKey(t), old)}
	_, first, err := p.a.Initiate(old.Public(), terms, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.b.Respond(first, terms, trustAll); err != nil {
		t.Error(err)
	}
}

func TestAnswersOfTwoStreamsCannotBeSwapped(t *testing.T) {
	p := newPair(t)
	var inits [2]*Initiation
	var answers [2][]byte
	for n := range inits {
		i, first := p.begin(t, terms)
		r, err := p.b.Respond(first, terms, trustAll)
		if err != nil {
			t.Fatal(err)
		}
		inits[n] = i
		if answers[n], _, err = r.Finish(nil); err != nil {
			t.Fatal(err)
		}
	}
	for n, i := range inits {
		if _, _, err := i.Finish(answers[1-n]); !errors.Is(err, ErrHandshake) {
			t.Errorf("stream %d took the answer of the other: %v", n, err)
		}
	}
}

func TestFirstMessageCountsOnce(t *testing.T) {
	p := newPair(t)
	_, first := p.begin(t, terms)
	if _, err := p.b.Respond(first, terms, trustAll); err != nil {
		t.Fatal(err)
	}
	_, err := p.b.Respond(first, terms, trustAll)
	if _, ok := errors.AsType[Replayed](err); !ok || !errors.Is(err, ErrHandshake) {
		t.Errorf("the second time: %v", err)
	}
}

// The initiator's clock went back while it was not running.
func TestAdvanceAfterTheClockWentBack(t *testing.T) {
	p := newPair(t)
	p.shake(t)
	again := pair{NewParty(p.a.keys[0].key), p.b}
	again.a.counter.Store(1000)
	_, first := again.begin(t, terms)
	_, err := p.b.Respond(first, terms, trustAll)
	replayed, ok := errors.AsType[Replayed](err)
	if !ok {
		t.Fatal(err)
	}
	again.a.Advance(replayed.Least)
	again.shake(t)
	again.a.Advance(1 << 63)
	again.shake(t)
}

func TestEveryByteOfAMessageMatters(t *testing.T) {
	p := newPair(t)
	i, first := p.begin(t, terms)
	for at := range first {
		bad := bytes.Clone(first)
		bad[at] ^= 1 << (at % 8)
		if _, err := p.b.Respond(bad, terms, trustAll); !errors.Is(err, ErrHandshake) {
			t.Fatalf("byte %d changed: %v", at, err)
		}
		if _, err := p.b.Respond(first[:at], terms, trustAll); !errors.Is(err, ErrHandshake) {
			t.Fatalf("cut to %d: %v", at, err)
		}
	}
	r, err := p.b.Respond(first, terms, trustAll)
	if err != nil {
		t.Fatal(err)
	}
	answer, _, err := r.Finish(nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(answer)
	bad[len(bad)/2] ^= 1
	if _, _, err := i.Finish(bad); !errors.Is(err, ErrHandshake) {
		t.Errorf("a changed answer: %v", err)
	}
	if _, first, _ := p.a.Initiate(p.b.Public(), terms, nil); first[0] != 1 {
		t.Error("the first byte is not the version")
	} else if _, err := p.b.Respond(append([]byte{9}, first[1:]...), terms, trustAll); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
}

// The window against one that remembers everything: nothing is taken twice, and nothing
// new near the highest is refused.
func TestReplayWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r replays
		var peers [3]PublicKey
		took, highest := map[string]bool{}, map[PublicKey]uint64{}
		for i := range peers {
			peers[i][0] = byte(i + 1)
		}
		for range rapid.IntRange(1, 200).Draw(t, "messages") {
			peer := rapid.SampledFrom(peers[:]).Draw(t, "peer")
			top := highest[peer]
			counter := rapid.OneOf(rapid.Uint64Range(1, 20000), rapid.Custom(func(t *rapid.T) uint64 {
				return top - min(top, uint64(rapid.IntRange(0, replayWindow+10).Draw(t, "behind"))) + uint64(rapid.IntRange(0, 3).Draw(t, "ahead"))
			})).Draw(t, "counter")
			if counter == 0 {
				continue
			}
			key := fmt.Sprint(peer, counter)
			least, ok := r.fresh(peer, counter)
			switch {
			case ok && took[key]:
				t.Fatalf("%d was taken twice", counter)
			case !ok && !took[key] && counter+replayWindow > highest[peer]:
				t.Fatalf("%d is new and was refused; the highest is %d", counter, highest[peer])
			case !ok && least != highest[peer]+1:
				t.Fatalf("least is %d, the highest %d", least, highest[peer])
			}
			if ok {
				took[key] = true
				highest[peer] = max(highest[peer], counter)
			}
		}
	})
}

func TestForgottenPeersCannotBeReplayed(t *testing.T) {
	var r replays
	for n := range replayPeers + 10 {
		if _, ok := r.fresh(PublicKey{byte(n), byte(n >> 8), 1}, uint64(1000+n)); !ok {
			t.Fatalf("peer %d was refused", n)
		}
	}
	if len(r.peers) != replayPeers || r.order.Len() != replayPeers {
		t.Errorf("remembers %d and %d peers", len(r.peers), r.order.Len())
	}
	least, ok := r.fresh(PublicKey{0, 0, 1}, 1000)
	if ok {
		t.Error("a peer that was forgotten was replayed")
	}
	if _, ok := r.fresh(PublicKey{0, 0, 1}, least); !ok {
		t.Error("a counter that was asked for was refused")
	}
}

func FuzzRespond(f *testing.F) {
	p := newPair(f)
	_, first := p.begin(f, terms)
	f.Add(first)
	f.Add([]byte{})
	f.Add([]byte{Version})
	f.Fuzz(func(t *testing.T, message []byte) {
		if _, err := p.b.Respond(message, terms, trustAll); err == nil && !bytes.Equal(message, first) {
			t.Error("took a message that nobody made")
		}
	})
}

func BenchmarkHandshake(b *testing.B) {
	p := newPair(b)
	for b.Loop() {
		p.shake(b)
	}
}
