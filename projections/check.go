package projections

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/domain"
)

// Dump is all that a version of the read models holds.
type Dump struct {
	Rows    map[Key][]byte
	Members map[Member]struct{}
}

// Dumper is a [Store] that shows all of the version that is read. While it is
// written to, the parts of a dump may be of different moments.
type Dumper interface {
	Store
	Dump(ctx context.Context) (Dump, error)
	// Spelt gives the name that an index has in a dump, where it is not kept under its
	// own.
	Spelt(index string) string
}

// Difference is a row, or a membership, that is not what the log comes to.
type Difference struct {
	Name string // "user-100000001", or "users has 100000001"
	Live string // as it is read, "" = not there
	Want string // as folded anew, "" = should not be there
}

// Checked is what a check came to.
type Checked struct {
	Position    domain.Position // at which both were compared
	Rows        int
	Members     int
	Differences []Difference // in order of names
}

// checkRounds bounds how often rows that move are looked at again.
const checkRounds = 50

// Check folds the log into fresh and compares it with what live shows, while
// live is read and written on: what moved meanwhile is looked at again, at a
// position that both are at.
func Check(ctx context.Context, log Log, live, fresh Dumper, o Options) (Checked, error) {
	before, err := live.Checkpoint(ctx)
	if err != nil {
		return Checked{}, err
	}
	if before.Position == 0 {
		return Checked{}, errNotBuilt
	}
	until := NewUntil(log, before.Position)
	folding, stop := context.WithCancel(ctx)
	p := NewProjector(until, fresh, o)
	done := make(chan error, 1)
	go func() { done <- p.Run(folding) }()
	defer func() { stop(); <-done }() // nil
	foldTo := func(position domain.Position) (Dump, error) {
		until.MoveTo(position)
		if err := p.Ready(ctx); err != nil {
			return Dump{}, err
		}
		if err := fresh.Wait(ctx, position); err != nil {
			return Dump{}, err
		}
		d, err := fresh.Dump(ctx)
		return d.spelt(live), err
	}
	first, err := foldTo(before.Position)
	if err != nil {
		return Checked{}, err
	}
	shown, err := live.Dump(ctx)
	if err != nil {
		return Checked{}, err
	}
	after, err := live.Checkpoint(ctx)
	if err != nil {
		return Checked{}, err
	}
	last := first
	if after != before {
		if last, err = foldTo(after.Position); err != nil {
			return Checked{}, err
		}
	}
	keys, members := first.unsettled(last, shown)
	report := Checked{Position: after.Position, Rows: len(last.Rows), Members: len(last.Members)}
	if after == before || len(keys)+len(members) == 0 {
		report.differ(last, shown, keys, members)
		return report, nil
	}
	for range checkRounds {
		before, shown, ok, err := look(ctx, live, keys, members)
		if err != nil {
			return report, err
		}
		if !ok {
			continue // it moved again
		}
		if last, err = foldTo(before.Position); err != nil {
			return report, err
		}
		report.Position = before.Position
		report.differ(last, shown, keys, members)
		return report, nil
	}
	return report, fmt.Errorf("projections: the read models move too fast to be compared; %d rows were left", len(keys)+len(members))
}

// spelt gives the indexes the names that another store gives them.
func (d Dump) spelt(as Dumper) Dump {
	members := make(map[Member]struct{}, len(d.Members))
	for m := range d.Members {
		members[Member{Index: as.Spelt(m.Index), ID: m.ID}] = struct{}{}
	}
	d.Members = members
	return d
}

var errNotBuilt = fmt.Errorf("%w: nothing is built yet", ErrUnavailable)

// unsettled gives what is not the same in the two folds and in what was shown.
func (d Dump) unsettled(last, shown Dump) (keys []Key, members []Member) {
	seen := map[Key]bool{}
	for _, rows := range []map[Key][]byte{d.Rows, last.Rows, shown.Rows} {
		for key := range rows {
			if seen[key] {
				continue
			}
			seen[key] = true
			if !bytes.Equal(d.Rows[key], shown.Rows[key]) || !bytes.Equal(d.Rows[key], last.Rows[key]) {
				keys = append(keys, key)
			}
		}
	}
	known := map[Member]bool{}
	for _, set := range []map[Member]struct{}{d.Members, last.Members, shown.Members} {
		for m := range set {
			if known[m] {
				continue
			}
			known[m] = true
			_, in := d.Members[m]
			_, inLast := last.Members[m]
			if _, is := shown.Members[m]; is != in || in != inLast {
				members = append(members, m)
			}
		}
	}
	return keys, members
}

// look reads some rows and memberships at one position; ok is false when the
// read models moved meanwhile.
func look(ctx context.Context, live Store, keys []Key, members []Member) (at Checkpoint, d Dump, ok bool, err error) {
	if at, err = live.Checkpoint(ctx); err != nil {
		return at, d, false, err
	}
	d = Dump{Rows: map[Key][]byte{}, Members: map[Member]struct{}{}}
	for part := range slices.Chunk(keys, batchSize) {
		values, err := live.Get(ctx, part...)
		if err != nil {
			return at, d, false, err
		}
		for i, value := range values {
			if value != nil {
				d.Rows[part[i]] = value
			}
		}
	}
	for _, m := range members {
		ids, err := live.List(ctx, m.Index, m.ID-1, 1)
		if err != nil {
			return at, d, false, err
		}
		if len(ids) > 0 && ids[0] == m.ID {
			d.Members[m] = struct{}{}
		}
	}
	now, err := live.Checkpoint(ctx)
	return at, d, now == at, err
}

func (c *Checked) differ(want, shown Dump, keys []Key, members []Member) {
	for _, key := range keys {
		if w, s := want.Rows[key], shown.Rows[key]; !bytes.Equal(w, s) {
			c.Differences = append(c.Differences, Difference{Name: fmt.Sprintf("%s-%d", key.Kind, key.ID), Live: string(s), Want: string(w)})
		}
	}
	for _, m := range members {
		_, w := want.Members[m]
		if _, s := shown.Members[m]; w != s {
			d := Difference{Name: fmt.Sprintf("list %s, id %d", m.Index, m.ID), Live: "in it", Want: "in it"}
			if w {
				d.Live = ""
			} else {
				d.Want = ""
			}
			c.Differences = append(c.Differences, d)
		}
	}
	slices.SortFunc(c.Differences, func(a, b Difference) int { return strings.Compare(a.Name, b.Name) })
}

// Rebuild folds the whole log into a version beside the one that is read, and
// switches to it in one step; readers and other projectors go on meanwhile. The
// projector must not be running.
func (p *Projector) Rebuild(ctx context.Context) (Checkpoint, error) {
	return p.rebuild(ctx, false)
}
