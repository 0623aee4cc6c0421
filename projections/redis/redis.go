// Package redis keeps read models in Redis, for a cluster: every control plane
// and forwarder reads them, and projectors take turns in writing.
//
// Who else can write to that Redis must not be believed: rows and checkpoint carry the
// proof that a control plane wrote them, and what is about a person is sealed for
// control planes (kept.go).
//
// A batch is one script, which compares the checkpoint and writes rows, indexes
// and the new checkpoint, so that it happens once or not at all. Redis is never
// the truth: after a flush, or a failover that lost something, the projector
// finds its checkpoint gone and builds anew.
package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/gather"
	"github.com/tunnox-net/tunnox/projections"
)

// abandoned is how long a build may be silent before another one drops it.
const abandoned = time.Minute

// Store is a [projections.Store] in one Redis database.
type Store struct {
	client goredis.UniversalClient
	tag    string
	trust  attest.Trust
	logger *slog.Logger
	read   rows // the version that is read
	// few gathers reads of few rows, which come in great numbers.
	few *gather.Gatherer[projections.Key, answer]

	mu      sync.Mutex
	active  string               // guarded by mu; the version that was read last
	waiting map[*waiter]struct{} // guarded by mu
	polling bool                 // guarded by mu; the poller runs
	poke    chan struct{}        // has the poller look at once
	poller  sync.WaitGroup
}

// New keeps read models in the client's database. It uses the client and does
// not close it. Without a key in trust it reads, and only what forwarders need.
func New(client goredis.UniversalClient, trust attest.Trust, logger *slog.Logger) *Store {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	tag := fmt.Sprintf("{rm%d}", projections.Schema)
	s := &Store{client: client, tag: tag, trust: trust, logger: logger, waiting: map[*waiter]struct{}{}, poke: make(chan struct{}, 1)}
	s.read = rows{store: s, client: client, tag: tag}
	s.few = gather.New(s.read.ask, gather.Options{})
	return s
}

// rows are one version of the read models, or, without a version, the one that
// is read.
type rows struct {
	store   *Store
	client  goredis.UniversalClient
	tag     string
	version string
}

// Checkpoint implements projections.Rows.
func (s *Store) Checkpoint(ctx context.Context) (projections.Checkpoint, error) {
	answers, err := s.few.Ask(ctx, checkpointKey)
	if err != nil {
		return projections.Checkpoint{}, err
	}
	return answers[0].at, nil
}

// fewKeys is how many rows are read together with those that others ask for; a
// list's are worth a round trip of their own.
const fewKeys = 8

// Get implements projections.Rows.
func (s *Store) Get(ctx context.Context, keys ...projections.Key) ([][]byte, error) {
	if len(keys) > fewKeys {
		return s.read.Get(ctx, keys...)
	}
	values, _, err := s.Read(ctx, keys...)
	return values, err
}

// Read implements projections.Store.
func (s *Store) Read(ctx context.Context, keys ...projections.Key) ([][]byte, domain.Position, error) {
	answers, err := s.few.Ask(ctx, keys...)
	if err != nil {
		return nil, 0, err
	}
	values, at := make([][]byte, len(keys)), domain.Position(0)
	for i, a := range answers {
		if !a.built {
			return nil, 0, errNone
		}
		values[i], at = a.value, a.at.Position
	}
	return values, at, nil
}

// Apply implements projections.Rows.
func (s *Store) Apply(ctx context.Context, b projections.Batch) error {
	if err := s.read.Apply(ctx, b); err != nil {
		s.noteVersion("", "") // it may be another by now
		return err
	}
	select {
	case s.poke <- struct{}{}:
	default: // it will look anyway
	}
	return nil
}

// List implements projections.Store.
func (s *Store) List(ctx context.Context, index string, after int64, limit int) ([]int64, error) {
	reply, err := s.read.look(ctx, listScript, s.indexKey(index), after, limit).StringSlice()
	if err != nil {
		return nil, unavailable("list "+index, err)
	}
	if len(reply) == 0 {
		return nil, errNone
	}
	ids := make([]int64, len(reply)-1)
	for i, text := range reply[1:] {
		if ids[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, fmt.Errorf("read model index %s: %w", index, err)
		}
	}
	return ids, nil
}

// Begin implements projections.Store.
func (s *Store) Begin(ctx context.Context) (projections.Build, error) {
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	reply, err := beginScript.Run(ctx, s.client, []string{s.tag}, hex.EncodeToString(random[:]), int(abandoned.Seconds())).StringSlice()
	if err != nil {
		return nil, unavailable("begin a build", err)
	}
	b := &build{rows: s.read, before: reply[1]}
	b.version = reply[0]
	for _, old := range reply[2:] {
		if err := s.read.drop(ctx, old); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// build is a version beside the one that is read.
type build struct {
	rows
	before   string // the version that was read at Begin, "" = none
	switched bool
}

// Switch implements projections.Build.
func (b *build) Switch(ctx context.Context, anew bool) error {
	replace := 0
	if anew {
		replace = 1
	}
	outcome, err := b.run(ctx, switchScript, b.before, replace).Int()
	switch {
	case err != nil:
		return unavailable("switch to a build", err)
	case outcome == 0:
		return projections.ErrFenced
	case outcome < 0:
		return projections.ErrBehind
	}
	b.switched = true
	if b.before == "" {
		return nil
	}
	return b.drop(ctx, b.before)
}

// Discard implements projections.Build.
func (b *build) Discard(ctx context.Context) error {
	if b.switched {
		return nil
	}
	return b.drop(ctx, b.version)
}

// Checkpoint implements projections.Rows.
func (r rows) Checkpoint(ctx context.Context) (projections.Checkpoint, error) {
	found, built, err := r.fetch(ctx)
	if err != nil || !built {
		return projections.Checkpoint{}, err
	}
	return found.at, nil
}

func parseCheckpoint(position, eventID string) (c projections.Checkpoint, err error) {
	n, err := strconv.ParseInt(position, 10, 64)
	if err != nil {
		return c, fmt.Errorf("read model checkpoint: %w", err)
	}
	c.Position = domain.Position(n)
	if eventID != "" {
		c.EventID, err = domain.ParseEventID(eventID)
	}
	return c, err
}

// answer is a row as one of many reads it: its value, nil for none, and the
// checkpoint of the read models, unless nothing is built that could be read.
type answer struct {
	value []byte
	at    projections.Checkpoint
	built bool
}

// checkpointKey asks for the checkpoint among rows.
var checkpointKey = projections.Key{}

// ask reads rows, and checkpoints, for many callers. No caller's own end is among
// the errors.
func (r rows) ask(ctx context.Context, keys []projections.Key) ([]answer, error) {
	wanted := make([]projections.Key, 0, len(keys))
	for _, key := range keys {
		if key != checkpointKey {
			wanted = append(wanted, key)
		}
	}
	found, built, err := r.fetch(ctx, wanted...)
	if err != nil {
		return nil, fmt.Errorf("%w: read rows: %w", projections.ErrUnavailable, err)
	}
	answers := make([]answer, len(keys))
	next := 0
	for i, key := range keys {
		answers[i] = answer{at: found.at, built: built}
		if built && key != checkpointKey {
			answers[i].value = found.values[next]
			next++
		}
	}
	return answers, nil
}

// Get implements projections.Rows.
func (r rows) Get(ctx context.Context, keys ...projections.Key) ([][]byte, error) {
	found, built, err := r.fetch(ctx, keys...)
	if err == nil && !built {
		err = errNone
	}
	return found.values, err
}

// Apply implements projections.Rows.
func (r rows) Apply(ctx context.Context, b projections.Batch) error {
	version, err := r.versionToWrite(ctx)
	if err != nil {
		return err
	}
	kept, proof, err := r.store.attested(version, b)
	if err != nil {
		return err
	}
	args := make([]any, 0, 9+3*len(b.Put)+2*(len(b.Delete)+len(b.Add)+len(b.Remove)))
	args = append(args, checkpointArgs(b.From)...)
	args = append(args, checkpointArgs(b.To)...)
	args = append(args, proof, len(b.Put))
	for i, row := range b.Put {
		args = append(args, string(row.Kind), row.ID, kept[i])
	}
	args = append(args, len(b.Delete))
	for _, key := range b.Delete {
		args = append(args, string(key.Kind), key.ID)
	}
	for _, members := range [][]projections.Member{b.Add, b.Remove} {
		args = append(args, len(members))
		for _, m := range members {
			args = append(args, r.store.indexKey(m.Index), m.ID)
		}
	}
	r.version = version // and not one that is switched to meanwhile
	applied, err := r.run(ctx, applyScript, args...).Int()
	if err != nil {
		return unavailable("write rows", err)
	}
	if applied == 0 {
		return projections.ErrFenced
	}
	return nil
}

func checkpointArgs(c projections.Checkpoint) []any {
	id := ""
	if !c.EventID.IsZero() {
		id = c.EventID.String()
	}
	return []any{int64(c.Position), id}
}

// look runs a script that reads. Without the key it is run as one that cannot write: a
// forwarder's user of Redis may run no other on these keys.
func (r rows) look(ctx context.Context, script *goredis.Script, args ...any) *goredis.Cmd {
	if r.store.trust.Key != nil {
		return r.run(ctx, script, args...)
	}
	return script.RunRO(ctx, r.client, []string{r.tag}, append([]any{r.version}, args...)...)
}

func (r rows) run(ctx context.Context, script *goredis.Script, args ...any) *goredis.Cmd {
	return script.Run(ctx, r.client, []string{r.tag}, append([]any{r.version}, args...)...)
}

// drop takes a version's keys away, the checkpoint first, so that none of the
// rest can be taken for whole.
func (r rows) drop(ctx context.Context, version string) error {
	prefix := r.tag + ":" + version + ":"
	if err := r.client.Unlink(ctx, prefix+"meta").Err(); err != nil {
		return unavailable("drop read models", err)
	}
	for cursor := uint64(0); ; {
		keys, next, err := r.client.Scan(ctx, cursor, prefix+"*", 1000).Result()
		if err == nil && len(keys) > 0 {
			err = r.client.Unlink(ctx, keys...).Err()
		}
		if err != nil {
			return unavailable("drop read models", err)
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	if err := r.client.ZRem(ctx, r.tag+":builds", version).Err(); err != nil {
		return unavailable("drop read models", err)
	}
	return nil
}

var errNone = fmt.Errorf("%w: nothing is built yet", projections.ErrUnavailable)

// unavailable wraps a failure of Redis; the caller's own end is passed on as it is.
func unavailable(doing string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", projections.ErrUnavailable, doing, err)
}
