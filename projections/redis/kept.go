package redis

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// What is kept of a row is: a version, how long the proof is, the proof, how long the
// sealed part is, the sealed part, and the open part. The open part is the row's JSON
// without the fields that are sealed. Of kinds that forwarders have no use for all of
// it is sealed.
//
// The proof binds it to its kind, its id, and the version of the read models, so that
// no row can stand for another, nor for one of a log that was taken back.
const keptVersion = 1

// The purposes of proofs.
const (
	purposeRows = attest.Purpose("tunnox read models")
	purposeView = attest.Purpose("tunnox view")
)

// openKinds are the kinds that forwarders read, each with the fields that they do not
// see, as the table of kinds says. Those are texts.
var openKinds = func() map[projections.Kind][]string {
	open := map[projections.Kind][]string{}
	for _, k := range domain.Kinds() {
		if k.NoRow == "" && !k.ForControl {
			open[projections.Kind(k.Category)] = k.Row
		}
	}
	return open
}()

// named are the indexes whose names tell something about a person. What stands behind
// the colon is blinded.
const (
	named   = "user-named:"
	blinded = "~" // which no user name begins with
)

// indexKey gives the name of an index in Redis.
func (s *Store) indexKey(index string) string {
	name, ok := strings.CutPrefix(index, named)
	if !ok || s.trust.Key == nil || strings.HasPrefix(name, blinded) {
		return index
	}
	return named + blinded + s.trust.Key.Blind(name)
}

// errReadOnly is what a process without the key gets when it is to write.
var errReadOnly = errors.New("read models: this process may only read them")

// rowItem is what the proof of a row is of.
func rowItem(version string, key projections.Key, sealed, open []byte) []byte {
	return attest.Join([]byte("row"), []byte(version), []byte(key.Kind), strconv.AppendInt(nil, key.ID, 10), sealed, open)
}

// checkpointItem is what the proof of a checkpoint is of.
func checkpointItem(version, position, eventID string) []byte {
	return attest.Join([]byte("checkpoint"), []byte(version), []byte(position), []byte(eventID))
}

func place(version string, key projections.Key) string {
	return fmt.Sprintf("%s %s-%d", version, key.Kind, key.ID)
}

// attested gives what is kept of a batch's rows, and the proof of its checkpoint.
func (s *Store) attested(version string, b projections.Batch) (kept [][]byte, proof []byte, err error) {
	key := s.trust.Key
	if key == nil {
		return nil, nil, errReadOnly
	}
	sealed, opened, items := make([][]byte, len(b.Put)), make([][]byte, len(b.Put)), make([][]byte, 0, len(b.Put)+1)
	for i, row := range b.Put {
		closed, open, err := divide(row)
		if err != nil {
			return nil, nil, err
		}
		if closed != nil {
			closed = key.Seal(closed, place(version, row.Key))
		}
		sealed[i], opened[i] = closed, open
		items = append(items, rowItem(version, row.Key, closed, open))
	}
	at := checkpointArgs(b.To)
	items = append(items, checkpointItem(version, fmt.Sprint(at[0]), fmt.Sprint(at[1])))
	proofs := key.Attest(purposeRows, items...)
	kept = make([][]byte, len(b.Put))
	for i := range kept {
		kept[i] = pack(proofs[i], sealed[i], opened[i])
	}
	return kept, proofs[len(b.Put)], nil
}

// divide gives the part of a row that is sealed, nil for none, and the part that is
// open: the row with empty texts in the place of what is sealed. The sealed part says
// where they are, so that the two make the row again byte for byte.
func divide(row projections.Row) (closed, rest []byte, err error) {
	hidden, isOpen := openKinds[row.Kind]
	if !isOpen {
		return row.Value, nil, nil
	}
	if len(hidden) == 0 {
		return nil, row.Value, nil
	}
	fields := json.NewDecoder(bytes.NewReader(row.Value))
	if _, err := fields.Token(); err != nil {
		return nil, nil, fmt.Errorf("read model row %s-%d: %w", row.Kind, row.ID, err)
	}
	done := 0
	for fields.More() {
		var value json.RawMessage
		name, err := fields.Token()
		if err == nil {
			err = fields.Decode(&value)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read model row %s-%d: %w", row.Kind, row.ID, err)
		}
		if text, _ := name.(string); !slices.Contains(hidden, text) {
			continue
		}
		end := int(fields.InputOffset())
		rest = append(rest, row.Value[done:end-len(value)]...)
		closed = binary.BigEndian.AppendUint32(closed, uint32(len(rest)))  //nolint:gosec // a row has some KiB
		closed = binary.BigEndian.AppendUint32(closed, uint32(len(value))) //nolint:gosec // as above
		closed = append(closed, value...)
		rest = append(rest, `""`...)
		done = end
	}
	return closed, append(rest, row.Value[done:]...), nil
}

// joined puts the two parts together that divide made.
func joined(open, closed []byte) (whole []byte, err error) {
	done := 0
	for len(closed) > 0 {
		if len(closed) < 8 {
			return nil, errSealedPart
		}
		at, n := int64(binary.BigEndian.Uint32(closed)), int64(binary.BigEndian.Uint32(closed[4:]))
		closed = closed[8:]
		if n > int64(len(closed)) || at < int64(done) || at+2 > int64(len(open)) {
			return nil, errSealedPart
		}
		whole = append(append(whole, open[done:at]...), closed[:n]...)
		closed, done = closed[n:], int(at)+2
	}
	return append(whole, open[done:]...), nil
}

var errSealedPart = errors.New("the sealed part does not fit the open one")

func pack(proof, sealed, open []byte) []byte {
	kept := make([]byte, 0, 7+len(proof)+len(sealed)+len(open))
	kept = binary.BigEndian.AppendUint16(append(kept, keptVersion), uint16(len(proof))) //nolint:gosec // at most attest.MostProof
	kept = append(kept, proof...)
	kept = binary.BigEndian.AppendUint32(kept, uint32(len(sealed))) //nolint:gosec // a row has some KiB
	return append(append(kept, sealed...), open...)
}

func unpack(kept []byte) (proof, sealed, open []byte, ok bool) {
	if len(kept) < 7 || kept[0] != keptVersion {
		return nil, nil, nil, false
	}
	n, rest := int(binary.BigEndian.Uint16(kept[1:])), kept[3:]
	if len(rest) < n+4 {
		return nil, nil, nil, false
	}
	proof, rest = rest[:n], rest[n:]
	m, rest := int64(binary.BigEndian.Uint32(rest)), rest[4:]
	if int64(len(rest)) < m {
		return nil, nil, nil, false
	}
	return proof, rest[:m], rest[m:], true
}

// value gives the row's JSON: all of it with the key, else what is open.
func (s *Store) value(ctx context.Context, version string, key projections.Key, kept []byte) ([]byte, error) {
	proof, sealed, opened, ok := unpack(kept)
	if !ok {
		return nil, fmt.Errorf("%w: row %s-%d is not in our form", attest.ErrForged, key.Kind, key.ID)
	}
	if err := s.trust.Verifier.Check(ctx, purposeRows, rowItem(version, key, sealed, opened), proof); err != nil {
		return nil, fmt.Errorf("row %s-%d: %w", key.Kind, key.ID, err)
	}
	if s.trust.Key == nil || len(sealed) == 0 {
		if len(opened) == 0 {
			return nil, fmt.Errorf("row %s-%d is for control planes only", key.Kind, key.ID)
		}
		return opened, nil
	}
	closed, err := s.trust.Key.Open(sealed, place(version, key))
	if err != nil {
		return nil, fmt.Errorf("row %s-%d: %w", key.Kind, key.ID, err)
	}
	if len(opened) == 0 {
		return closed, nil
	}
	whole, err := joined(opened, closed)
	if err != nil {
		return nil, fmt.Errorf("row %s-%d: %w", key.Kind, key.ID, err)
	}
	return whole, nil
}

// found is what one look at the read models gave.
type found struct {
	version string
	at      projections.Checkpoint
	values  [][]byte
}

// fetch reads rows and the checkpoint they are at. built is false when nothing is there
// to be read. What nobody of ours has written is an [projections.ErrForged], and a
// process with the key has the read models be built anew.
func (r rows) fetch(ctx context.Context, keys ...projections.Key) (f found, built bool, err error) {
	args := make([]any, 0, 2*len(keys))
	for _, key := range keys {
		args = append(args, string(key.Kind), key.ID)
	}
	reply, err := r.look(ctx, getScript, args...).Slice()
	if err != nil {
		return f, false, unavailable("read rows", err)
	}
	if len(reply) < 4 {
		return f, false, nil
	}
	head := make([]string, 4)
	for i := range head {
		head[i], _ = reply[i].(string)
	}
	f.version = head[0]
	r.store.noteVersion(r.version, f.version)
	if f.at, err = r.store.checkpoint(ctx, head); err == nil {
		f.values, err = r.store.open(ctx, f.version, keys, reply[4:])
	}
	if errors.Is(err, attest.ErrForged) {
		r.store.distrust(ctx, f.version, err)
		err = fmt.Errorf("%w: %w", projections.ErrForged, err)
	} else if err != nil {
		err = unavailable("read rows", err)
	}
	return f, err == nil, err
}

// checkpoint reads version, position, event id and proof.
func (s *Store) checkpoint(ctx context.Context, head []string) (c projections.Checkpoint, err error) {
	if c, err = parseCheckpoint(head[1], head[2]); err != nil {
		return c, fmt.Errorf("%w: %w", attest.ErrForged, err)
	}
	if c == (projections.Checkpoint{}) {
		return c, nil // it has just begun, and holds nothing
	}
	if err := s.trust.Verifier.Check(ctx, purposeRows, checkpointItem(head[0], head[1], head[2]), []byte(head[3])); err != nil {
		return c, fmt.Errorf("checkpoint: %w", err)
	}
	return c, nil
}

func (s *Store) open(ctx context.Context, version string, keys []projections.Key, reply []any) ([][]byte, error) {
	values := make([][]byte, len(keys))
	for i, text := range reply {
		kept, ok := text.(string)
		if !ok {
			continue
		}
		value, err := s.value(ctx, version, keys[i], []byte(kept))
		if err != nil {
			return nil, err
		}
		values[i] = value
	}
	return values, nil
}

// noteVersion remembers which version is read, for who writes to it next.
func (s *Store) noteVersion(asked, version string) {
	if asked != "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = version
}

// versionToWrite gives the version that a batch is for. One that is read no more when
// the batch comes has no checkpoint, and the batch is fenced.
func (r rows) versionToWrite(ctx context.Context) (string, error) {
	if r.version != "" {
		return r.version, nil
	}
	r.store.mu.Lock()
	version := r.store.active
	r.store.mu.Unlock()
	if version != "" {
		return version, nil
	}
	f, built, err := r.fetch(ctx)
	if err == nil && !built {
		err = projections.ErrFenced
	}
	return f.version, err
}

// distrust has a version of the read models be built anew: without its checkpoint
// nobody reads it, and the projector begins again.
func (s *Store) distrust(ctx context.Context, version string, why error) {
	if s.trust.Key == nil {
		s.logger.Error("somebody else has written to the read models; they are not used", "error", why)
		return
	}
	s.logger.Error("somebody else has written to the read models; they are built anew", "error", why)
	if err := s.client.Unlink(ctx, s.tag+":"+version+":meta").Err(); err != nil {
		s.logger.Warn("the read models that somebody else has written to cannot be dropped yet", "error", err)
	}
}

// viewItem is what the proof of a kept view is of.
func viewItem(generation string, view []byte) []byte {
	return attest.Join([]byte(generation), view)
}

// attestedView gives what is kept of a view.
func attestedView(key *attest.Key, generation string, view domain.ClientView) ([]byte, error) {
	text, err := json.Marshal(view)
	if err != nil {
		return nil, fmt.Errorf("encode the view of a client: %w", err)
	}
	return pack(key.Attest(purposeView, viewItem(generation, text))[0], nil, text), nil
}

// viewOf reads what attestedView gave.
func viewOf(ctx context.Context, v *attest.Verifier, generation string, kept []byte) (view domain.ClientView, err error) {
	proof, _, text, ok := unpack(kept)
	if !ok {
		return view, attest.ErrForged
	}
	if err := v.Check(ctx, purposeView, viewItem(generation, text), proof); err != nil {
		return view, err
	}
	return view, json.Unmarshal(text, &view)
}
