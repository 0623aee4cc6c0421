package audit_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/audit"
)

// TestWhatIsRightIsProven, also with records that no checkpoint covers yet.
func TestWhatIsRightIsProven(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, w *world) {
		w.grow(30)
		first := w.seal()
		w.grow(45)
		last := w.seal()
		w.grow(5)
		for name, r := range map[string]audit.Report{"store": w.verify(first, last), "file": w.verifyFile(w.export(), first, last),
			"file without checkpoint": w.verifyFile(w.export())} {
			if r.Finding != nil || r.Records != 80 || r.Proven != 75 || r.Log == "" || r.Key != w.key.String() {
				t.Errorf("%s: %+v", name, r)
			}
		}
	})
}

// TestTamperingIsFound changes the database with all rights. The verifier must name the
// position, whether the log is read in the database or from an export.
func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	const records = "es.records (position, stream, version, owner, name, schema, event_id, data, meta, leaf_hash, recorded_at)"
	shift := func(from, by int) []string { // renumbers records, as an attacker would who closes or opens a hole
		return []string{fmt.Sprintf("UPDATE es.records SET position = -position WHERE position >= %d", from),
			fmt.Sprintf("UPDATE es.records SET position = -position + %d WHERE position < 0", by)}
	}
	eachOn := map[string]func(*testing.T, *world){}
	for name, test := range map[string]struct {
		do       func(w *world)
		kind     audit.Kind
		position int
		through  int
	}{
		"a changed event": {kind: audit.Changed, position: 42, do: func(w *world) {
			w.tamper(`UPDATE es.records SET data = '{"n":41}' WHERE position = 42`)
		}},
		"a changed event with its leaf hash": {kind: audit.Changed, position: 42, do: func(w *world) {
			w.tamper(`UPDATE es.records SET data = '{"n":41}' WHERE position = 42`)
			w.rehash(42)
		}},
		"a changed owner": {kind: audit.Changed, position: 7, do: func(w *world) {
			w.tamper(`UPDATE es.records SET owner = 8 WHERE position = 7`)
		}},
		"a changed leaf hash": {kind: audit.Changed, position: 7, do: func(w *world) {
			w.tamper(`UPDATE es.records SET leaf_hash = (SELECT leaf_hash FROM es.records WHERE position = 8) WHERE position = 7`)
		}},
		"the first of two": {kind: audit.Changed, position: 12, do: func(w *world) {
			w.tamper(`UPDATE es.records SET data = '{"n":41}' WHERE position = 12 OR position = 30`)
			w.rehash(12)
		}},
		"a deleted event": {kind: audit.Deleted, position: 42, do: func(w *world) {
			w.tamper(`DELETE FROM es.records WHERE position = 42`)
		}},
		"a deleted event and the hole closed": {kind: audit.Deleted, position: 42, do: func(w *world) {
			w.tamper(append([]string{`DELETE FROM es.records WHERE position = 42`}, shift(43, -1)...)...)
			w.tamper("UPDATE es.head SET position = position - 1")
		}},
		"the end cut off": {kind: audit.Deleted, position: 71, do: func(w *world) {
			w.tamper(`DELETE FROM es.records WHERE position > 70`, "UPDATE es.head SET position = 70")
		}},
		"an inserted event at the end": {kind: audit.Changed, position: 81, do: func(w *world) {
			w.tamper(`INSERT INTO ` + records + ` SELECT 81, stream, 1000, owner, name, schema, event_id, data, meta, leaf_hash, recorded_at FROM es.records WHERE position = 5`)
		}},
		"an inserted event with its leaf hash": {kind: audit.Inserted, position: 81, do: func(w *world) {
			w.tamper(`INSERT INTO `+records+` SELECT 81, stream, version + 1, owner, name, schema, event_id, data, meta, leaf_hash, recorded_at FROM es.records WHERE position = 80`,
				"UPDATE es.head SET position = 81")
			w.rehash(81)
		}},
		"an inserted event between others": {kind: audit.Inserted, position: 42, do: func(w *world) {
			w.tamper(append(shift(42, 1),
				`INSERT INTO `+records+` SELECT 42, stream, 1000, owner, name, schema, event_id, data, meta, leaf_hash, recorded_at FROM es.records WHERE position = 5`,
				"UPDATE es.head SET position = position + 1")...)
			w.rehash(42)
		}},
		"two events that changed places": {kind: audit.Moved, position: 42, do: func(w *world) {
			w.tamper("UPDATE es.records SET position = -1 WHERE position = 42", "UPDATE es.records SET position = 42 WHERE position = 43",
				"UPDATE es.records SET position = 43 WHERE position = -1")
		}},
		"an event that no checkpoint covers": {kind: audit.Changed, position: 77, do: func(w *world) {
			w.tamper(`UPDATE es.records SET data = '{"n":41}' WHERE position = 77`)
		}},
		"an event and its hashes everywhere": {kind: audit.Doubtful, position: 31, through: 75, do: func(w *world) {
			w.tamper(`UPDATE es.records SET data = '{"n":41}' WHERE position = 42`)
			w.rehash(42)
			hashes := "hashes = zeroblob(length(hashes))"
			if w.pg {
				hashes = "hashes = decode(repeat('00', length(hashes)), 'hex')"
			}
			w.tamper("UPDATE es.seals SET " + hashes + " WHERE size = 75")
		}},
		"hashes in the tree": {kind: audit.Changed, position: 31, do: func(w *world) {
			hashes := "hashes = zeroblob(length(hashes))"
			if w.pg {
				hashes = "hashes = decode(repeat('00', length(hashes)), 'hex')"
			}
			w.tamper("UPDATE es.seals SET " + hashes + " WHERE size = 75")
		}},
		"a checkpoint taken out": {kind: audit.Doubtful, position: 1, through: 75, do: func(w *world) {
			w.tamper("DELETE FROM es.seals WHERE size = 30")
		}},
	} {
		eachOn[name] = func(t *testing.T, w *world) {
			w.grow(30)
			w.seal()
			w.grow(45)
			last := w.seal()
			w.grow(5)
			test.do(w)
			w.wants(w.verify(last), test.kind, test.position, test.through)
			if name == "a checkpoint taken out" {
				return // such a file cannot be read
			}
			w.wants(w.verifyFile(w.export(), last), test.kind, test.position, test.through)
		}
	}
	onEachMany(t, eachOn)
}

// TestARewrittenExportIsFound: a file whose hashes all match, with checkpoints of
// another key or none. Only the given checkpoint shows the difference.
func TestARewrittenExportIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.grow(30)
	kept := w.seal()
	w.grow(20)
	other := newWorld(t, false)
	other.grow(50)
	other.seal()
	// Another log, which differs in every event id: its own checkpoints do not help.
	w.wants(w.verifyFile(other.export(), kept), audit.Doubtful, 1, 50)
	unsigned := newWorld(t, false)
	unsigned.grow(50)
	w.wants(w.verifyFile(unsigned.export(), kept), audit.Doubtful, 1, 30)
	short := newWorld(t, false)
	short.grow(10)
	w.wants(w.verifyFile(short.export(), kept), audit.Deleted, 11, 0)
}

// TestADamagedFileIsFound cuts, doubles and edits lines.
func TestADamagedFileIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.grow(20)
	c := w.seal()
	lines := strings.SplitAfter(string(w.export()), "\n")
	edit := func(change func([]string) []string) audit.Report {
		return w.verifyLoose([]byte(strings.Join(change(append([]string(nil), lines...)), "")), c)
	}
	w.wants(edit(func(l []string) []string { return append(l[:5:5], l[6:]...) }), audit.Deleted, 5, 0)
	w.wants(edit(func(l []string) []string { return append(l[:6:6], l[5:]...) }), audit.Inserted, 6, 0)
	w.wants(edit(func(l []string) []string { l[5], l[6] = l[6], l[5]; return l }), audit.Moved, 5, 0)
	w.wants(edit(func(l []string) []string { l[9] = strings.Replace(l[9], "user:7", "user:8", 1); return l }), audit.Changed, 9, 0)
	for _, cut := range []int{0, 1, 5, len(lines) - 2} {
		v := audit.NewVerifier(w.keys(), c)
		if err := audit.Read(strings.NewReader(strings.Join(lines[:cut], "")), v.Add); err == nil {
			t.Errorf("a file of %d lines was read to its end", cut)
		}
	}
}

// verifyLoose is verifyFile for a file that may not be readable to its end.
func (w *world) verifyLoose(file []byte, anchors ...audit.Checkpoint) audit.Report {
	v := audit.NewVerifier(w.keys(), anchors...)
	_ = audit.Read(bytes.NewReader(file), v.Add) // the report gives the result
	return v.End()
}
