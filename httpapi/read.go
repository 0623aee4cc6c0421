package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// MinHeader is what every read of a read model may carry.
type MinHeader struct {
	MinPosition domain.Position `header:"Min-Position" minimum:"0" doc:"The answer must show at least this position of the log (X-Position of a write)" example:"42"`
	AsOf        string          `query:"as_of" maxLength:"40" doc:"Show the state at a position of the log or at a time. The connections of clients are not kept. X-Position gives the position that is shown" example:"2026-01-02T15:04:05Z"`
}

// oneInput asks for one resource.
type oneInput struct {
	IDPath
	MinHeader
	IfNoneMatch string `header:"If-None-Match" doc:"An ETag: the answer is 304 without a body if nothing has changed" example:"\"3\""`
}

// ReadAnswer is what every read of one resource answers with beside its body.
type ReadAnswer struct {
	ETag string `header:"ETag" doc:"The version that was read; send it as If-Match or If-None-Match"`
}

// notModified makes huma answer 304.
type notModified struct{ etag string }

func (n notModified) Error() string           { return "not modified" }
func (n notModified) GetStatus() int          { return http.StatusNotModified }
func (n notModified) GetHeaders() http.Header { return http.Header{"Etag": {n.etag}} }

var _ huma.HeadersError = notModified{}

// tagged gives the answer's ETag, or 304 when the caller has it. The comparison
// is the weak one, as If-None-Match asks (RFC 9110 §13.1.2).
func (in oneInput) tagged(tag string) (ReadAnswer, error) {
	for candidate := range strings.SplitSeq(in.IfNoneMatch, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == "*" {
			return ReadAnswer{}, notModified{etag: tag}
		}
	}
	return ReadAnswer{ETag: tag}, nil
}

// ownWait bounds the wait for a write of this process that the caller did not
// name. It is a courtesy, not a promise: after it the read goes on. A projector
// takes milliseconds; a second outlasts one that was starved of a core.
const ownWait = time.Second

// await waits, by wait, until the read models show position min. It reports false
// when they did not in time, or cannot be reached.
func (a *api) await(ctx context.Context, min domain.Position, wait func(context.Context, domain.Position) error) bool {
	if _, past := momentOf(ctx); past {
		return true // it is folded from the log, which has it
	}
	timeout, named := a.config.WaitTimeout, min != 0
	if !named {
		if min = a.written.lately(); min == 0 {
			return true
		}
		timeout = ownWait
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return wait(ctx, min) == nil || !named
}

// one reads a single resource: from the read model when it shows position min,
// else folded from the log. A row that is missing or a read model that cannot be
// read sends us to the log too, so that a follower that is late or away makes
// an answer slow and never wrong.
func one[R any](ctx context.Context, a *api, min domain.Position,
	row func(context.Context) (R, bool, error), fold func(context.Context) (R, bool, error)) (R, bool, error) {
	// The past of one resource is folded from its own event stream, which is less
	// than all read models.
	if _, past := momentOf(ctx); !past && a.await(ctx, min, a.config.Reader.WaitRow) {
		if r, found, err := row(ctx); err == nil && found {
			return r, true, nil
		}
	} else if err := a.reached(ctx, min); err != nil {
		var none R
		return none, false, err
	}
	r, found, err := fold(ctx)
	if err != nil {
		return r, false, a.unreadable(ctx, err)
	}
	return r, found, nil
}

// reached refuses a Min-Position that the log itself does not have: folding it
// could not show that position either.
func (a *api) reached(ctx context.Context, min domain.Position) error {
	if min == 0 {
		return nil
	}
	records, err := a.config.History.ReadAll(ctx, min-1, 1)
	if err != nil {
		return a.unreadable(ctx, err)
	}
	if len(records) == 0 {
		p := problem(http.StatusServiceUnavailable, codeReadModelBehind, "The log has not reached this position.")
		p.Errors = []*Fault{{Location: "header.Min-Position", Message: "is beyond the end of the log"}}
		return p
	}
	return nil
}

// shows makes a list wait for its Min-Position, and refuses it after the wait: a
// list cannot be folded from one stream.
func (a *api) shows(ctx context.Context, min domain.Position) error {
	if a.await(ctx, min, a.config.Reader.Wait) {
		return nil
	}
	p := problem(http.StatusServiceUnavailable, codeReadModelBehind, "The lists do not show this position yet.")
	p.Errors = []*Fault{{Location: "header.Min-Position", Message: "has not been reached in time"}}
	return p
}

// unreadable is the answer when the log cannot be read.
func (a *api) unreadable(ctx context.Context, err error) error {
	if domain.CodeOf(err) == domain.CodeUnknownEvent {
		return a.refusal(ctx, err) // written by a newer version: waiting does not help
	}
	if ctx.Err() == nil {
		a.logger.WarnContext(ctx, "log cannot be read", "request", tracked(ctx).id, "error", err)
	}
	return problem(http.StatusServiceUnavailable, domain.CodeStoreUnavailable, "The log cannot be read now.")
}

// unlisted is the answer when a list cannot be read.
func (a *api) unlisted(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		a.logger.WarnContext(ctx, "read model cannot be read", "request", tracked(ctx).id, "error", err)
	}
	return problem(http.StatusServiceUnavailable, codeReadUnavailable, "Lists cannot be read now.")
}

// foldPage is how many records a fold reads at once.
const foldPage = 500

// fold makes a state from the log.
func (a *api) fold(ctx context.Context, stream domain.StreamID) (domain.Aggregate, projections.Versions, error) {
	state := domain.NewAggregate(stream)
	var at projections.Versions
	for {
		records, err := a.config.History.ReadStream(ctx, stream, at.Version, foldPage)
		if err != nil {
			return nil, at, err
		}
		full := len(records) == foldPage
		if p, past := momentOf(ctx); past {
			then := slices.IndexFunc(records, func(r domain.Record) bool { return r.Position > p })
			if then >= 0 {
				records, full = records[:then], false
			}
		}
		if err := domain.Fold(state, records); err != nil {
			return nil, at, err
		}
		if n := len(records); n > 0 {
			at = projections.Versions{Version: records[n-1].Version, Position: records[n-1].Position}
		}
		if !full {
			return state, at, nil
		}
	}
}

func (a *api) user(ctx context.Context, id int64, min domain.Position) (projections.UserRow, error) {
	row, found, err := one(ctx, a, min,
		func(ctx context.Context) (projections.UserRow, bool, error) { return a.config.Reader.User(ctx, id) },
		func(ctx context.Context) (projections.UserRow, bool, error) {
			state, at, err := a.fold(ctx, domain.UserStream(id))
			if u, ok := state.(*domain.User); ok && err == nil {
				return projections.UserRow{Versions: at, User: *u}, true, nil
			}
			return projections.UserRow{}, false, err
		})
	if err == nil && (!found || !row.Live()) {
		err = notFound(domain.CodeUserNotFound, "There is no such user.")
	}
	return row, err
}

func (a *api) client(ctx context.Context, id int64, min domain.Position) (projections.ClientRow, error) {
	row, found, err := one(ctx, a, min,
		func(ctx context.Context) (projections.ClientRow, bool, error) { return a.config.Reader.Client(ctx, id) },
		func(ctx context.Context) (projections.ClientRow, bool, error) {
			state, at, err := a.fold(ctx, domain.ClientStream(id))
			if c, ok := state.(*domain.Client); ok && err == nil {
				return projections.ClientRow{Versions: at, Client: *c}, true, nil
			}
			return projections.ClientRow{}, false, err
		})
	if err == nil && (!found || !row.Live()) {
		err = notFound(domain.CodeClientNotFound, "There is no such client.")
	}
	return row, err
}

func (a *api) mapping(ctx context.Context, id int64, min domain.Position) (projections.MappingRow, error) {
	row, found, err := one(ctx, a, min,
		func(ctx context.Context) (projections.MappingRow, bool, error) {
			return a.config.Reader.Mapping(ctx, id)
		},
		func(ctx context.Context) (projections.MappingRow, bool, error) {
			state, at, err := a.fold(ctx, domain.MappingStream(id))
			if m, ok := state.(*domain.Mapping); ok && err == nil {
				return projections.MappingRow{Versions: at, Mapping: *m}, true, nil
			}
			return projections.MappingRow{}, false, err
		})
	if err == nil && (!found || !row.Live()) {
		err = notFound(domain.CodeMappingNotFound, "There is no such mapping.")
	}
	return row, err
}

// quota gives a user's quota. A user without one has no limits and holds nothing.
func (a *api) quota(ctx context.Context, account int64, min domain.Position) (projections.QuotaRow, error) {
	row, _, err := one(ctx, a, min,
		func(ctx context.Context) (projections.QuotaRow, bool, error) {
			return a.config.Reader.Quota(ctx, account)
		},
		func(ctx context.Context) (projections.QuotaRow, bool, error) {
			state, at, err := a.fold(ctx, domain.QuotaStream(account))
			if q, ok := state.(*domain.Quota); ok && err == nil {
				return quotaRow(at, q), true, nil
			}
			return projections.QuotaRow{}, false, err
		})
	return row, err
}

func quotaRow(at projections.Versions, q *domain.Quota) projections.QuotaRow {
	return projections.QuotaRow{Versions: at, Account: q.Account, Limits: q.Limits, Clients: int64(len(q.Clients)),
		Mappings: int64(len(q.Mappings)), ActiveMappings: q.Active}
}

func notFound(code domain.Code, message string) error {
	return refused(http.StatusNotFound, &domain.Error{Code: code, Message: message})
}
