package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

const ann, bob = domain.FirstUserID, domain.FirstUserID + 1

// person appends a user's events through a store that encrypts.
func (w *world) person(s eventstore.Store, id int64, events ...domain.Event) []domain.Record {
	w.t.Helper()
	stream := domain.UserStream(id)
	a := eventstore.Append{Account: id, Streams: []eventstore.StreamAppend{{Stream: stream, Expected: eventstore.Any}},
		Meta: domain.Metadata{At: time.Unix(1, 0).UTC(), Actor: fmt.Sprintf("user:%d", id), Source: "192.0.2.7:4711", Allowed: "role:user"}}
	if id == 7 {
		a.Meta.Source = "198.51.100.1:1"
	}
	for _, e := range events {
		name, schema, data, err := domain.Encode(e)
		if err != nil {
			w.t.Fatal(err)
		}
		a.Events = append(a.Events, eventstore.NewEvent{Name: name, Schema: schema, Data: data})
	}
	results, err := s.AppendBatch(w.ctx(), []eventstore.Append{a})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return results[0].Records
}

// folded gives a user's state from the log.
func (w *world) folded(s eventstore.Store, id int64) *domain.User {
	w.t.Helper()
	records, err := s.ReadStream(w.ctx(), domain.UserStream(id), 0, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	u := &domain.User{}
	if err := domain.Fold(u, records); err != nil {
		w.t.Fatal(err)
	}
	return u
}

// TestPersonalDataIsForgotten, on both stores: below the layer nothing personal is
// plain, above it nothing is encrypted, and an erasure changes neither bytes nor
// proofs.
func TestPersonalDataIsForgotten(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, w *world) {
		// Written before there were keys: stays readable, and cannot be erased.
		w.person(w.store, 7, domain.UserCreated{UserID: 7, Username: "old", Email: "old@example.org"})
		s := eventstore.NewPersonal(w.store)
		if u := w.folded(s, 7); u.Email != "old@example.org" {
			t.Errorf("a plain record reads as %+v", u)
		}
		secrets := []string{"ännchen", "ann@example.org", "$argon2id$ann", "192.0.2.7"}
		written := w.person(s, ann, domain.UserCreated{UserID: ann, Username: "ännchen", Email: "ann@example.org"},
			domain.UserPasswordSet{Hash: "$argon2id$ann"}, domain.UserChanged{Username: "ännchen", Email: ""})
		w.person(s, bob, domain.UserCreated{UserID: bob, Username: "bob", Email: "bob@example.org"})
		read, err := s.ReadAll(w.ctx(), 1, 3)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range written {
			if string(r.Data) != string(read[i].Data) || r.Meta != read[i].Meta {
				t.Errorf("written %s %+v, read %s %+v", r.Data, r.Meta, read[i].Data, read[i].Meta)
			}
		}
		hidden := func(where string, content []byte) {
			for _, secret := range secrets {
				if bytes.Contains(content, []byte(secret)) {
					t.Errorf("%s shows %s", where, secret)
				}
			}
		}
		raw, err := w.store.ReadAll(w.ctx(), 1, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range raw {
			hidden("a stored record", []byte(fmt.Sprintf("%s %+v", r.Data, r.Meta)))
		}
		checkpoint := w.seal()
		before := w.export()
		hidden("an export", before)

		// Another process has read the key and caches it.
		other := eventstore.NewPersonal(w.store)
		if u := w.folded(other, ann); u.Username != "ännchen" || u.PasswordHash != "$argon2id$ann" {
			t.Errorf("another process reads %+v", u)
		}
		w.person(s, ann, domain.UserDeleted{}, domain.UserErased{})
		for _, reader := range []eventstore.Store{s, other, eventstore.NewPersonal(w.store)} {
			// The process that did not erase drops the key when it reads the erasure.
			_, first := reader.ReadAll(w.ctx(), 0, 100)
			records, err := reader.ReadAll(w.ctx(), 0, 100)
			if err := errors.Join(first, err); err != nil {
				t.Fatal(err)
			}
			for _, r := range records[1:4] {
				hidden("an erased record", r.Data)
				if r.Meta.Source != domain.Erased {
					t.Errorf("the address is %q", r.Meta.Source)
				}
			}
			if u := w.folded(reader, bob); u.Email != "bob@example.org" {
				t.Errorf("another account reads as %+v", u)
			}
			if u := w.folded(reader, ann); u.Username != domain.Erased || !u.Deleted {
				t.Errorf("an erased account reads as %+v", u)
			}
		}
		w.seal()
		if r := w.verify(checkpoint); r.Finding != nil {
			t.Errorf("after the erasure: %v", r.Finding)
		}
		if r := w.verifyFile(w.export(), checkpoint); r.Finding != nil {
			t.Errorf("after the erasure, exported: %v", r.Finding)
		}
		// An erasure that was interrupted between its event and the deletion of the key
		// is finished.
		w.person(s, 12, domain.UserCreated{UserID: 12, Username: "cid", Email: "cid@example.org"})
		w.person(w.store, 12, domain.UserDeleted{}, domain.UserErased{})
		if keys, err := w.store.DataKeys(w.ctx(), []int64{12}); err != nil || keys[12] == nil {
			t.Fatalf("the key of an erasure that was cut short: %v, %v", keys, err)
		}
		for _, want := range []int{1, 0} {
			if n, err := eventstore.NewPersonal(w.store).FinishErasures(w.ctx()); n != want || err != nil {
				t.Errorf("finished %d erasures, %v; want %d", n, err, want)
			}
		}
		if keys, err := w.store.DataKeys(w.ctx(), []int64{12}); err != nil || keys[12] != nil {
			t.Errorf("after that the key is %v, %v", keys, err)
		}
		// Later data about an erased account is not stored.
		w.person(s, ann, domain.UserChanged{Username: "again", Email: "again@example.org"})
		if u := w.folded(s, ann); u.Username != domain.Erased {
			t.Errorf("an erased account takes names again: %+v", u)
		}
		// An export without the key cannot restore the data; a moved log keeps it
		// erased too.
		into := &world{t: t, key: w.key, pg: w.pg}
		into.store, into.raw = openStore(t, false)
		file := w.export()
		err = into.store.Restore(w.ctx(), func(put func(eventstore.ArchiveItem) error) error {
			return audit.Read(bytes.NewReader(file), put)
		})
		if err != nil {
			t.Fatal(err)
		}
		moved := eventstore.NewPersonal(into.store)
		if a, b := into.folded(moved, ann), into.folded(moved, bob); a.Username != domain.Erased || b.Username != "bob" {
			t.Errorf("moved: %+v, %+v", a, b)
		}
	})
}

// TestSealedValuesStayAtTheirPlace: a value that is moved to another field, event or
// account cannot be read, and a plain value that looks encrypted stays a plain value.
func TestSealedValuesStayAtTheirPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	s := eventstore.NewPersonal(w.store)
	w.person(s, ann, domain.UserCreated{UserID: ann, Username: "ann", Email: "ann@example.org"})
	w.person(s, ann, domain.UserChanged{Username: "sealed:1:AAAA", Email: "sealed:1:%"})
	if u := w.folded(s, ann); u.Username != "sealed:1:AAAA" || u.Email != "sealed:1:%" {
		t.Errorf("a value that looks sealed came back as %+v", u)
	}
	w.tamper(`UPDATE es.records SET data = replace(replace(data, '"username"', '"x"'), '"email"', '"username"') WHERE position = 1`)
	records, err := s.ReadStream(w.ctx(), domain.UserStream(ann), 0, 1) // ReadAll may give what was appended
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(records[0].Data, []byte("ann@example.org")) {
		t.Errorf("a moved value was opened: %s", records[0].Data)
	}
}

// TestAddressIsReadWithEveryRecordOfAnAppend: records of another account than the
// append's account name the address too.
func TestAddressIsReadWithEveryRecordOfAnAppend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	s := eventstore.NewPersonal(w.store)
	w.person(s, bob, domain.UserCreated{UserID: bob, Username: "bob", Email: "bob@example.org"})
	name, schema, data, err := domain.Encode(domain.MappingDisabled{})
	if err != nil {
		t.Fatal(err)
	}
	results, err := s.AppendBatch(t.Context(), []eventstore.Append{{Account: ann,
		Streams: []eventstore.StreamAppend{{Stream: domain.MappingStream(1), Expected: eventstore.Any}},
		Meta:    domain.Metadata{At: time.Unix(1, 0).UTC(), Actor: "key:admin", Source: "192.0.2.7:4711", Allowed: "role:admin"},
		Events: []eventstore.NewEvent{{Name: name, Schema: schema, Data: data}, {Owner: bob, Name: name, Schema: schema, Data: data},
			{Owner: domain.FirstAnonymousID, Name: name, Schema: schema, Data: data}}}})
	if err := errors.Join(err, results[0].Err); err != nil {
		t.Fatal(err)
	}
	raw, rawErr := w.store.ReadAll(t.Context(), 1, 3)
	records, err := eventstore.NewPersonal(w.store).ReadAll(t.Context(), 1, 3)
	if err := errors.Join(rawErr, err); err != nil || len(records) != 3 {
		t.Fatal(len(records), err)
	}
	for i, r := range records {
		if r.Meta.Source != "192.0.2.7:4711" || bytes.Contains([]byte(raw[i].Meta.Source), []byte("192.0.2.7")) {
			t.Errorf("the record of account %d is kept as from %q and read as from %q", r.Owner, raw[i].Meta.Source, r.Meta.Source)
		}
	}
}

// BenchmarkAppend measures what encryption costs an append, and BenchmarkReplay what it
// costs a record that is read: compare the two lines.
func BenchmarkAppend(b *testing.B) {
	for name, edge := range edges {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, false)
			s := edge(w.store)
			w.person(s, ann, domain.UserCreated{UserID: ann, Username: "ann", Email: "ann@example.org"})
			b.ResetTimer()
			for range b.N {
				w.person(s, ann, domain.UserChanged{Username: "annabel", Email: "annabel@example.org"})
			}
		})
	}
}

// edges are a log with and without the layer that encrypts.
var edges = map[string]func(provable) eventstore.Store{
	"plain":  func(s provable) eventstore.Store { return s },
	"sealed": func(s provable) eventstore.Store { return eventstore.NewPersonal(s) },
}

// BenchmarkReplay reads records that all contain personal data.
func BenchmarkReplay(b *testing.B) {
	for name, edge := range edges {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, false)
			s := edge(w.store)
			events := make([]domain.Event, 500)
			for i := range events {
				events[i] = domain.UserChanged{Username: fmt.Sprint("user-", i), Email: fmt.Sprintf("user-%d@example.org", i)}
			}
			for range 10 {
				w.person(s, ann, events...)
			}
			b.ResetTimer()
			n := 0
			for b.Loop() {
				for after := domain.Position(0); ; {
					records, err := s.ReadAll(b.Context(), after, 1000)
					if err != nil {
						b.Fatal(err)
					}
					if len(records) == 0 {
						break
					}
					for _, r := range records {
						if _, err := r.Event(); err != nil {
							b.Fatal(err)
						}
					}
					n, after = n+len(records), records[len(records)-1].Position
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
		})
	}
}

// BenchmarkSeal measures what signing costs a record.
func BenchmarkSeal(b *testing.B) {
	w := newWorld(b, false)
	w.grow(20_000)
	b.ResetTimer()
	if c := w.seal(); c.Size != 20_000 {
		b.Fatal(errors.New("not all was signed"))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/20_000, "ns/record")
}
