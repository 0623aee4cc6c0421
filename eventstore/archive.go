package eventstore

import (
	"context"
	"errors"

	"github.com/tunnox-net/tunnox/domain"
)

// This file is about moving a whole log from one store to another. A store gives its
// whole content as a sequence of items, as of one moment. An empty store accepts such a
// sequence. Bytes, positions and leaf hashes stay as they were written; nothing is
// decided again.

// ErrNotEmpty is returned by Restore of a store in which something was written.
var ErrNotEmpty = errors.New("eventstore: the log is not empty")

// ArchiveItem is one thing that a store holds. The items come in this order: an
// [ArchivedHead], then each [ArchivedRecord] in the order of positions with each [Seal]
// after the last record that it covers, then [ArchivedStream], [ArchivedClaim],
// [ArchivedKey] and [ArchivedDataKey].
type ArchiveItem interface{ archived() }

// ArchivedHead is the end of the log; it is the first item. It is not made from the
// records, so that a missing last record is noticed.
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

// LeafContent gives the bytes whose hash must be the record's leaf hash.
func (r *ArchivedRecord) LeafContent() []byte {
	return LeafContent(domain.Record{Stream: r.Stream, Version: r.Version, Owner: r.Owner, Name: r.Name,
		Schema: r.Schema, ID: r.ID, Data: r.Data}, r.Meta, r.RecordedMicros)
}

// Archive is a store whose whole content can be read, and that can be filled from such
// content.
type Archive interface {
	// Archive calls visit with everything that the store held at one moment. Appends
	// continue at the same time.
	Archive(ctx context.Context, visit func(ArchiveItem) error) error
	// Restore fills an empty store with the items that fill passes to put: all of them
	// or none. It checks only that the store is empty. Sequences of ids continue after
	// the ids that event streams have.
	Restore(ctx context.Context, fill func(put func(ArchiveItem) error) error) error
}

// archivePage is how many rows a store reads at a time for an archive.
const archivePage = 1000

// Archiver reads one moment of a store, page by page. It is for stores.
type Archiver struct {
	Records  func(after domain.Position, limit int) ([]ArchivedRecord, error)
	Seals    func(after int64, limit int) ([]Seal, error) // by Size
	Streams  func(after domain.StreamID, limit int) ([]ArchivedStream, error)
	Claims   func(after ClaimName, limit int) ([]ArchivedClaim, error)
	Keys     func(after KeyName, limit int) ([]ArchivedKey, error)
	DataKeys func(after int64, limit int) ([]ArchivedDataKey, error)
}

// Each calls visit with everything after the head, in the order of an archive.
func (a Archiver) Each(ctx context.Context, visit func(ArchiveItem) error) error {
	seals := &sealReader{read: a.Seals}
	err := pages(ctx, a.Records, func(r ArchivedRecord) domain.Position { return r.Position }, func(r ArchivedRecord) error {
		if err := seals.upTo(int64(r.Position)-1, visit); err != nil {
			return err
		}
		return visit(r)
	}, 0)
	if err == nil {
		err = seals.upTo(1<<62, visit) // also those that cover missing records
	}
	if err == nil {
		err = pages(ctx, a.Streams, func(s ArchivedStream) domain.StreamID { return s.Stream }, func(s ArchivedStream) error { return visit(s) }, "")
	}
	if err == nil {
		err = pages(ctx, a.Claims, func(c ArchivedClaim) ClaimName { return ClaimName{c.Scope, c.Value} }, func(c ArchivedClaim) error { return visit(c) }, ClaimName{})
	}
	if err == nil {
		err = pages(ctx, a.Keys, func(k ArchivedKey) KeyName { return k.KeyName }, func(k ArchivedKey) error { return visit(k) }, KeyName{})
	}
	if err == nil {
		err = pages(ctx, a.DataKeys, func(k ArchivedDataKey) int64 { return k.Account }, func(k ArchivedDataKey) error { return visit(k) }, 0)
	}
	return err
}

// pages reads a table by its key.
func pages[K, V any](ctx context.Context, read func(after K, limit int) ([]V, error), key func(V) K, visit func(V) error, after K) error {
	for {
		page, err := read(after, archivePage)
		if err != nil {
			return err
		}
		for _, v := range page {
			if err := visit(v); err != nil {
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

// upTo visits the seals whose size is at most size.
func (s *sealReader) upTo(size int64, visit func(ArchiveItem) error) (err error) {
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
		if err := visit(s.page[0]); err != nil {
			return err
		}
		s.last, s.page = s.page[0].Size, s.page[1:]
	}
}

// LastIDs gives the highest number of each category among the event streams that a
// restore has written. Sequences of ids continue after these numbers.
type LastIDs map[string]int64

// Note adds a stream. The numbers of anonymous clients are drawn at random from below
// those of the sequence, so they do not count.
func (l LastIDs) Note(stream domain.StreamID) {
	category := stream.Category()
	l[category] = max(l[category], stream.Number())
}
