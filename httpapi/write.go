package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// maxKey is how long an idempotency key may be.
const maxKey = 255

// KeyHeader is what every write may carry.
type KeyHeader struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" pattern:"^[!-~]+$" doc:"Makes a repeat safe: the same key with the same request gives the first answer again (without secrets). With another request it is refused" example:"8e03978e-40d5-43e8-bc93-6894a57f9324"`
	DryRun         bool   `query:"dry_run" doc:"true: write nothing. The answer 200 lists the events that would be written and the live connections that would end"`
}

// MatchHeader is what a write to something that exists may carry.
type MatchHeader struct {
	KeyHeader
	IfMatch string `header:"If-Match" doc:"An ETag. The write is refused with 412 if the resource has changed since" example:"\"3\""`
}

// IDPath is the path of one resource.
type IDPath struct {
	ID int64 `path:"id" minimum:"1" doc:"The id" example:"100000001"`
}

// WriteAnswer is what every write answers with beside its body.
type WriteAnswer struct {
	Position domain.Position `header:"X-Position" doc:"The position in the log of this write; send it as Min-Position"`
	ETag     string          `header:"ETag" doc:"The version after the write; send it as If-Match"`
	Replayed string          `header:"Idempotency-Replayed" doc:"true when the Idempotency-Key was used before and nothing was written now"`
}

func answerOf(r domain.Receipt) WriteAnswer {
	w := WriteAnswer{Position: r.Position, ETag: etag(r.Version)}
	if r.Duplicate {
		w.Replayed = "true"
	}
	return w
}

// CreatedAnswer is a WriteAnswer of a POST that makes something.
type CreatedAnswer struct {
	WriteAnswer
	Location string `header:"Location" doc:"The path of the new resource"`
}

func createdOf(r domain.Receipt, collection string) CreatedAnswer {
	return CreatedAnswer{WriteAnswer: answerOf(r), Location: fmt.Sprintf("%s/%s/%d", prefix, collection, r.Subject.Number())}
}

func etag(v domain.Version) string { return `"` + strconv.FormatInt(int64(v), 10) + `"` }

// expected reads If-Match. "*" asks only that the resource exists, which every
// command that can carry it asks anyway. The tag of a GET may have a second part
// behind a dash (see tagged); only the version guards a write. A proxy that
// compresses answers makes their tags weak, and the version in one is as good.
func (h MatchHeader) expected() (*domain.Version, error) {
	if h.IfMatch == "" || h.IfMatch == "*" {
		return nil, nil
	}
	inner, ok := strings.CutPrefix(strings.TrimPrefix(h.IfMatch, "W/"), `"`)
	inner, closed := strings.CutSuffix(inner, `"`)
	number, _, _ := strings.Cut(inner, "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || !closed || err != nil || n < 0 {
		return nil, invalid("header.If-Match", `must be one entity tag as an ETag gave it, for example "3"`)
	}
	v := domain.Version(n)
	return &v, nil
}

// submit sends one command on its way. body is what identifies the request
// beside method, path and If-Match; ids drawn for it are not part of it.
func (a *api) submit(ctx context.Context, h MatchHeader, body any, c domain.Command) (domain.Receipt, error) {
	s, err := a.submission(ctx, h, body, c)
	if err != nil {
		return domain.Receipt{}, err
	}
	return a.send(ctx, h.KeyHeader, s)
}

func (a *api) submission(ctx context.Context, h MatchHeader, body any, c domain.Command) (domain.Submission, error) {
	s := domain.Submission{Command: c, Meta: a.metadata(ctx, c)}
	var err error
	if s.Expect, err = h.expected(); err != nil {
		return s, err
	}
	if h.IdempotencyKey != "" {
		s.Key, s.KeyScope = h.IdempotencyKey, identity(ctx).Actor
		s.Hash, err = requestHash(tracked(ctx), h.IfMatch, body)
	}
	return s, err
}

// send has a submission executed, or only looked at when it is a dry run.
func (a *api) send(ctx context.Context, h KeyHeader, s domain.Submission) (domain.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, a.config.WriteTimeout)
	defer cancel()
	if h.DryRun {
		return domain.Receipt{}, a.dryRun(ctx, s)
	}
	r, err := a.config.Executor.Submit(ctx, s)
	if err == nil {
		a.written.note(r.Position)
		a.noted(r)
	}
	return r, err
}

// create submits a command for something new, drawing ids until one is free:
// a restored sequence may lag behind what the log holds.
func (a *api) create(ctx context.Context, h KeyHeader, body any, sequence domain.Sequence, command func(id int64) domain.Command) (domain.Receipt, error) {
	return a.createWith(ctx, h, body, func(ctx context.Context) (int64, error) { return a.config.Executor.NextID(ctx, sequence) }, command)
}

// createWith is create with ids from somewhere else.
func (a *api) createWith(ctx context.Context, h KeyHeader, body any, draw func(context.Context) (int64, error), command func(id int64) domain.Command) (domain.Receipt, error) {
	const draws = 16
	var r domain.Receipt
	err := error(nil)
	for range draws {
		var id int64
		if id, err = draw(ctx); err != nil {
			return r, err
		}
		if r, err = a.submit(ctx, MatchHeader{KeyHeader: h}, body, command(id)); domain.CodeOf(err) != domain.CodeIDTaken {
			return r, err
		}
	}
	return r, err
}

// made gives the state a creating command made. For a repeat it is what the
// first answer showed, whatever has become of it since.
func made[A domain.Aggregate](r domain.Receipt) (A, error) {
	state := domain.NewAggregate(r.Subject)
	for _, record := range r.Records {
		if record.Stream != r.Subject {
			continue
		}
		if err := domain.Fold(state, []domain.Record{record}); err != nil {
			var none A
			return none, err
		}
	}
	return is[A](state)
}

// stateOf gives the subject's state after the command.
func stateOf[A domain.Aggregate](r domain.Receipt) (A, error) { return is[A](r.State) }

func is[A domain.Aggregate](state domain.Aggregate) (A, error) {
	a, ok := state.(A)
	if !ok {
		return a, fmt.Errorf("receipt holds %T, want %T", state, a)
	}
	return a, nil
}

// requestHash identifies a request. The parts cannot run into each other: JSON
// strings are quoted.
func requestHash(t *track, ifMatch string, body any) ([sha256.Size]byte, error) {
	text, err := json.Marshal([]any{t.method, t.path, ifMatch, body})
	return sha256.Sum256(text), err
}

// written remembers the last position this process was told, for a moment, so
// that whoever writes and then reads here without naming a position sees what
// they wrote. Across processes that is what Min-Position is for.
type written struct {
	mu       sync.Mutex
	position domain.Position // guarded by mu
	at       time.Time       // guarded by mu
}

// recently is how long a write is remembered: any projector that works has
// caught up by then, and one that does not must not slow every read.
const recently = 2 * time.Second

func (w *written) note(p domain.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p >= w.position {
		w.position, w.at = p, time.Now()
	}
}

// lately gives the position of a recent write, or 0.
func (w *written) lately() domain.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.at) > recently {
		return 0
	}
	return w.position
}
