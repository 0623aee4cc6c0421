package audit

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// This file defines the form of a whole log in a file: one JSON object in each line,
// with one field that names its kind. The first line is "tunnox_export" and the last is
// "end", so that a truncated file is noticed. The bytes of data and meta are in
// strings, because the leaf hash is made of these very bytes. A "seal" comes after the
// last record that it covers. It carries the leaf hashes as they were signed: a second
// copy, beside the one in each record.

// format is the number of this form.
const format = 1

// maxLine bounds a line: a record of the largest event, escaped, or a seal.
const maxLine = 8 * eventstore.MaxEvent

type line struct {
	Export  *fileHead    `json:"tunnox_export,omitempty"`
	Record  *fileRecord  `json:"record,omitempty"`
	Seal    *fileSeal    `json:"seal,omitempty"`
	Stream  *fileStream  `json:"stream,omitempty"`
	Claim   *fileClaim   `json:"claim,omitempty"`
	Key     *fileKey     `json:"key,omitempty"`
	DataKey *fileDataKey `json:"data_key,omitempty"`
	End     *fileEnd     `json:"end,omitempty"`
}

type (
	fileHead struct {
		Format   int             `json:"format"`
		Head     domain.Position `json:"head"`
		Exported time.Time       `json:"exported"`
		// Keys are the public keys that the exporter knew. A verifier compares them
		// with keys that it got in another way.
		Keys []string `json:"verifier_keys,omitempty"`
	}
	fileRecord struct {
		Position domain.Position `json:"position"`
		Stream   domain.StreamID `json:"stream"`
		Version  domain.Version  `json:"version"`
		Owner    int64           `json:"owner,omitempty"`
		Name     string          `json:"name"`
		Schema   int             `json:"schema"`
		ID       domain.EventID  `json:"id"`
		Recorded int64           `json:"recorded_us"`
		Data     string          `json:"data"`
		Meta     string          `json:"meta"`
		Leaf     string          `json:"leaf"`
	}
	fileSeal struct {
		Before   int64     `json:"before"`
		Size     int64     `json:"size"`
		SealedAt time.Time `json:"sealed_at"`
		Note     string    `json:"checkpoint"`
		Leaves   []byte    `json:"leaves"`
	}
	fileStream struct {
		Stream  domain.StreamID `json:"stream"`
		Version domain.Version  `json:"version"`
		Closed  bool            `json:"closed,omitempty"`
	}
	fileClaim struct {
		Scope string          `json:"scope"`
		Value string          `json:"value"`
		Owner domain.StreamID `json:"owner"`
	}
	fileKey struct {
		Scope   string          `json:"scope"`
		Key     string          `json:"key"`
		Hash    []byte          `json:"hash"`
		First   domain.Position `json:"first"`
		Last    domain.Position `json:"last"`
		Subject domain.StreamID `json:"subject"`
		Created int64           `json:"created_us"`
	}
	fileDataKey struct {
		Account int64  `json:"account"`
		Key     []byte `json:"key,omitempty"` // none = erased
	}
	fileEnd struct {
		Lines int64 `json:"lines"` // lines before this one
	}
)

// Writer writes a log to a file.
type Writer struct {
	out      *json.Encoder
	lines    int64
	exported time.Time
	keys     []string
}

// NewWriter writes to out, which should be buffered.
func NewWriter(out io.Writer, exported time.Time, verifierKeys []string) *Writer {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return &Writer{out: enc, exported: exported.UTC(), keys: verifierKeys}
}

// Put writes an item.
func (w *Writer) Put(item eventstore.ArchiveItem) error {
	var l line
	switch v := item.(type) {
	case eventstore.ArchivedHead:
		l.Export = &fileHead{Format: format, Head: v.Position, Exported: w.exported, Keys: w.keys}
	case eventstore.ArchivedRecord:
		l.Record = &fileRecord{v.Position, v.Stream, v.Version, v.Owner, v.Name, v.Schema, v.ID, v.RecordedMicros,
			string(v.Data), string(v.Meta), base64.StdEncoding.EncodeToString(v.Leaf[:])}
	case eventstore.Seal:
		leaves, err := leavesOf(v.Before, v.Size, v.Hashes)
		if err != nil {
			return err
		}
		flat := make([]byte, 0, len(leaves)*tlog.HashSize)
		for _, leaf := range leaves {
			flat = append(flat, leaf[:]...)
		}
		l.Seal = &fileSeal{v.Before, v.Size, v.SealedAt, v.Note, flat}
	case eventstore.ArchivedStream:
		l.Stream = &fileStream{v.Stream, v.Version, v.Closed}
	case eventstore.ArchivedClaim:
		l.Claim = &fileClaim{v.Scope, v.Value, v.Owner}
	case eventstore.ArchivedKey:
		l.Key = &fileKey{v.Scope, v.Key, v.Hash[:], v.First, v.Last, v.Subject, v.CreatedMicros}
	case eventstore.ArchivedDataKey:
		l.DataKey = &fileDataKey{v.Account, v.Key}
	default:
		return fmt.Errorf("audit: an export cannot contain a %T", item)
	}
	w.lines++
	return w.out.Encode(l)
}

// End writes the last line.
func (w *Writer) End() error { return w.out.Encode(line{End: &fileEnd{w.lines}}) }

// FileError says which line of a file is not a valid line of an export.
type FileError struct {
	Line int64
	err  error
}

// Error implements error.
func (e *FileError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.err) }

// Unwrap gives the fault of the line.
func (e *FileError) Unwrap() error { return e.err }

// Read calls visit with each item in a file. An error of visit ends Read and is
// returned unchanged.
func Read(in io.Reader, visit func(eventstore.ArchiveItem) error) error {
	return read(in, func(*fileHead) error { return nil }, visit)
}

// VerifierKeys gives the public keys in the head of a file.
func VerifierKeys(in io.Reader) (keys []string, err error) {
	err = read(in, func(h *fileHead) error { keys = h.Keys; return errEnough }, func(eventstore.ArchiveItem) error { return nil })
	if errors.Is(err, errEnough) {
		err = nil
	}
	return keys, err
}

var errEnough = errors.New("audit: enough was read")

func read(in io.Reader, head func(*fileHead) error, visit func(eventstore.ArchiveItem) error) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 1<<16), maxLine)
	r := reader{}
	for scanner.Scan() {
		r.lines++
		if r.ended {
			return &FileError{r.lines, errors.New("there are lines after the last line")}
		}
		var l line
		err := json.Unmarshal(scanner.Bytes(), &l)
		var item eventstore.ArchiveItem
		if err == nil {
			item, err = r.item(&l)
		}
		if err != nil {
			return &FileError{r.lines, err}
		}
		if l.Export != nil {
			if err := head(l.Export); err != nil {
				return err
			}
		}
		if item != nil {
			if err := visit(item); err != nil {
				return err
			}
		}
	}
	if err := scanner.Err(); err != nil {
		return &FileError{r.lines + 1, err}
	}
	if !r.ended {
		return &FileError{r.lines + 1, errors.New("the file ends before its last line: it is truncated")}
	}
	return nil
}

// reader keeps what one line means for the next ones.
type reader struct {
	lines int64
	ended bool
	tree  tree // made from the seals' leaves, to get the inner hashes
}

func (r *reader) item(l *line) (eventstore.ArchiveItem, error) {
	if (r.lines == 1) != (l.Export != nil) {
		return nil, errors.New("this is not an export of tunnoxd: the first line, and only the first, must be tunnox_export")
	}
	switch {
	case l.Export != nil:
		if l.Export.Format != format {
			return nil, fmt.Errorf("the export has format %d, this program reads %d", l.Export.Format, format)
		}
		return eventstore.ArchivedHead{Position: l.Export.Head}, nil
	case l.Record != nil:
		return l.Record.item()
	case l.Seal != nil:
		return r.seal(l.Seal)
	case l.Stream != nil:
		return eventstore.ArchivedStream{Stream: l.Stream.Stream,
			StreamState: eventstore.StreamState{Version: l.Stream.Version, Closed: l.Stream.Closed}}, nil
	case l.Claim != nil:
		return eventstore.ArchivedClaim{Claim: domain.Claim{Scope: l.Claim.Scope, Value: l.Claim.Value, Owner: l.Claim.Owner}}, nil
	case l.Key != nil:
		k := eventstore.ArchivedKey{KeyName: eventstore.KeyName{Scope: l.Key.Scope, Key: l.Key.Key}, CreatedMicros: l.Key.Created,
			KeyUse: eventstore.KeyUse{First: l.Key.First, Last: l.Key.Last, Subject: l.Key.Subject}}
		if len(l.Key.Hash) != len(k.Hash) {
			return nil, fmt.Errorf("the hash of key %q has %d bytes", l.Key.Key, len(l.Key.Hash))
		}
		copy(k.Hash[:], l.Key.Hash)
		return k, nil
	case l.DataKey != nil:
		return eventstore.ArchivedDataKey{Account: l.DataKey.Account, Key: l.DataKey.Key}, nil
	case l.End != nil:
		if r.ended = true; l.End.Lines != r.lines-1 {
			return nil, fmt.Errorf("the file has %d lines, but was written with %d", r.lines-1, l.End.Lines)
		}
		return nil, nil
	}
	return nil, errors.New("the kind of this line is not known")
}

func (f *fileRecord) item() (eventstore.ArchiveItem, error) {
	r := eventstore.ArchivedRecord{Position: f.Position, Stream: f.Stream, Version: f.Version, Owner: f.Owner, Name: f.Name,
		Schema: f.Schema, ID: f.ID, Data: []byte(f.Data), Meta: []byte(f.Meta), RecordedMicros: f.Recorded}
	leaf, err := base64.StdEncoding.DecodeString(f.Leaf)
	if err != nil || len(leaf) != len(r.Leaf) {
		return nil, fmt.Errorf("the leaf hash of record %d is not a hash", f.Position)
	}
	copy(r.Leaf[:], leaf)
	if strings.ContainsAny(string(r.Stream)+r.Name, "\n") {
		return nil, fmt.Errorf("a name in record %d contains a line end", f.Position)
	}
	return r, nil
}

func (r *reader) seal(f *fileSeal) (eventstore.ArchiveItem, error) {
	if f.Before != r.tree.size || f.Size <= f.Before || int64(len(f.Leaves)) != (f.Size-f.Before)*tlog.HashSize {
		return nil, fmt.Errorf("the seal from %d to %d with %d bytes of leaf hashes does not follow the seal of %d",
			f.Before, f.Size, len(f.Leaves), r.tree.size)
	}
	s := eventstore.Seal{Before: f.Before, Size: f.Size, FirstHash: tlog.StoredHashCount(f.Before), Note: f.Note, SealedAt: f.SealedAt,
		Hashes: make([]byte, 0, 2*len(f.Leaves))}
	for at := 0; at < len(f.Leaves); at += tlog.HashSize {
		s.Hashes = r.tree.add(tlog.Hash(f.Leaves[at:at+tlog.HashSize]), s.Hashes)
	}
	return s, nil
}
