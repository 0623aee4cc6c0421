package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

const (
	// sealRecords is the largest number of records that a seal covers. So the range of
	// an error that cannot be located further is never larger.
	sealRecords = 1000
	// sealEvery is how long a record waits for its checkpoint, unless the seal is full
	// before.
	sealEvery = 5 * time.Second
	// lookEvery is the time between two looks at the end of the log.
	lookEvery = 500 * time.Millisecond
	// recheckRecords is how many records that were signed long ago are compared with
	// the tree in each sealEvery.
	recheckRecords = 5000
	// announceEvery is how often a checkpoint is written to the log of the process. The
	// owner of the database cannot remove that copy.
	announceEvery = 10 * time.Minute
)

// SealerOptions tune a sealer. The zero value reads and does not sign.
type SealerOptions struct {
	// Key signs. A sealer without a key checks what others sign.
	Key *Key
	// Trusted are other keys, and former ones, whose checkpoints may be extended.
	Trusted []note.Verifier
	// Last gives the last signed checkpoint that this control plane knows, "" for none.
	// Keep stores it outside the database, so that a rollback of the history is
	// noticed.
	Last string
	Keep func(signed string) error

	Every   time.Duration // 0 is sealEvery
	Metrics *Metrics
	Logger  *slog.Logger
	Clock   func() time.Time
}

// Alarm says that the log does not match its signed checkpoints, or that the tree
// cannot be extended.
type Alarm struct {
	Position domain.Position // the first wrong record, 0 = not known
	Reason   string
}

// Error implements error.
func (a *Alarm) Error() string { return "audit: " + a.Reason }

func alarm(p domain.Position, format string, args ...any) *Alarm {
	return &Alarm{Position: p, Reason: fmt.Sprintf(format, args...)}
}

// Sealer extends the tree over the log and signs checkpoints. It also compares records
// that were signed before with the tree, all the time. When it finds a difference it
// stops: it signs nothing until the difference is repaired.
//
// Any number of sealers may work on one log. Each extension is made by one of them, and
// the others continue from it.
type Sealer struct {
	log     Log
	options SealerOptions
	trusted []note.Verifier

	working sync.Mutex // held while sealing or rechecking
	tree    *tree      // guarded by working; nil = not read yet
	signed  Checkpoint // guarded by working; the newest checkpoint that was read and is right
	checked int64      // guarded by working; size of the last seal that was rechecked
	told    time.Time  // guarded by working; when a checkpoint was last announced

	mu    sync.Mutex
	state SealerStatus // guarded by mu
}

// SealerStatus is the state of a sealer.
type SealerStatus struct {
	Signed Checkpoint // zero = none yet
	Alarm  *Alarm     // nil = nothing is wrong
	alarms [2]*Alarm  // of sealing, of rechecking
}

// NewSealer makes a sealer; Run does the work.
func NewSealer(log Log, o SealerOptions) (*Sealer, error) {
	if o.Every <= 0 {
		o.Every = sealEvery
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	s := &Sealer{log: log, options: o, trusted: o.Trusted}
	if o.Key != nil {
		own, err := ParseVerifiers(o.Key.VerifierKey())
		if err != nil {
			return nil, err
		}
		s.trusted = append(own, o.Trusted...)
	}
	if o.Last != "" {
		c, err := OpenCheckpoint(o.Last, s.trusted)
		if err != nil {
			return nil, fmt.Errorf("the checkpoint that is stored outside the database: %w", err)
		}
		s.signed = c
		s.state.Signed = c
	}
	return s, nil
}

// Status gives the present state.
func (s *Sealer) Status() SealerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Check gives the alarm as an error, or nil.
func (s *Sealer) Check(context.Context) error {
	if a := s.Status().Alarm; a != nil {
		return a
	}
	return nil
}

// Run seals and rechecks until ctx ends. After a failure of the store it tries again.
func (s *Sealer) Run(ctx context.Context) error {
	look := time.NewTicker(min(lookEvery, s.options.Every))
	defer look.Stop()
	due := s.options.Clock().Add(s.options.Every)
	var waiting time.Time // since when a record has waited
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		now := s.options.Clock()
		size := s.Status().Signed.Size
		head, err := s.log.Head(ctx)
		if err != nil {
			continue // other parts report that the database cannot be reached
		}
		behind := int64(head.Position) - size
		switch {
		case behind == 0:
			waiting = time.Time{}
		case waiting.IsZero():
			waiting = now
		}
		if behind >= sealRecords || behind < 0 || !waiting.IsZero() && now.Sub(waiting) >= s.options.Every {
			waiting = time.Time{}
			s.outcome(ctx, ofSealing, "seal the log", s.seal(ctx))
		}
		if !now.Before(due) {
			due = now.Add(s.options.Every)
			if behind == 0 {
				// Also when nothing is added: the tree may have been rolled back.
				s.outcome(ctx, ofSealing, "seal the log", s.seal(ctx))
			}
			s.outcome(ctx, ofRechecking, "recheck the log", s.recheck(ctx))
		}
	}
}

// Seal signs everything that is in the log now and gives the checkpoint. Without a key
// it gives the last checkpoint.
func (s *Sealer) Seal(ctx context.Context) (Checkpoint, error) {
	err := s.seal(ctx)
	s.outcome(ctx, ofSealing, "seal the log", err)
	if err != nil {
		return Checkpoint{}, err
	}
	return s.Status().Signed, nil
}

const (
	ofSealing = iota
	ofRechecking
)

// outcome stores the result of work. The begin and the end of an alarm are logged once.
func (s *Sealer) outcome(ctx context.Context, of int, doing string, err error) {
	found, isAlarm := errors.AsType[*Alarm](err)
	if err != nil && !isAlarm {
		if ctx.Err() == nil {
			s.options.Logger.Warn("cannot "+doing+", trying again", "error", err)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.state.Alarm
	s.state.alarms[of] = found
	s.state.Alarm = s.state.alarms[ofRechecking] // this alarm names a position
	if s.state.Alarm == nil || found != nil && found.Position != 0 && found.Position < s.state.Alarm.Position {
		s.state.Alarm = s.state.alarms[ofSealing]
	}
	now := s.state.Alarm
	s.options.Metrics.alarm(now != nil)
	switch {
	case now != nil && (before == nil || *now != *before):
		s.options.Logger.Error("THE LOG DOES NOT MATCH ITS SIGNED CHECKPOINTS; no checkpoint is signed until this is repaired",
			"position", int64(now.Position), "reason", now.Reason)
	case now == nil && before != nil:
		s.options.Logger.Info("the log matches its signed checkpoints again")
	}
}

// seal extends the tree from the newest checkpoint to the end of the log.
func (s *Sealer) seal(ctx context.Context) error {
	s.working.Lock()
	defer s.working.Unlock()
	head, err := s.log.Head(ctx)
	if err != nil {
		return err
	}
	for {
		if err := s.catchUp(ctx); err != nil {
			s.tree = nil // read and compare all of it the next time
			return err
		}
		if s.options.Key == nil || s.tree.size >= int64(head.Position) {
			return s.rest(ctx, head)
		}
		if s.Status().alarms[ofRechecking] != nil {
			return nil // the alarm was logged; a signature would cover the wrong records
		}
		err := s.extend(ctx, head)
		if errors.Is(err, eventstore.ErrSealed) {
			s.tree = nil
			continue // continue from the seal of the other sealer
		}
		if err != nil {
			s.tree = nil
			return err
		}
	}
}

// rest finds a log that ends before its tree.
func (s *Sealer) rest(ctx context.Context, head eventstore.Checkpoint) (err error) {
	if s.tree.size > int64(head.Position) {
		// Usually another sealer has sealed records that came since.
		if head, err = s.log.Head(ctx); err != nil {
			return err
		}
	}
	if s.tree.size > int64(head.Position) {
		return alarm(head.Position+1, "the log ends at %d, but %d records were signed", head.Position, s.tree.size)
	}
	return nil
}

// catchUp reads tree and signed from the newest seal and checks that they may be
// extended: a trusted key signed the seal, it covers the stored tree, and the tree
// contains the last known checkpoint.
func (s *Sealer) catchUp(ctx context.Context) error {
	last, ok, err := s.log.LastSeal(ctx)
	if err != nil {
		return err
	}
	known := s.signed
	if !ok {
		if known.Size > 0 {
			return alarm(1, "the checkpoints are missing in the database; %d records were signed", known.Size)
		}
		if s.tree == nil {
			s.tree = &tree{}
		}
		return nil
	}
	if s.tree != nil && last.Note == known.Note && last.Size == s.tree.size {
		return nil
	}
	c, err := OpenCheckpoint(last.Note, s.trusted)
	switch {
	case errors.Is(err, ErrUnknownKey):
		return alarm(0, "the last checkpoint in the database is not signed by any of our keys: if another control plane signed it, give this one the same audit-key, or that one's verifier key in audit-trusted")
	case err != nil:
		return alarm(0, "the last checkpoint in the database cannot be read: %v", err)
	case c.Size != last.Size:
		return alarm(0, "the checkpoint of %d records is stored as that of %d", c.Size, last.Size)
	case known.Size > 0 && c.Origin != known.Origin:
		return alarm(0, "the database contains the log %s, but it was the log %s before", c.Origin, known.Origin)
	case c.Size < known.Size:
		return alarm(domain.Position(c.Size+1), "the log was rolled back: its last checkpoint covers %d records, but %d were signed", c.Size, known.Size)
	case c.Size == known.Size && c.Root != known.Root:
		return alarm(0, "two checkpoints of %d records differ", c.Size)
	}
	edge, err := loadTree(ctx, s.log, c.Size)
	if passing(ctx, err) {
		return err
	}
	if err != nil {
		return alarm(0, "the tree cannot be read: %v", err)
	}
	if edge.root() != c.Root {
		return alarm(0, "the stored tree of %d records is not the signed one", c.Size)
	}
	if known.Size > 0 && known.Size < c.Size {
		proof, err := tlog.ProveTree(c.Size, known.Size, hashReader(ctx, s.log))
		if err == nil {
			err = tlog.CheckTree(proof, c.Size, c.Root, known.Size, known.Root)
		}
		if passing(ctx, err) {
			return err
		}
		if err != nil {
			return alarm(0, "the checkpoint of %d records does not contain that of %d records: %v", c.Size, known.Size, err)
		}
	}
	s.tree = edge
	return s.accept(c)
}

// passing reports whether an error says nothing about the tree.
func passing(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, eventstore.ErrUnavailable)
}

// accept stores a checkpoint as the newest one.
func (s *Sealer) accept(c Checkpoint) error {
	if s.options.Keep != nil && c.Note != s.signed.Note {
		if err := s.options.Keep(c.Note); err != nil {
			return fmt.Errorf("store a checkpoint outside the database: %w", err)
		}
	}
	s.signed = c
	s.mu.Lock()
	s.state.Signed = c
	s.mu.Unlock()
	s.options.Metrics.signed(c.Size)
	if now := s.options.Clock(); now.Sub(s.told) >= announceEvery {
		s.told = now
		s.options.Logger.Info("checkpoint", "log", c.Origin, "records", c.Size, "root", c.Root.String(), "key", c.Key)
	}
	return nil
}

// extend adds up to sealRecords records to the tree and signs it. It hashes every
// record again from its stored bytes.
func (s *Sealer) extend(ctx context.Context, head eventstore.Checkpoint) error {
	began := time.Now()
	before := s.tree.size
	leaves, err := s.log.Leaves(ctx, domain.Position(before), int(min(sealRecords, int64(head.Position)-before)))
	if err != nil {
		return err
	}
	if len(leaves) == 0 {
		return alarm(domain.Position(before+1), "record %d is missing", before+1)
	}
	next := s.tree.clone()
	stored := make([]byte, 0, 2*tlog.HashSize*len(leaves))
	for i, leaf := range leaves {
		switch p := domain.Position(before + int64(i) + 1); {
		case leaf.Position != p:
			return alarm(p, "record %d is missing", p)
		case !leaf.Matches():
			return alarm(p, "record %d was changed: it does not match its leaf hash", p)
		}
		stored = next.add(leaf.Hash, stored)
	}
	c := Checkpoint{Origin: s.signed.Origin, Size: next.size, Root: next.root(), At: s.options.Clock()}
	if c.Origin == "" {
		c.Origin = s.options.Key.signer.Name()
	}
	if err := sign(&c, s.options.Key.signer); err != nil {
		return err
	}
	err = s.log.AppendSeal(ctx, eventstore.Seal{Before: before, Size: next.size, FirstHash: tlog.StoredHashCount(before),
		Hashes: stored, Note: c.Note, SealedAt: c.At})
	if err != nil {
		return err
	}
	s.options.Metrics.sealed(len(leaves), time.Since(began))
	s.tree = next
	return s.accept(c)
}

// recheck compares the next signed records with the tree. After the last one it begins
// again with the first.
func (s *Sealer) recheck(ctx context.Context) error {
	s.working.Lock()
	defer s.working.Unlock()
	standing := s.Status().alarms[ofRechecking]
	if standing != nil {
		s.checked = min(s.checked, max(0, int64(standing.Position)-sealRecords)) // has the difference been repaired?
	}
	for done := 0; done < recheckRecords; {
		seals, err := s.log.Seals(ctx, s.checked, 1)
		if err != nil {
			return err
		}
		if len(seals) == 0 {
			s.checked = 0
			return nil
		}
		if err := recheckSeal(ctx, s.log, seals[0]); err != nil {
			return err
		}
		s.checked = seals[0].Size
		done += int(seals[0].Size - seals[0].Before)
	}
	if standing != nil && s.checked < int64(standing.Position) {
		return standing
	}
	return nil
}

// recheckSeal compares a seal with the records, and with itself: its leaf hashes must
// give its other stored hashes and the signed root.
func recheckSeal(ctx context.Context, log Log, seal eventstore.Seal) error {
	want, err := leavesOf(seal.Before, seal.Size, seal.Hashes)
	if err != nil {
		return alarm(domain.Position(seal.Before+1), "%v", err)
	}
	leaves, err := log.Leaves(ctx, domain.Position(seal.Before), len(want))
	if err != nil {
		return err
	}
	edge, err := loadTree(ctx, log, seal.Before)
	if err != nil {
		return err
	}
	stored := make([]byte, 0, len(seal.Hashes))
	for i, h := range want {
		switch p := domain.Position(seal.Before + int64(i) + 1); {
		case i >= len(leaves) || leaves[i].Position != p:
			return alarm(p, "record %d is missing", p)
		case eventstore.HashLeaf(leaves[i].Content) != h:
			return alarm(p, "record %d was changed after it was signed", p)
		case leaves[i].Hash != h:
			return alarm(p, "the leaf hash of record %d was changed after it was signed", p)
		}
		stored = edge.add(h, stored)
	}
	c, err := OpenCheckpoint(seal.Note, nil)
	if err != nil && !errors.Is(err, ErrUnknownKey) {
		return alarm(domain.Position(seal.Before+1), "the checkpoint of %d records cannot be read: %v", seal.Size, err)
	}
	if c.Root != edge.root() || string(stored) != string(seal.Hashes) {
		return alarm(domain.Position(seal.Before+1), "the stored tree from %d to %d is not the signed one", seal.Before, seal.Size)
	}
	return nil
}
