package eventstore

import (
	"context"
	"errors"

	"github.com/tunnox-net/tunnox/domain"
)

// This file is about moving a whole log from one store to another. A store
// gives what it holds as a sequence of items, at one moment, and takes such a
// sequence when it is empty. Bytes, positions and leaf hashes are those that
// were written; nothing is decided anew.

// ErrNotEmpty is returned by Restore of a store in which something was written.
var ErrNotEmpty = errors.New("eventstore: the log is not empty")

// ArchiveItem is one thing a store holds: an [ArchivedHead], then each
// [ArchivedRecord] in the order of positions with each [Seal] behind the last
// record it covers, then [ArchivedStream], [ArchivedClaim], [ArchivedKey] and
// [ArchivedDataKey].
type ArchiveItem interface{ archived() }

// ArchivedHead is where the log ends; it is the first item. It does not come
// from the records, so that one which is missing at the end is noticed.
type ArchivedHead struct{ Position domain.Position }

// ArchivedRecord is a record with its exact bytes.
type ArchivedRecord struct {
	Position       domain.Position
	Stream         domain.StreamID
	Version        domain.Version
	Owner          int64
	Name           string
	Schema         int
	ID             domain.EventID
	Data, Meta     []byte
	RecordedMicros int64    // since 1970
	Leaf           [32]byte // as written with the record
}

// ArchivedStream is the end of an event stream.
type ArchivedStream struct {
	Stream domain.StreamID
	StreamState
}

// ArchivedClaim is a unique name that is held.
type ArchivedClaim struct{ domain.Claim }

// ArchivedKey is an idempotency key that was used.
type ArchivedKey struct {
	KeyName
	KeyUse
	CreatedMicros int64 // since 1970
}

// ArchivedDataKey is the key of an account's personal data; nil = erased.
type ArchivedDataKey struct {
	Account int64
	Key     []byte
}

func (ArchivedHead) archived()    {}
func (ArchivedRecord) archived()  {}
func (Seal) archived()            {}
func (ArchivedStream) archived()  {}
func (ArchivedClaim) archived()   {}
func (ArchivedKey) archived()     {}
func (ArchivedDataKey) archived() {}

// LeafContent gives what the record's leaf hash must be the hash of.
func (r *ArchivedRecord) LeafContent() []byte {
	return LeafContent(domain.Record{Stream: r.Stream, Version: r.Version, Owner: r.Owner, Name: r.Name,
		Schema: r.Schema, ID: r.ID, Data: r.Data}, r.Meta, r.RecordedMicros)
}

// Archive is a store that can be given away whole, and made from what was.
type Archive interface {
	// Archive calls take with all that the store held at one moment. It does not
	// hold up those who append meanwhile.
	Archive(ctx context.Context, take func(ArchiveItem) error) error
	// Restore fills an empty store with what fill puts, all of it or nothing. It
	// checks nothing but that the store is empty. Sequences go on behind the ids
	// that event streams have.
	Restore(ctx context.Context, fill func(put func(ArchiveItem) error) error) error
}

// archivePage is how many rows a store reads at a time for an archive.
const archivePage = 1000

// Archiver is one moment of a store, page by page. It is for stores.
type Archiver struct {
	Records  func(after domain.Position, limit int) ([]ArchivedRecord, error)
	Seals    func(after int64, limit int) ([]Seal, error) // by Size
	Streams  func(after domain.StreamID, limit int) ([]ArchivedStream, error)
	Claims   func(after ClaimName, limit int) ([]ArchivedClaim, error)
	Keys     func(after KeyName, limit int) ([]ArchivedKey, error)
	DataKeys func(after int64, limit int) ([]ArchivedDataKey, error)
}

// Each calls take with everything behind the head, in the order of an archive.
func (a Archiver) Each(ctx context.Context, take func(ArchiveItem) error) error {
	seals := &sealReader{read: a.Seals}
	err := pages(ctx, a.Records, func(r ArchivedRecord) domain.Position { return r.Position }, func(r ArchivedRecord) error {
		if err := seals.upTo(int64(r.Position)-1, take); err != nil {
			return err
		}
		return take(r)
	}, 0)
	if err == nil {
		err = seals.upTo(1<<62, take) // also those that cover records which are missing
	}
	if err == nil {
		err = pages(ctx, a.Streams, func(s ArchivedStream) domain.StreamID { return s.Stream }, func(s ArchivedStream) error { return take(s) }, "")
	}
	if err == nil {
		err = pages(ctx, a.Claims, func(c ArchivedClaim) ClaimName { return ClaimName{c.Scope, c.Value} }, func(c ArchivedClaim) error { return take(c) }, ClaimName{})
	}
	if err == nil {
		err = pages(ctx, a.Keys, func(k ArchivedKey) KeyName { return k.KeyName }, func(k ArchivedKey) error { return take(k) }, KeyName{})
	}
	if err == nil {
		err = pages(ctx, a.DataKeys, func(k ArchivedDataKey) int64 { return k.Account }, func(k ArchivedDataKey) error { return take(k) }, 0)
	}
	return err
}

// pages reads a table by its key.
func pages[K, V any](ctx context.Context, read func(after K, limit int) ([]V, error), key func(V) K, take func(V) error, after K) error {
	for {
		page, err := read(after, archivePage)
		if err != nil {
			return err
		}
		for _, v := range page {
			if err := take(v); err != nil {
				return err
			}
			after = key(v)
		}
		if len(page) < archivePage {
			return ctx.Err()
		}
	}
}

// sealReader gives seals in step with records.
type sealReader struct {
	read func(after int64, limit int) ([]Seal, error)
	page []Seal
	last int64
	done bool
}

// upTo gives the seals whose size is at most size.
func (s *sealReader) upTo(size int64, take func(ArchiveItem) error) (err error) {
	const few = 16 // a seal may have 64 KiB of hashes
	for {
		if len(s.page) == 0 {
			if s.done {
				return nil
			}
			if s.page, err = s.read(s.last, few); err != nil {
				return err
			}
			s.done = len(s.page) < few
			continue
		}
		if s.page[0].Size > size {
			return nil
		}
		if err := take(s.page[0]); err != nil {
			return err
		}
		s.last, s.page = s.page[0].Size, s.page[1:]
	}
}

// LastIDs gives, of the event streams a restore has written, the highest number
// of each category: where its ids go on.
type LastIDs map[string]int64

// Note takes a stream into account. Anonymous clients draw their numbers at
// random, from below those of the sequence.
func (l LastIDs) Note(stream domain.StreamID) {
	category := stream.Category()
	l[category] = max(l[category], stream.Number())
}
