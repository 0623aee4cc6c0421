package logproof

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// server is a log whose keeper may lie.
type server struct {
	t       *testing.T
	signer  note.Signer
	key     string
	origin  string
	records [][]byte
	stored  []tlog.Hash
}

func newServer(t *testing.T, origin string) *server {
	secret, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return &server{t: t, signer: signer, key: public, origin: origin}
}

// fork gives another log of the same keeper that begins with the same records.
func (s *server) fork(records int) *server {
	other := &server{t: s.t, signer: s.signer, key: s.key, origin: s.origin}
	for _, r := range s.records[:records] {
		other.append(r)
	}
	return other
}

func (s *server) append(record []byte) (position int64) {
	hashes, err := tlog.StoredHashes(int64(len(s.records)), record, s.reader())
	if err != nil {
		s.t.Fatal(err)
	}
	s.records, s.stored = append(s.records, record), append(s.stored, hashes...)
	return int64(len(s.records))
}

func (s *server) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		list := make([]tlog.Hash, len(at))
		for i, n := range at {
			list[i] = s.stored[n]
		}
		return list, nil
	})
}

// announce appends a client's key, a byte repeated.
func (s *server) announce(client, number int64, key byte) (position int64) {
	return s.append(record(client, number, key))
}

func record(client, number int64, key byte) []byte {
	data, _ := json.Marshal(map[string]any{"static_key": bytes.Repeat([]byte{key}, 32), "number": number})
	meta := `{"actor":"client"}`
	return fmt.Appendf(nil, "tunnox-record 1\nclient-%d\n%d\n7\nclient_key_announced\n1\nid\n1\n%d\n%d\n%s%s", client, number+1, len(data), len(meta), data, meta)
}

// answer proves keys by (client, number, position), and growth from a size.
func (s *server) answer(from int64, keys ...[3]int64) Answer {
	s.t.Helper()
	size := int64(len(s.records))
	root, err := tlog.TreeHash(size, s.reader())
	if err != nil {
		s.t.Fatal(err)
	}
	c := Checkpoint{Origin: s.origin, Size: size, Root: root, At: time.Unix(1, 0)}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, s.signer)
	if err != nil {
		s.t.Fatal(err)
	}
	a := Answer{Signer: s.key, Checkpoint: string(signed)}
	for _, k := range keys {
		path, err := tlog.ProveRecord(size, k[2]-1, s.reader())
		if err != nil {
			s.t.Fatal(err)
		}
		a.Keys = append(a.Keys, KeyProof{ClientID: k[0], Number: k[1], Position: k[2], Record: s.records[k[2]-1], Path: flat(path)})
	}
	a.Grown = s.between(from, size)
	return a
}

// between proves growth; nil where there is no such proof.
func (s *server) between(from, to int64) []byte {
	s.t.Helper()
	if from < 1 || from >= to || to > int64(len(s.records)) {
		return nil
	}
	path, err := tlog.ProveTree(to, from, s.reader())
	if err != nil {
		s.t.Fatal(err)
	}
	return flat(path)
}

func flat(path []tlog.Hash) (b []byte) {
	for _, h := range path {
		b = append(b, h[:]...)
	}
	return b
}

func accept(t *testing.T, k Known, a Answer) Known {
	t.Helper()
	next, err := k.Accept(a)
	if err != nil {
		t.Fatalf("an honest answer: %v", err)
	}
	return next
}

func TestKeysOfAnHonestServerAreProven(t *testing.T) {
	s := newServer(t, "log")
	s.append([]byte("something else"))
	at := s.announce(5, 1, 'a')
	k := accept(t, Known{}, s.answer(0, [3]int64{5, 1, at}))
	if got := k.Keys[5]; got.Number != 1 || !bytes.Equal(got.Key, bytes.Repeat([]byte{'a'}, 32)) || k.Size() != 2 || k.Signer != s.key {
		t.Fatalf("known are %+v", k)
	}
	for i := range 40 { // every size has another shape of proof
		before := k.Size()
		at = s.announce(5, int64(i)+2, byte(i))
		k = accept(t, k, s.answer(before, [3]int64{5, int64(i) + 2, at}))
	}
	if k.Size() != 42 || k.Keys[5].Number != 41 {
		t.Fatalf("known are %d records and key %d, want 42 and 41", k.Size(), k.Keys[5].Number)
	}
	k = accept(t, k, s.answer(0)) // the same log again

	file := filepath.Join(t.TempDir(), "known")
	if err := k.Save(file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file has mode %v, %v", info.Mode(), err)
	}
	back, err := Load(file)
	if err != nil || back.Size() != 42 || back.Keys[5].Number != 41 {
		t.Fatalf("read back: %+v, %v", back, err)
	}
	if err := os.WriteFile(file, []byte(`{"signer":"x","checkpoint":"y"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil {
		t.Fatal("a damaged file was read")
	}
}

// TestLiesAreNamed has a server lie in each way.
func TestLiesAreNamed(t *testing.T) {
	s := newServer(t, "log")
	first := s.announce(5, 1, 'a')
	second := s.announce(5, 2, 'b')
	s.announce(6, 1, 'c')
	s.append([]byte("x"))
	size := int64(len(s.records))
	k := accept(t, Known{}, s.answer(0, [3]int64{5, 2, second}))
	s.append([]byte("y"))

	for name, c := range map[string]struct {
		kind Kind
		lie  func() Answer
	}{
		"an old key with a valid proof": {OldKey, func() Answer { return s.answer(size, [3]int64{5, 1, first}) }},
		"another key in the record": {ForgedProof, func() Answer {
			a := s.answer(size, [3]int64{5, 2, second})
			a.Keys[0].Record = record(5, 2, 'z')
			return a
		}},
		"a record of somebody else": {ForgedProof, func() Answer {
			a := s.answer(size, [3]int64{6, 1, 3})
			a.Keys[0].ClientID = 7
			return a
		}},
		"a record that is no key": {ForgedProof, func() Answer { return s.answer(size, [3]int64{5, 3, 4}) }},
		"another number": {ForgedProof, func() Answer {
			a := s.answer(size, [3]int64{5, 2, second})
			a.Keys[0].Number = 3
			return a
		}},
		"a path of something else": {ForgedProof, func() Answer {
			a := s.answer(size, [3]int64{5, 2, second})
			a.Keys[0].Path = a.Keys[0].Path[:len(a.Keys[0].Path)-5]
			return a
		}},
		"a position beyond the end": {ForgedProof, func() Answer {
			a := s.answer(size, [3]int64{5, 2, second})
			a.Keys[0].Position = 99
			return a
		}},
		"another key with the same number": {DifferentLog, func() Answer {
			twice := s.fork(5)
			at := twice.announce(5, 2, 'q')
			return twice.answer(size, [3]int64{5, 2, at})
		}},
		"a smaller log": {SmallerLog, func() Answer { return s.fork(2).answer(0, [3]int64{5, 2, second}) }},
		"another log of the same size": {DifferentLog, func() Answer {
			f := s.fork(3)
			f.append([]byte("z"))
			return f.answer(0)
		}},
		"a larger log that split before": {DifferentLog, func() Answer {
			f := s.fork(2)
			at := f.announce(5, 3, 'q')
			f.append([]byte("1"))
			f.append([]byte("2"))
			f.append([]byte("3"))
			return f.answer(size, [3]int64{5, 3, at})
		}},
		"no proof that it grew": {DifferentLog, func() Answer { return s.answer(0) }},
		"another signer":        {OtherSigner, func() Answer { o := newServer(t, "log"); o.append(s.records[0]); return o.answer(0) }},
		"another name": {OtherLog, func() Answer {
			f := s.fork(5)
			f.origin = "other"
			return f.answer(size)
		}},
		"no checkpoint": {ForgedProof, func() Answer { a := s.answer(size); a.Checkpoint = "nothing"; return a }},
	} {
		t.Run(name, func(t *testing.T) {
			next, err := k.Accept(c.lie())
			found, ok := errors.AsType[*Fault](err)
			if !ok || found.Kind != c.kind {
				t.Fatalf("got %v, want a fault of kind %s", err, c.kind)
			}
			if next.Checkpoint != k.Checkpoint || next.Keys[5].Number != 2 {
				t.Fatal("something of the answer was taken over")
			}
		})
	}
}

// TestSplitLogIsFound compares the checkpoints of two agents, as in a handshake.
func TestSplitLogIsFound(t *testing.T) {
	s := newServer(t, "log")
	s.append([]byte("1"))
	s.append([]byte("2"))
	one := accept(t, Known{}, s.answer(0))
	other := s.fork(2)
	s.append([]byte("3"))
	s.append([]byte("4"))
	two := accept(t, Known{}, s.answer(0))
	seen, err := ParseSeen(two.Seen().Append(nil))
	if err != nil || seen.Size != 4 || seen.Origin != "log" {
		t.Fatalf("passed on: %+v, %v", seen, err)
	}
	if one.Fit(seen) || !two.Fit(seen) {
		t.Error("what was not compared is known to fit, or its own is not")
	}
	if one, err = one.Compare(seen, s.between(2, 4)); err != nil || !one.Fit(seen) || one.Size() != 2 {
		t.Fatalf("the same log: %v", err)
	}
	file := filepath.Join(t.TempDir(), "known")
	if err := one.Save(file); err != nil {
		t.Fatal(err)
	}
	if back, err := Load(file); err != nil || !back.Equal(one) || !back.Fit(seen) {
		t.Fatalf("read back: %+v, %v", back, err)
	}
	// What fits to two records, and is more, may not fit to the next checkpoint.
	if moved := accept(t, one, s.answer(2)); moved.Fit(seen) != (moved.Seen() == seen) || len(moved.Fits) != 0 {
		t.Errorf("after more records %v are known to fit", moved.Fits)
	}
	early := accept(t, Known{}, s.fork(1).answer(0)).Seen()
	if two, err = two.Compare(early, s.between(1, 4)); err != nil {
		t.Fatalf("a peer that has seen less: %v", err)
	}
	if _, err = two.Compare(two.Seen(), nil); err != nil {
		t.Fatalf("a peer that has seen the same: %v", err)
	}
	other.append([]byte("3, for some"))
	other.append([]byte("4"))
	same := accept(t, Known{}, other.answer(0)).Seen()
	other.append([]byte("5"))
	split := accept(t, Known{}, other.answer(0)).Seen()
	s.append([]byte("5"))
	s.append([]byte("6"))
	if later := accept(t, two, s.answer(4)); !later.Fit(early) { // a part of a part
		t.Error("a peer that has seen less is forgotten")
	}
	elsewhere := seen
	elsewhere.Origin = "another"
	for name, c := range map[string]struct {
		seen Seen
		path []byte
	}{
		"of five records":                {split, s.between(4, 5)},
		"with the path of the other":     {split, other.between(4, 5)},
		"without a path":                 {split, nil},
		"of as many records":             {same, nil},
		"of less":                        {Seen{"log", 3, split.Root}, s.between(3, 4)},
		"of more than there are":         {Seen{"log", 9, split.Root}, nil},
		"of the same, with another name": {elsewhere, nil},
	} {
		after, err := two.Compare(c.seen, c.path)
		found, ok := errors.AsType[*Fault](err)
		if !ok || found.Kind != DifferentLog {
			t.Errorf("a split log %s: %v", name, found)
		}
		if after.Fit(c.seen) {
			t.Errorf("a split log %s fits", name)
		}
	}
	if _, err = (Known{}).Compare(seen, nil); err == nil {
		t.Error("an agent that knows nothing compared")
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("tunnox-record 1\nclient-5\n1\n1\nclient_key_announced\n1\nid\n1\n2\n0\n{}"), []byte("12345678901234567890123456789012345678901234"))
	f.Fuzz(func(t *testing.T, content, seen []byte) {
		_, _, _ = keyOf(content, 5)
		if s, err := ParseSeen(seen); err == nil && len(seen) > 0 && !bytes.Equal(s.Append(nil), seen) {
			t.Errorf("%x was read as %+v", seen, s)
		}
	})
}
