package audit

import (
	"errors"
	"fmt"
	"sort"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// Kind is the kind of difference between a record and the signed log.
type Kind string

// The kinds.
const (
	Changed  Kind = "changed"  // it differs from what was written or signed
	Deleted  Kind = "deleted"  // it is missing
	Inserted Kind = "inserted" // it was not there when the log was signed, or was never appended
	Moved    Kind = "moved"    // it is at the place of another record
	Doubtful Kind = "doubtful" // one of the records from Position to Through is wrong
)

// Finding is the first difference that was found. It is an error.
type Finding struct {
	Kind     Kind            `json:"kind"`
	Position domain.Position `json:"position"`
	Through  domain.Position `json:"through,omitempty"` // for Doubtful: the last record that may be wrong
	Detail   string          `json:"detail"`
}

// Error implements error.
func (f *Finding) Error() string {
	if f.Through > f.Position {
		return fmt.Sprintf("positions %d to %d are %s: %s", f.Position, f.Through, f.Kind, f.Detail)
	}
	return fmt.Sprintf("position %d is %s: %s", f.Position, f.Kind, f.Detail)
}

func finding(k Kind, p int64, format string, args ...any) *Finding {
	return &Finding{Kind: k, Position: domain.Position(p), Detail: fmt.Sprintf(format, args...)}
}

// Report is the result of a verification.
type Report struct {
	Records     int64  `json:"records"`     // that were read
	Proven      int64  `json:"proven"`      // a checkpoint proves the records up to here
	Checkpoints int    `json:"checkpoints"` // that were compared
	Log         string `json:"log,omitempty"`
	Key         string `json:"key,omitempty"` // the key whose signatures were checked
	// Finding is the first difference; nil = none.
	Finding *Finding `json:"finding"`
}

// Verifier compares a log with its signed checkpoints. Give it all items of an archive
// with Add, then call End.
//
// It can name the first wrong record exactly: a signature covers the leaf hashes of the
// records as they were signed, so the wrong record is the first one whose content has
// another hash. If somebody has replaced those leaf hashes too, only a range can be
// named: from the last checkpoint that matches to the first that does not.
type Verifier struct {
	keys    []note.Verifier
	anchors map[int64]Checkpoint // checkpoints of the caller, by size

	tree    tree    // of the leaves up to the last right seal
	pending []entry // records after that seal
	records int64
	head    int64
	streams map[domain.StreamID]streamEnd
	ends    bool     // the ends of event streams were read
	suspect *Finding // the first pending record that is wrong by itself
	report  Report
	tail    bool // pending was added to the tree
}

// entry is a record that no seal has covered yet.
type entry struct {
	content, leaf tlog.Hash
}

type streamEnd struct {
	version domain.Version
	last    int64 // position of its last record
}

// NewVerifier makes a verifier. Signatures are checked only if there are keys. anchors
// are checkpoints that the caller has stored, and trusts.
func NewVerifier(keys []note.Verifier, anchors ...Checkpoint) *Verifier {
	v := &Verifier{keys: keys, anchors: map[int64]Checkpoint{}, streams: map[domain.StreamID]streamEnd{}}
	for _, a := range anchors {
		v.anchors[a.Size] = a
	}
	return v
}

// Add verifies the next item. The error is a *[Finding]; after it nothing more is
// verified.
func (v *Verifier) Add(item eventstore.ArchiveItem) error {
	if v.report.Finding != nil {
		return v.report.Finding
	}
	switch i := item.(type) {
	case eventstore.ArchivedHead:
		v.head = int64(i.Position)
	case eventstore.ArchivedRecord:
		v.record(&i)
	case eventstore.Seal:
		v.report.Finding = v.seal(i)
	case eventstore.ArchivedStream:
		v.ends = true
		v.report.Finding = v.first(v.end(i))
	}
	if v.report.Finding != nil {
		return v.report.Finding
	}
	return nil
}

// record checks a record by itself. A finding waits for the seal, because the seal may
// show that an earlier record is wrong.
func (v *Verifier) record(r *eventstore.ArchivedRecord) {
	v.records++
	e := entry{content: eventstore.HashLeaf(r.LeafContent()), leaf: r.Leaf}
	v.pending = append(v.pending, e)
	was := v.streams[r.Stream]
	v.streams[r.Stream] = streamEnd{version: r.Version, last: v.records}
	if v.suspect != nil {
		return
	}
	switch p := v.records; {
	case int64(r.Position) > p:
		v.suspect = finding(Deleted, p, "the next record has position %d", r.Position)
	case int64(r.Position) < p:
		v.suspect = finding(Moved, p, "there is a record with position %d here", r.Position)
	case e.content != e.leaf:
		v.suspect = finding(Changed, p, "the record does not match the leaf hash that was written with it")
	case r.Version != was.version+1:
		v.suspect = finding(Inserted, p, "the record is version %d of %s, but the record before was version %d", r.Version, r.Stream, was.version)
	case p > v.head:
		v.suspect = finding(Inserted, p, "the record is after the end of the log, %d", v.head)
	}
}

// seal compares the pending records with the signed checkpoint.
func (v *Verifier) seal(s eventstore.Seal) *Finding {
	if s.Before != v.tree.size {
		return v.doubt(s.Size, "the checkpoint of %d records continues a checkpoint of %d records, which is missing", s.Size, s.Before)
	}
	c, err := OpenCheckpoint(s.Note, v.keys)
	if err != nil && (len(v.keys) > 0 || !errors.Is(err, ErrUnknownKey)) {
		return v.doubt(s.Size, "the checkpoint of %d records cannot be trusted: %v", s.Size, err)
	}
	if v.report.Log != "" && v.report.Log != c.Origin {
		return v.doubt(s.Size, "the checkpoint is of the log %s, but those before are of the log %s", c.Origin, v.report.Log)
	}
	if c.Size != s.Size {
		return v.doubt(s.Size, "the checkpoint is of %d records, but is stored at %d", c.Size, s.Size)
	}
	leaves, err := leavesOf(s.Before, s.Size, s.Hashes)
	if err != nil {
		return v.doubt(s.Size, "%v", err)
	}
	signed := v.tree.clone()
	var stored []byte
	var forked *Finding
	for _, leaf := range leaves {
		stored = signed.add(leaf, stored)
		if forked == nil {
			forked = v.anchored(signed)
		}
	}
	if signed.root() != c.Root || string(stored) != string(s.Hashes) {
		return v.unsigned(s, c, leaves)
	}
	if f := compare(v.pending, leaves, s.Before); f != nil {
		return f
	}
	if v.suspect != nil {
		return v.suspect
	}
	if forked != nil {
		return forked
	}
	v.tree, v.pending = *signed, v.pending[:0]
	v.report.Proven, v.report.Log, v.report.Key = s.Size, c.Origin, c.Key
	v.report.Checkpoints++
	return nil
}

// unsigned handles leaf hashes that do not give the signed root.
func (v *Verifier) unsigned(s eventstore.Seal, c Checkpoint, leaves []tlog.Hash) *Finding {
	stored := v.tree.clone()
	for _, e := range v.pending {
		stored.add(e.content, nil)
	}
	if stored.size == s.Size && stored.root() == c.Root {
		for i, e := range v.pending {
			if e.content != leaves[i] {
				return finding(Changed, s.Before+int64(i)+1, "the record is the signed one, but its hash in the tree was changed")
			}
		}
		return v.doubt(s.Size, "the records are the signed ones, but hashes in the tree were changed")
	}
	if v.suspect != nil {
		return v.suspect
	}
	return v.doubt(s.Size, "the records do not match the checkpoint of %d records, and the leaf hashes beside it were replaced too", s.Size)
}

// doubt gives a finding about all records after the proven ones.
func (v *Verifier) doubt(through int64, format string, args ...any) *Finding {
	f := finding(Doubtful, v.report.Proven+1, format, args...)
	f.Through = domain.Position(through)
	return f
}

// anchored compares a tree with the caller's checkpoint of the same size.
func (v *Verifier) anchored(t *tree) *Finding {
	a, ok := v.anchors[t.size]
	if !ok {
		return nil
	}
	delete(v.anchors, t.size)
	if t.root() != a.Root {
		return v.doubt(t.size, "the records do not match the given checkpoint of %d records", a.Size)
	}
	v.report.Checkpoints++
	if t.size > v.report.Proven {
		v.report.Proven = t.size
	}
	if v.report.Log == "" {
		v.report.Log, v.report.Key = a.Origin, a.Key
	}
	return nil
}

// compare finds the first place where records and signed leaf hashes differ.
func compare(records []entry, leaves []tlog.Hash, before int64) *Finding {
	i := 0
	for i < len(records) && i < len(leaves) && records[i].content == leaves[i] {
		i++
	}
	p := before + int64(i) + 1
	is := func(r, l int) bool { return r < len(records) && l < len(leaves) && records[r].content == leaves[l] }
	switch {
	case i == len(records) && i == len(leaves):
		return nil
	case i == len(records):
		return finding(Deleted, p, "the record was signed and is missing")
	case i == len(leaves), is(i+1, i) && !is(i, i+1):
		return finding(Inserted, p, "the record was not there when the log was signed")
	case is(i, i+1) && !is(i+1, i):
		return finding(Deleted, p, "the record that was signed after it is here")
	}
	for l := i; l < len(leaves); l++ {
		if is(i, l) {
			return finding(Moved, p, "the record that was signed at position %d is here", before+int64(l)+1)
		}
	}
	return finding(Changed, p, "the record differs from the signed one")
}

// trailing checks the records after the last seal, once.
func (v *Verifier) trailing() *Finding {
	if v.tail {
		return nil
	}
	v.tail = true
	t := v.tree.clone()
	for _, e := range v.pending {
		t.add(e.content, nil)
		if f := v.anchored(t); f != nil {
			return v.first(f)
		}
	}
	if left := sizes(v.anchors); len(left) > 0 {
		size := left[0]
		if a := v.anchors[size]; size > v.records {
			return v.first(finding(Deleted, v.records+1, "the log ends here, but the given checkpoint is of %d records", a.Size))
		}
		return v.first(v.doubt(size, "the given checkpoint of %d records was not reached", size))
	}
	if v.records < v.head {
		return v.first(finding(Deleted, v.records+1, "the log ends here, but should reach position %d", v.head))
	}
	return v.first(nil)
}

func sizes(anchors map[int64]Checkpoint) []int64 {
	list := make([]int64, 0, len(anchors))
	for size := range anchors {
		list = append(list, size)
	}
	sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
	return list
}

// first gives the finding with the lowest position: f, or the suspected pending record.
func (v *Verifier) first(f *Finding) *Finding {
	if v.suspect != nil && (f == nil || v.suspect.Position <= f.Position || f.Kind == Doubtful) {
		return v.suspect
	}
	return f
}

// end compares an event stream's end with its records.
func (v *Verifier) end(s eventstore.ArchivedStream) *Finding {
	if f := v.trailing(); f != nil {
		return f
	}
	was, ok := v.streams[s.Stream]
	delete(v.streams, s.Stream)
	switch {
	case !ok || was.version < s.Version:
		return finding(Deleted, v.records+1, "%s is at version %d, but its records end with version %d", s.Stream, s.Version, was.version)
	case was.version > s.Version:
		return finding(Inserted, was.last, "the record is version %d of %s, but the stream ends with version %d", was.version, s.Stream, s.Version)
	}
	return nil
}

// End gives the report.
func (v *Verifier) End() Report {
	if v.report.Finding == nil {
		v.report.Finding = v.trailing()
	}
	if v.report.Finding == nil && v.ends {
		for stream, end := range v.streams {
			if f := finding(Inserted, end.last, "the event stream %s of the record does not exist", stream); v.report.Finding == nil || f.Position < v.report.Finding.Position {
				v.report.Finding = f
			}
		}
	}
	if f := v.report.Finding; f != nil {
		v.report.Proven = min(v.report.Proven, int64(f.Position)-1)
	}
	v.report.Records = v.records
	return v.report
}
