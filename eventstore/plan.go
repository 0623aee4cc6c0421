package eventstore

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tunnox-net/tunnox/domain"
)

// This file is for stores. The rules of an append (versions, closed streams, claims,
// keys, and how appends of one batch affect each other) are here once, as a pure
// function from the content of the database to the rows to write. So the two databases
// cannot interpret the rules differently. A store reads the state and writes the plan
// in one transaction. Or it guesses the state, and lets the database refuse the whole
// plan if the guess was wrong.

// maxName bounds the names of streams, claims and keys, in bytes. They are in unique
// indexes, and Postgres refuses index rows above a third of a page.
const maxName = 512

// MaxEvent bounds the data of one event.
const MaxEvent = 4 << 20

// StreamState is the end of an event stream.
type StreamState struct {
	Version domain.Version
	Closed  bool
}

// ClaimName is a claim without its owner.
type ClaimName struct{ Scope, Value string }

// KeyName is an idempotency key with its scope.
type KeyName struct{ Scope, Key string }

// State is the part of a database that a batch touches. A key that is not in a map does
// not exist in the database.
type State struct {
	Streams map[domain.StreamID]StreamState
	Claims  map[ClaimName]domain.StreamID // the value is the owner
	Keys    map[KeyName]KeyUse
}

// StreamPlan is an event stream on whose version the results depend. If Before and
// After are equal the version is only checked.
type StreamPlan struct {
	Stream        domain.StreamID
	Before, After domain.Version
	Close         bool
}

// ClaimPlan is a claim on whose owner the results depend; "" means nobody.
type ClaimPlan struct {
	ClaimName
	Before, After domain.StreamID
}

// KeyPlan is an idempotency key that must not be in the database. Unless Use is nil the
// key is written. Its positions are relative, like those of the results.
type KeyPlan struct {
	KeyName
	Use *KeyUse
}

// Row is a record to write, with the exact bytes of its metadata. Its position is
// relative: 1 is the first after the head.
type Row struct {
	domain.Record
	MetaJSON []byte
}

// Plan is what a batch writes on a given state.
type Plan struct {
	Rows    []Row
	Streams []StreamPlan
	Claims  []ClaimPlan
	Keys    []KeyPlan

	results  []Result
	relative []bool // for each result: its positions are relative to the head
}

// Results gives the results of the batch whose rows were written after base.
func (p *Plan) Results(base domain.Position, recorded time.Time) []Result {
	for i := range p.results {
		r := &p.results[i]
		if !p.relative[i] {
			continue
		}
		r.First, r.Last = r.First+base, r.Last+base
		if r.Duplicate {
			continue
		}
		r.Records = make([]domain.Record, 0, r.Last-r.First+1)
		for _, row := range p.Rows[r.First-base-1 : r.Last-base] {
			row.Position += base
			row.Recorded = recorded
			r.Records = append(r.Records, row.Record)
		}
	}
	return p.results
}

// GuessState gives the state that all appends of the batch expect; on it every append
// succeeds. ok is false when an append accepts any version, so that nothing can be
// guessed.
func GuessState(batch []Append) (state State, ok bool) {
	state = State{Streams: map[domain.StreamID]StreamState{}, Claims: map[ClaimName]domain.StreamID{}}
	claimed := map[ClaimName]bool{}
	for _, a := range batch {
		for _, s := range a.Streams {
			if s.Expected < 0 {
				return State{}, false
			}
			// The first append on a stream expects the state of the database; later
			// ones expect the state after the appends before them.
			if _, seen := state.Streams[s.Stream]; !seen {
				state.Streams[s.Stream] = StreamState{Version: s.Expected}
			}
		}
		for _, c := range a.Releases {
			name := ClaimName{c.Scope, c.Value}
			if !claimed[name] && state.Claims[name] == "" {
				state.Claims[name] = c.Owner
			}
			claimed[name] = true
		}
		for _, c := range a.Claims {
			claimed[ClaimName{c.Scope, c.Value}] = true
		}
	}
	return state, true
}

// NewPlan decides the appends one after the other, each on the state after those before
// it.
func NewPlan(state State, batch []Append) *Plan {
	rows, streams := 0, 0
	for i := range batch {
		rows, streams = rows+len(batch[i].Events), streams+len(batch[i].Streams)
	}
	b := planning{
		before: state,
		plan: &Plan{Rows: make([]Row, 0, rows), Streams: make([]StreamPlan, 0, streams),
			results: make([]Result, len(batch)), relative: make([]bool, len(batch))},
		streams: make(map[domain.StreamID]int, streams), claims: map[ClaimName]int{}, keys: make(map[KeyName]int, len(batch)),
	}
	for i := range batch {
		b.append(i, &batch[i])
	}
	return b.plan
}

// planning is a plan while it is made. The maps give the index in the plan of each
// thing that was looked at.
type planning struct {
	before  State
	plan    *Plan
	streams map[domain.StreamID]int
	claims  map[ClaimName]int
	keys    map[KeyName]int
}

func (b *planning) append(i int, a *Append) {
	result := &b.plan.results[i]
	meta, err := a.check()
	if err != nil {
		result.Err = fmt.Errorf("%w: %w", ErrMalformed, err)
		return
	}
	if a.Key != "" && b.duplicate(i, a) {
		return
	}
	if result.Err = b.refusal(a); result.Err != nil {
		return
	}
	b.write(i, a, meta)
}

// duplicate answers an append whose key was used before.
func (b *planning) duplicate(i int, a *Append) bool {
	name := KeyName{a.KeyScope, a.Key}
	use, found := b.before.Keys[name]
	if !found {
		k, looked := b.keys[name]
		if !looked {
			b.keys[name] = len(b.plan.Keys)
			b.plan.Keys = append(b.plan.Keys, KeyPlan{KeyName: name})
			return false
		}
		if b.plan.Keys[k].Use == nil {
			return false
		}
		use, b.plan.relative[i] = *b.plan.Keys[k].Use, true
	}
	if use.Hash != a.Hash {
		b.plan.results[i] = Result{Err: fmt.Errorf("%w: %q", ErrKeyReused, a.Key)}
		b.plan.relative[i] = false
		return true
	}
	b.plan.results[i] = Result{First: use.First, Last: use.Last, Subject: use.Subject, Duplicate: true}
	return true
}

func (b *planning) refusal(a *Append) error {
	for _, s := range a.Streams {
		if got := b.stream(s.Stream).After; !expects(s.Expected, got) {
			return fmt.Errorf("%w: %s is at version %d, expected %d", ErrConflict, s.Stream, got, s.Expected)
		}
	}
	for _, e := range a.Events {
		id := a.Streams[e.Stream].Stream
		if b.before.Streams[id].Closed || b.stream(id).Close {
			return fmt.Errorf("%w: %s", ErrClosed, id)
		}
	}
	for _, c := range a.Claims {
		owner := b.claimPlan(c).After
		if owner != "" && owner != c.Owner && !releases(a, c, owner) {
			return &TakenError{Claim: c}
		}
	}
	return nil
}

// releases reports whether the append itself releases the claim that is in the way.
func releases(a *Append, c domain.Claim, owner domain.StreamID) bool {
	for _, r := range a.Releases {
		if r.Scope == c.Scope && r.Value == c.Value && r.Owner == owner {
			return true
		}
	}
	return false
}

func expects(expected, got domain.Version) bool {
	switch expected {
	case Any:
		return true
	case MustExist:
		return got > 0
	}
	return expected == got
}

func (b *planning) write(i int, a *Append, meta []byte) {
	first := domain.Position(len(b.plan.Rows) + 1)
	for _, e := range a.Events {
		s := b.stream(a.Streams[e.Stream].Stream)
		s.After++
		r := domain.Record{Position: domain.Position(len(b.plan.Rows) + 1), Stream: s.Stream, Version: s.After,
			Owner: cmp.Or(e.Owner, a.Account), Name: e.Name, Schema: e.Schema, Data: e.Data, Meta: a.meta()}
		_, _ = rand.Read(r.ID[:])     // never fails
		r.ID[6] = r.ID[6]&0x0f | 0x40 // version 4, RFC 9562 §5.4
		r.ID[8] = r.ID[8]&0x3f | 0x80
		b.plan.Rows = append(b.plan.Rows, Row{Record: r, MetaJSON: meta})
	}
	for _, s := range a.Streams {
		if s.Close {
			b.stream(s.Stream).Close = true
		}
	}
	for _, c := range a.Releases {
		if claim := b.claimPlan(c); claim.After == c.Owner {
			claim.After = ""
		}
	}
	for _, c := range a.Claims {
		b.claimPlan(c).After = c.Owner
	}
	last := domain.Position(len(b.plan.Rows))
	if a.Key != "" {
		b.plan.Keys[b.keys[KeyName{a.KeyScope, a.Key}]].Use = &KeyUse{Hash: a.Hash, First: first, Last: last, Subject: a.Subject}
	}
	b.plan.results[i] = Result{First: first, Last: last, Subject: a.Subject}
	b.plan.relative[i] = true
}

func (b *planning) stream(id domain.StreamID) *StreamPlan {
	i, ok := b.streams[id]
	if !ok {
		i = len(b.plan.Streams)
		b.streams[id] = i
		v := b.before.Streams[id].Version
		b.plan.Streams = append(b.plan.Streams, StreamPlan{Stream: id, Before: v, After: v})
	}
	return &b.plan.Streams[i]
}

func (b *planning) claimPlan(c domain.Claim) *ClaimPlan {
	name := ClaimName{c.Scope, c.Value}
	i, ok := b.claims[name]
	if !ok {
		i = len(b.plan.Claims)
		b.claims[name] = i
		owner := b.before.Claims[name]
		b.plan.Claims = append(b.plan.Claims, ClaimPlan{ClaimName: name, Before: owner, After: owner})
	}
	return &b.plan.Claims[i]
}

// check finds values that no database should be asked to store, and gives the metadata
// as they are stored. One database would accept values that the other refuses (Postgres
// accepts no NUL in text and no invalid UTF-8), and a refusal by the database would
// fail the whole batch.
func (a *Append) check() (meta []byte, err error) {
	if len(a.Events) == 0 {
		return nil, fmt.Errorf("no events")
	}
	if s, twice := firstTwice(a.Streams, func(s StreamAppend) domain.StreamID { return s.Stream }); twice {
		return nil, fmt.Errorf("stream %s is named twice", s.Stream)
	}
	for i, s := range a.Streams {
		if err := checkName("stream", string(s.Stream)); err != nil {
			return nil, err
		}
		if s.Expected < MustExist {
			return nil, fmt.Errorf("stream %s: the expected version %d is not valid", s.Stream, s.Expected)
		}
		if s.Close && !a.writes(i) {
			return nil, fmt.Errorf("stream %s is closed without an event", s.Stream)
		}
	}
	for _, e := range a.Events {
		if err := a.checkEvent(e); err != nil {
			return nil, err
		}
	}
	for _, list := range [][]domain.Claim{a.Claims, a.Releases} {
		if c, twice := firstTwice(list, func(c domain.Claim) ClaimName { return ClaimName{c.Scope, c.Value} }); twice {
			return nil, fmt.Errorf("claim %s %q is named twice", c.Scope, c.Value)
		}
		for _, c := range list {
			if c.Owner == "" {
				return nil, fmt.Errorf("claim %s %q has no owner", c.Scope, c.Value)
			}
			for _, name := range []string{c.Scope, c.Value, string(c.Owner)} {
				if err := checkName("claim", name); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, name := range []string{a.KeyScope, a.Key, string(a.Subject)} {
		if name == "" {
			continue
		}
		if err := checkName("key", name); err != nil {
			return nil, err
		}
	}
	return json.Marshal(a.meta())
}

// meta gives the metadata as a reader gets them, so that the append's own records do
// not differ: in UTC and without Go's monotonic clock.
func (a *Append) meta() domain.Metadata {
	m := a.Meta
	m.At = m.At.Round(0).UTC()
	return m
}

// firstTwice gives an element whose name occurs twice. Most lists are short, and then
// comparing costs less than a map. But the deletion of a user can name thousands.
func firstTwice[E any, N comparable](list []E, name func(E) N) (twice E, ok bool) {
	if len(list) > 16 {
		seen := make(map[N]bool, len(list))
		for _, e := range list {
			if seen[name(e)] {
				return e, true
			}
			seen[name(e)] = true
		}
		return twice, false
	}
	for i, e := range list {
		for _, other := range list[:i] {
			if name(e) == name(other) {
				return e, true
			}
		}
	}
	return twice, false
}

func (a *Append) writes(stream int) bool {
	for _, e := range a.Events {
		if e.Stream == stream {
			return true
		}
	}
	return false
}

func (a *Append) checkEvent(e NewEvent) error {
	if e.Stream < 0 || e.Stream >= len(a.Streams) {
		return fmt.Errorf("event %s names stream %d, but there are %d", e.Name, e.Stream, len(a.Streams))
	}
	if err := checkName("event", e.Name); err != nil {
		return err
	}
	if e.Schema < 1 || e.Schema > 1<<15-1 {
		return fmt.Errorf("event %s has the invalid schema %d", e.Name, e.Schema)
	}
	if len(e.Data) > MaxEvent {
		return fmt.Errorf("event %s has %d bytes, allowed are at most %d", e.Name, len(e.Data), MaxEvent)
	}
	if !json.Valid(e.Data) || !utf8.Valid(e.Data) {
		return fmt.Errorf("the data of event %s is not JSON in UTF-8", e.Name)
	}
	return nil
}

// checkName refuses invalid names. A line end in a name would also make the leaf of a
// record ambiguous.
func checkName(what, name string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\n") {
		return fmt.Errorf("%s name %.40q: want 1 to %d bytes of UTF-8 without NUL and line ends", what, name, maxName)
	}
	return nil
}
