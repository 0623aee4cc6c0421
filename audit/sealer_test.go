package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// TestProofs checks every record's proof and the proof between every two sizes with the
// algorithms of RFC 6962.
func TestProofs(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, w *world) {
		for _, n := range []int{1, 1, 5, 13} { // several seals, full and broken trees
			w.grow(n)
			w.seal()
		}
		last := w.seal()
		if last.Size != 20 {
			t.Fatalf("sealed %d of 20", last.Size)
		}
		p := audit.NewProver(w.store)
		for size := int64(1); size <= 20; size++ {
			for position := int64(1); position <= size; position++ {
				proof, err := p.Inclusion(w.ctx(), domain.Position(position), size)
				if err != nil {
					t.Fatal(err)
				}
				if err := tlog.CheckRecord(proof.Hashes, size, proof.Root, position-1, proof.LeafHash); err != nil {
					t.Errorf("record %d of %d: %v", position, size, err)
				}
				if size == 20 && proof.Root != last.Root {
					t.Errorf("the root is %v, signed was %v", proof.Root, last.Root)
				}
			}
			c, err := p.Consistency(w.ctx(), size, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckTree(c.Hashes, 20, last.Root, size, c.FromRoot); err != nil {
				t.Errorf("from %d: %v", size, err)
			}
		}
		for name, err := range map[string]error{
			"beyond":   second(p.Inclusion(w.ctx(), 21, 0)),
			"unsigned": second(p.Inclusion(w.ctx(), 1, 21)),
			"backward": second(p.Consistency(w.ctx(), 5, 4)),
			"nothing":  second(p.Consistency(w.ctx(), 0, 4)),
		} {
			if !errors.Is(err, audit.ErrNoProof) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// TestNothingIsSignedOverWhatIsWrong changes a record before it is signed and after it
// was signed, and rolls the history back.
func TestNothingIsSignedOverWhatIsWrong(t *testing.T) {
	t.Parallel()
	eachOn := map[string]func(*testing.T, *world){}
	for name, test := range map[string]struct {
		position domain.Position
		do       func(*world)
	}{
		"changed before it was signed": {25, func(w *world) { w.tamper(`UPDATE es.records SET name = 'x' WHERE position = 25`) }},
		"missing before it was signed": {25, func(w *world) { w.tamper(`DELETE FROM es.records WHERE position = 25`) }},
		"checkpoints deleted":          {1, func(w *world) { w.tamper(`DELETE FROM es.seals`) }},
		"the last one deleted":         {11, func(w *world) { w.tamper(`DELETE FROM es.seals WHERE size = 20`) }},
		"the log cut off": {15, func(w *world) {
			w.tamper(`DELETE FROM es.records WHERE position > 14`, `UPDATE es.head SET position = 14`)
		}},
		"another signature": {0, func(w *world) {
			w.tamper(`UPDATE es.seals SET note = (SELECT note FROM es.seals WHERE size = 10) WHERE size = 20`)
		}},
		"another tree": {0, func(w *world) {
			w.tamper(`UPDATE es.seals SET hashes = (SELECT hashes FROM es.seals WHERE size = 10) WHERE size = 20`)
		}},
	} {
		eachOn[name] = func(t *testing.T, w *world) {
			var kept string
			w.grow(10)
			w.seal()
			w.grow(10)
			s := w.sealer(audit.SealerOptions{Keep: func(signed string) error { kept = signed; return nil }})
			if c, err := s.Seal(w.ctx()); err != nil || c.Size != 20 || c.Note != kept {
				t.Fatalf("%+v, %v", c, err)
			}
			w.grow(10)
			test.do(w)
			before, _, err := w.store.LastSeal(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			// A sealer that starts now from the stored checkpoint, and the sealer that
			// was running. The latter has the right tree in memory, whatever was done
			// to the stored one.
			sealers := []*audit.Sealer{w.sealer(audit.SealerOptions{Last: kept}), s}
			if name == "another tree" {
				sealers = sealers[:1]
			}
			for _, s := range sealers {
				_, err := s.Seal(w.ctx())
				found, ok := errors.AsType[*audit.Alarm](err)
				if !ok || found.Position != test.position {
					t.Errorf("sealing came to %v, want an alarm at %d", err, test.position)
				}
				if s.Check(w.ctx()) == nil || s.Status().Alarm == nil {
					t.Error("there is no alarm")
				}
			}
			after, _, err := w.store.LastSeal(w.ctx())
			if err != nil || after.Note != before.Note {
				t.Errorf("a checkpoint was signed all the same: %v, %v", after.Note, err)
			}
		}
	}
	onEachMany(t, eachOn)
}

// TestSignedRecordsAreWatched changes a record that was signed long ago. The running
// sealer notices it by itself, signs nothing more, and continues when the record is
// restored.
func TestSignedRecordsAreWatched(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, w *world) {
		w.grow(30)
		s := w.sealer(audit.SealerOptions{Every: 20 * time.Millisecond})
		ctx, cancel := context.WithCancel(w.ctx())
		var running sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) }) // nil
		defer running.Wait()
		defer cancel()
		w.eventually("30 records are signed", func() bool { return s.Status().Signed.Size == 30 && s.Check(ctx) == nil })
		w.tamper(`UPDATE es.records SET name = 'x' WHERE position = 12`)
		w.eventually("the change is noticed", func() bool { a := s.Status().Alarm; return a != nil && a.Position == 12 })
		w.grow(5)
		for range 3 {
			if c, err := s.Seal(ctx); err == nil && c.Size > 30 {
				t.Error("a checkpoint was signed over a changed record")
			}
		}
		w.tamper(`UPDATE es.records SET name = 'happened' WHERE position = 12`)
		w.eventually("all is signed again", func() bool { return s.Status().Signed.Size == 35 && s.Check(ctx) == nil })
	})
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for began := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			w.t.Fatalf("it never came that %s", what)
		}
	}
}

// TestManySealersMakeOneTree lets several control planes seal while others append.
func TestManySealersMakeOneTree(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, w *world) {
		var all sync.WaitGroup
		for range 3 {
			s := w.sealer(audit.SealerOptions{})
			all.Go(func() {
				for range 10 {
					if _, err := s.Seal(w.ctx()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 10 {
			w.grow(17)
		}
		all.Wait()
		w.seal()
		if r := w.verify(); r.Finding != nil || r.Proven != 170 {
			t.Errorf("%+v", r)
		}
	})
}

// TestAnotherKeyIsNotGoneOnFrom: checkpoints of another key are extended only if the
// key is trusted.
func TestAnotherKeyIsNotGoneOnFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.grow(3)
	first := w.seal()
	w.grow(3)
	other := newWorld(t, false)
	if _, err := w.sealer(audit.SealerOptions{Key: other.key}).Seal(w.ctx()); err == nil || !strings.Contains(err.Error(), "audit-trusted") {
		t.Errorf("sealed behind a checkpoint of a stranger: %v", err)
	}
	c, err := w.sealer(audit.SealerOptions{Key: other.key, Trusted: w.keys()}).Seal(w.ctx())
	if err != nil || c.Size != 6 || c.Origin != first.Origin || c.Key != other.key.String() {
		t.Errorf("a trusted key was not gone on from: %+v, %v", c, err)
	}
}

// TestKeyFile: the file is made once, for its owner only, and a key does not show
// itself.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit-key")
	if _, err := audit.LoadKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got the error %v, want %v", err, fs.ErrNotExist)
	}
	made, err := audit.CreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := audit.CreateKey(path)
	if err != nil || again.VerifierKey() != made.VerifierKey() {
		t.Errorf("another key was made: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	secret, _ := os.ReadFile(path)
	if shown := fmt.Sprintf("%v %s %s", made, made, made.VerifierKey()); strings.Contains(shown, strings.TrimSpace(string(secret))) {
		t.Error("the key shows itself")
	}
	if _, err := audit.ParseKey("PRIVATE+KEY+x"); err == nil {
		t.Error("half a key was taken")
	}
}

// TestArchives moves a log to each kind of store from each, through a file.
func TestArchives(t *testing.T) {
	t.Parallel()
	for _, from := range []bool{false, true} {
		for _, to := range []bool{false, true} {
			t.Run(fmt.Sprintf("postgres %v to postgres %v", from, to), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, from)
				w.grow(1200)
				c := w.seal()
				w.grow(7)
				_, err := w.store.AppendBatch(w.ctx(), []eventstore.Append{{Account: 7, Meta: domain.Metadata{At: time.Unix(9, 0)},
					Streams:  []eventstore.StreamAppend{{Stream: "mapping-1001", Expected: eventstore.MustExist, Close: true}},
					Events:   []eventstore.NewEvent{{Name: "ended", Schema: 1, Data: []byte(`{}`)}},
					Releases: []domain.Claim{{Scope: "name", Value: "n1", Owner: "mapping-1001"}}}})
				if err != nil {
					t.Fatal(err)
				}
				file := w.export()
				into := &world{t: t, key: w.key, pg: to, n: w.n}
				into.store, into.raw = openStore(t, to)
				restore := func() error {
					return into.store.Restore(w.ctx(), func(put func(eventstore.ArchiveItem) error) error {
						return audit.Read(bytes.NewReader(file), put)
					})
				}
				if err := restore(); err != nil {
					t.Fatal(err)
				}
				if again := into.export(); !bytes.Equal(again, file) {
					t.Error("the export of the copy differs from that of the original")
				}
				if r := into.verify(c); r.Finding != nil || r.Records != 1208 || r.Proven != 1200 {
					t.Errorf("%+v", r)
				}
				if err := restore(); !errors.Is(err, eventstore.ErrNotEmpty) {
					t.Errorf("restored over a log: %v", err)
				}
				into.goesOn(w)
			})
		}
	}
}

// goesOn checks that the copy works as the original does.
func (w *world) goesOn(original *world) {
	w.t.Helper()
	result := func(a eventstore.Append) eventstore.Result {
		w.t.Helper()
		a.Account, a.Meta = 7, domain.Metadata{At: time.Unix(1, 0)}
		a.Events = []eventstore.NewEvent{{Name: "happened", Schema: 1, Data: []byte(`{}`)}}
		r, err := w.store.AppendBatch(w.ctx(), []eventstore.Append{a})
		if err != nil {
			w.t.Fatal(err)
		}
		return r[0]
	}
	at := func(s domain.StreamID) []eventstore.StreamAppend {
		return []eventstore.StreamAppend{{Stream: s, Expected: eventstore.Any}}
	}
	if r := result(eventstore.Append{Streams: at("mapping-1001")}); !errors.Is(r.Err, eventstore.ErrClosed) {
		w.t.Errorf("a closed stream took a record: %+v", r)
	}
	if r := result(eventstore.Append{Streams: at("mapping-1002"), Claims: []domain.Claim{{Scope: "name", Value: "n2", Owner: "mapping-9"}}}); !errors.Is(r.Err, eventstore.ErrTaken) {
		w.t.Errorf("a claim was lost: %+v", r)
	}
	if r := result(eventstore.Append{Streams: at("mapping-1002"), Key: "key-5", KeyScope: "user:7"}); !r.Duplicate || r.First != 5 || r.Subject != "mapping-1002" {
		w.t.Errorf("an idempotency key was lost: %+v", r)
	}
	if r := result(eventstore.Append{Streams: at("mapping-1002"), Claims: []domain.Claim{{Scope: "name", Value: "n1", Owner: "mapping-1002"}}}); r.Err != nil || r.First != 1209 {
		w.t.Errorf("the copy does not go on: %+v", r)
	}
	id, err := w.store.NextID(w.ctx(), domain.SequenceMapping)
	if err != nil || id != 1004 {
		w.t.Errorf("the next mapping is %d, %v; want 1004", id, err)
	}
	if id, err = w.store.NextID(w.ctx(), domain.SequenceUser); err != nil || id != domain.FirstUserID {
		w.t.Errorf("the next user is %d, %v", id, err)
	}
	if c := w.seal(); c.Size != 1209 {
		w.t.Errorf("sealed %d of 1209", c.Size)
	}
	if r := w.verify(); r.Finding != nil {
		w.t.Error(r.Finding)
	}
}
