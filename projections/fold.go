package projections

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// cacheSize bounds how many rows a folder keeps decoded. At about 1 KiB for each row
// this is a hundred megabytes at most.
const cacheSize = 100_000

// errTorn says that a row is not at the version before the record's: another projector
// changed the row, or the rows are not the fold of this log.
var errTorn = errors.New("projections: the row is not at the version before the record")

// row is what each read model says about its rows; see users.go and so on.
type row interface {
	versions() *Versions
	fold(e domain.Event, at time.Time)
	// live reports whether the row can be read; other rows are deleted.
	live() bool
	// indexes lists the indexes of a live row.
	indexes() []Index
	// takesAlong names a row that ends together with this one.
	takesAlong() (Key, bool)
}

// newRows is the table of rows: an empty row of every kind that has rows. [domain.Kind]
// says which kinds have none, and why.
var newRows = map[Kind]func() row{
	Users:    func() row { return &UserRow{} },
	Clients:  func() row { return &ClientRow{} },
	Mappings: func() row { return &MappingRow{} },
	Quotas:   func() row { return &QuotaRow{} },
	APIKeys:  func() row { return &KeyRow{} },
	Logins:   func() row { return &LoginRow{} },
	Shares:   func() row { return &ShareRow{} },
	Invites:  func() row { return &InviteRow{} },
	Domains:  func() row { return &DomainRow{} },
	Webhooks: func() row { return &WebhookRow{} },
}

// rowless are the kinds without rows in the read models.
var rowless = func() map[Kind]bool {
	none := map[Kind]bool{}
	for _, k := range domain.Kinds() {
		if k.NoRow != "" {
			none[Kind(k.Category)] = true
		}
	}
	return none
}()

// entry is a row while the folder works on it.
type entry struct {
	row    row
	stored []Index // the stored row is in these indexes
	exists bool    // whether it is stored
	dirty  bool    // whether it is in folder.dirty
}

// fact is a record with its event and its event stream's name, decoded once.
type fact struct {
	record *domain.Record
	key    Key // of the row that it changes
	event  domain.Event
}

// folder folds facts into rows. It keeps rows decoded between batches, so that in the
// steady state it reads nothing, and encodes a row once in a batch, however many facts
// of the batch change it. It is used by one goroutine.
type folder struct {
	rows  Rows
	cache map[Key]*entry
	dirty []Key // in order of their first fact in the batch
}

func newFolder(rows Rows) *folder { return &folder{rows: rows, cache: map[Key]*entry{}} }

// reset drops everything; another projector may have changed the rows.
func (f *folder) reset() {
	clear(f.cache)
	f.dirty = nil
}

// fold gives the batch for the facts, which follow from. After an error the folder must
// be reset.
func (f *folder) fold(ctx context.Context, from Checkpoint, facts []fact) (Batch, error) {
	if err := f.load(ctx, facts); err != nil {
		return Batch{}, err
	}
	for _, fact := range facts {
		if err := f.apply(fact); err != nil {
			return Batch{}, err
		}
	}
	last := facts[len(facts)-1].record
	b := Batch{From: from, To: Checkpoint{Position: last.Position, EventID: last.ID}}
	if err := f.flush(&b); err != nil {
		return Batch{}, err
	}
	if len(f.cache) > cacheSize {
		clear(f.cache)
	}
	return b, nil
}

// load reads all missing rows of the facts together.
func (f *folder) load(ctx context.Context, facts []fact) error {
	var keys []Key
	for _, fact := range facts {
		key := fact.key
		if _, ok := f.cache[key]; ok || rowless[key.Kind] {
			continue
		}
		empty := newRows[key.Kind]
		if empty == nil {
			return fmt.Errorf("record %d: unknown event stream %q", fact.record.Position, fact.record.Stream)
		}
		f.cache[key] = &entry{row: empty()}
		if fact.record.Version > 1 {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	values, err := f.rows.Get(ctx, keys...)
	if err != nil {
		return err
	}
	for i, value := range values {
		if value == nil {
			continue
		}
		e := f.cache[keys[i]]
		if err := json.Unmarshal(value, e.row); err != nil {
			return fmt.Errorf("read model row %s-%d: %w", keys[i].Kind, keys[i].ID, err)
		}
		e.exists, e.stored = true, e.row.indexes()
	}
	return nil
}

func keyOf(stream domain.StreamID) Key { return Key{Kind(stream.Category()), stream.Number()} }

func (f *folder) apply(fact fact) error {
	key := fact.key
	if rowless[key.Kind] {
		return nil
	}
	e := f.cache[key]
	at := e.row.versions()
	if at.Version+1 != fact.record.Version {
		return fmt.Errorf("%w: %s is at version %d, record %d is version %d", errTorn,
			fact.record.Stream, at.Version, fact.record.Position, fact.record.Version)
	}
	e.row.fold(fact.event, fact.record.Meta.At)
	at = e.row.versions()
	at.Version, at.Position = fact.record.Version, fact.record.Position
	f.touch(key, e)
	return nil
}

func (f *folder) touch(key Key, e *entry) {
	if !e.dirty {
		e.dirty = true
		f.dirty = append(f.dirty, key)
	}
}

// flush makes a batch of the changes by the facts.
func (f *folder) flush(b *Batch) error {
	var ended []Key // rows that end together with others
	for _, key := range f.dirty {
		e := f.cache[key]
		e.dirty = false
		if other, ok := e.row.takesAlong(); ok {
			ended = append(ended, other)
		}
		if e.row.live() {
			if err := e.put(b, key); err != nil {
				return err
			}
			continue
		}
		e.remove(b, key)
		delete(f.cache, key)
	}
	f.dirty = f.dirty[:0]
	for _, key := range ended {
		b.Put = slices.DeleteFunc(b.Put, func(r Row) bool { return r.Key == key })
		b.Delete = append(b.Delete, key)
		delete(f.cache, key)
	}
	return nil
}

func (e *entry) put(b *Batch, key Key) error {
	value, err := json.Marshal(e.row)
	if err != nil {
		return fmt.Errorf("encode row %s-%d: %w", key.Kind, key.ID, err)
	}
	b.Put = append(b.Put, Row{Key: key, Value: value})
	indexes := e.row.indexes()
	for _, index := range indexes {
		if !slices.Contains(e.stored, index) {
			b.Add = append(b.Add, Member{Index: string(index), ID: key.ID})
		}
	}
	for _, index := range e.stored {
		if !slices.Contains(indexes, index) {
			b.Remove = append(b.Remove, Member{Index: string(index), ID: key.ID})
		}
	}
	e.exists, e.stored = true, indexes
	return nil
}

func (e *entry) remove(b *Batch, key Key) {
	if !e.exists {
		return // began and ended within the batch
	}
	b.Delete = append(b.Delete, key)
	for _, index := range e.stored {
		b.Remove = append(b.Remove, Member{Index: string(index), ID: key.ID})
	}
}
